"""Finds videos like one of yours: `python -m ctp_jax.search VIDEO --in=features.npz`."""

import os
import pathlib
import sys

import numpy as np

from ctp_jax import cli, devices
from ctp_jax.errors import UserError, refusals
from ctp_jax.flags import Flags
from ctp_jax.own_videos import command_line, feature_file, inference
from ctp_jax.storage import files

FLAGS = Flags()
IN = FLAGS.string("in", "", "Features that `ctp_jax.features` wrote: .npz or .parquet.")
INIT_FROM = FLAGS.string(
    "init_from", "", "The network that the features are of; default: where it was then."
)
OUT = FLAGS.string("out", "search.png", "Picture of what is found.")
K = FLAGS.integer("k", 5, "How many to find.", lower_bound=1)
cli.define_allow_code(FLAGS)


def main(arguments):
    """Finds the videos, or moments of videos, that are most like a video.

    python -m ctp_jax.search QUERY_VIDEO --in=features.npz [--k=5] [--out=search.png]

    Prints similarity (cosine), video and time of each, nearest first, and draws them. The
    query itself is not found where it is among them.
    """
    if len(arguments) != 1:
        raise UserError(f"{len(arguments)} paths: give one QUERY_VIDEO")
    if not IN.value:
        raise UserError("--in is missing: name a file of `python -m ctp_jax.features`")
    query, out = pathlib.Path(arguments[0]).expanduser(), files.absolute(OUT.value)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--out={OUT.value}: needs a name that ends with .png or .jpg")
    found = feature_file.read(files.absolute(IN.value))
    same = [os.path.realpath(each) for each in found.video.tolist()]
    found = found.select(np.array(same) != os.path.realpath(query))
    if not len(found.video):
        raise UserError(f"--in={IN.value}: holds no other video: add some")
    print(f"search: {len(found.video)} vectors, loading", file=sys.stderr, flush=True)
    devices.start()
    from ctp_jax.evaluators import nearest, neighbour_sheet

    encoder = command_line.load_encoder(INIT_FROM.value or found.about.init_from)
    if encoder.fingerprint() != found.about.encoder:
        raise UserError(
            f"--in={IN.value}: has features of another network than {encoder.path}: name "
            "its run with --init_from"
        )
    spec = encoder.spec.clip_spec()
    (result,) = inference.run([query], spec, encoder.describe)
    if result.error:
        raise UserError(f"{query}: {result.error}")
    vector = result.rows.mean(axis=0, keepdims=True)
    k = min(K.value, len(found.video))
    similarity, rows = nearest.search(vector, found.features, k)
    found = found.select(rows[0])
    moments = bool(found.about.every)
    names, pictures = [], []
    for likeness, video, time in zip(
        similarity[0], found.video.tolist(), found.time.tolist(), strict=True
    ):
        at = f" at {time:.1f} s" * moments
        print(f"{likeness:.4f} {video}{at}")
        # With the folder, which may be a class; endings would be cut anyway.
        name = "/".join(pathlib.Path(video).with_suffix("").parts[-2:])
        names.append(f"{likeness:.2f} {name}{at}")
        pictures.append(_picture(pathlib.Path(video), time if moments else None))
    sheet = neighbour_sheet.draw(
        [_picture(query, None)],
        [pictures],
        None,
        query_names=[query.name],
        neighbour_names=[names],
        title=f"{query.name}: the nearest of {IN.value}",
    )
    with refusals(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(out) as new, new.open("wb") as file:
            sheet.save(file, "PNG" if out.suffix.lower() == ".png" else "JPEG")
    print(out)


def _picture(video: pathlib.Path, time: float | None) -> np.ndarray:
    """The frame of a video at a time, or its middle one; grey if there is none."""
    from ctp_jax.own_videos import reader
    from ctp_jax.prepare.video import VideoError

    def choose(count: int, fps: float) -> np.ndarray:
        number = count // 2 if time is None else min(round(time * fps), count - 1)
        return np.array([[number]])

    try:
        clips = list(reader.read_clips(files.absolute(video), choose))
    except VideoError:
        return np.full((120, 160, 3), 128, np.uint8)
    return clips[-1].frames[0]


if __name__ == "__main__":
    cli.run(main, FLAGS)
