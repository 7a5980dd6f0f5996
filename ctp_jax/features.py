"""Features of videos of your own: `python -m ctp_jax.features VIDEO... --init_from=RUN`."""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctp_jax import cli, devices, formatting, terminal
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.own_videos import command_line, feature_file, inference
from ctp_jax.storage import files

if TYPE_CHECKING:
    from ctp_jax.encoder import Encoder

FLAGS = Flags()
INPUT = command_line.define_flags(FLAGS)
OUT = FLAGS.string("out", "", "File for the features: .npz or .parquet.")
EVERY = FLAGS.number(
    "every",
    0.0,
    "A vector for every so many seconds; 0: one for each video.",
    lower_bound=0.0,
)
cli.define_allow_code(FLAGS)


def main(arguments):
    """Computes features of videos with a pretrained encoder.

    python -m ctp_jax.features VIDEO_OR_FOLDER... --init_from=RUN --out=features.npz

    Each video has one vector, the mean over its clips; with --every, each segment has one.
    Called again, it goes on where it was stopped, and adds videos that are new. Files that
    cannot be read are named.
    """
    init_from = INPUT.init_from.value
    if not init_from:
        raise UserError("--init_from is missing: name a run or an exported encoder")
    if not OUT.value:
        raise UserError("--out is missing: name a file to write, features.npz")
    out = files.absolute(OUT.value)
    feature_file.check_name(out)
    videos = command_line.find_videos(arguments)
    feature_file.check_videos(out, map(os.fspath, videos))
    print(
        f"features: {formatting.count(len(videos), 'video')}, loading the network",
        file=sys.stderr,
    )
    devices.start()
    encoder = command_line.load_encoder(init_from)
    with feature_file.locked(out):
        found, bad = _write(encoder, videos, out)
    print(
        f"{out}: {formatting.count(len(set(found.video.tolist())), 'video')}, "
        f"{formatting.count(len(found.video), 'vector')} of "
        f"{found.features.shape[1]} numbers"
        + f"; files that cannot be read: {bad}"
        * bool(bad)
    )
    search = ["python", "-m", "ctp_jax.search", "VIDEO", f"--in={OUT.value}"]
    print(f"next, videos that are alike:\n  {formatting.command(search)}")


def _write(
    encoder: "Encoder", videos: Sequence[pathlib.Path], out: pathlib.Path
) -> tuple[feature_file.Features, int]:
    """Computes what is missing; returns the whole, and how many files are unreadable."""
    writer = feature_file.Writer(
        out, feature_file.About(encoder.fingerprint(), encoder.path, EVERY.value)
    )
    known = set(zip(writer.known.video.tolist(), writer.known.size.tolist()))
    names = [os.fspath(video) for video in videos]
    todo = [v for v in videos if (os.fspath(v), _size(v)) not in known]
    done = len(videos) - len(todo)
    if done:
        print(
            f"{out}: {done} of {formatting.count(len(videos), 'video')} are there"
            + ", going on" * bool(todo),
            flush=True,
        )
    results = inference.run(
        todo,
        encoder.spec.clip_spec(),
        encoder.describe,
        every=EVERY.value,
        batch_size=INPUT.batch_size.value,
        threads=INPUT.workers.value,
    )
    bad = 0
    try:
        for each in terminal.progress(
            results, "features", len(videos), done=done, unit="videos"
        ):
            name = os.fspath(todo[each.index])
            if each.error:
                bad += 1
                command_line.say_bad(name, each.error)
                continue
            rows, starts = each.rows, each.starts
            if not EVERY.value:
                rows, starts = rows.mean(axis=0, keepdims=True), np.zeros(1)
            writer.add(name, _size(todo[each.index]), starts, rows)
    except BaseException as error:
        writer.save()
        if not isinstance(error, KeyboardInterrupt):
            raise
        kept = len(set(writer.known.video.tolist()))
        line = f"{formatting.count(kept, 'video')} are done: the same command goes on"
        raise KeyboardInterrupt(line) from None
    if bad == len(videos):
        raise UserError(f"{formatting.count(bad, 'video')}: none can be read")
    return writer.finish(names), bad


def _size(video: pathlib.Path) -> int:
    """Bytes of a file; of a folder of frames and of what is not there -1."""
    try:
        return video.stat().st_size if video.is_file() else -1
    except OSError:
        return -1


if __name__ == "__main__":
    cli.run(main, FLAGS)
