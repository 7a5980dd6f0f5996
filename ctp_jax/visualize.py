"""Draws clips as a network sees them: `python -m ctp_jax.visualize --config=...` or `--workdir=...`."""

import copy
import itertools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ctp_jax import cli, devices, formatting, terminal
from ctp_jax import config as config_lib
from ctp_jax.errors import UserError, refusals, shown
from ctp_jax.flags import Flags
from ctp_jax.storage import buckets, files, untrusted

FLAGS = Flags()
CONFIG = cli.define_config(FLAGS)
WORKDIR = FLAGS.string(
    "workdir",
    None,
    "Run whose config and predictions (of its newest checkpoint, dashed) are drawn.",
)
OUT = FLAGS.string("out", None, "Folder for the pictures; default: --workdir.")
VIDEOS = FLAGS.integer("videos", 6, "Number of videos to draw.", lower_bound=1)
COLUMNS = FLAGS.integer("columns", 8, "Frames per row of the sheet.", lower_bound=1)
ZOOM = FLAGS.integer("zoom", 2, "Picture pixels per clip pixel.", lower_bound=1)
BOXES_ONLY = FLAGS.boolean(
    "boxes_only",
    False,
    "Draw boxes without pixels, for videos that must not be published.",
)
TRAIN = FLAGS.boolean(
    "train",
    False,
    "Draw training videos, with training's changes of colour, instead of held-out ones.",
)


CLIPS = 3
"""Largest number of clips per video in a picture."""


class Drawn(NamedTuple):
    """Clips as the network sees them; v videos, n trajectories, t frames.

    Attributes:
        clips: uint8 (v, t, s, s, 3).
        boxes: float32, v times (n, t, 4), true x1 y1 x2 y2 in pixels; n may be 0.
        predicted: likewise, or None without a checkpoint.
        names: of the videos.
        title: a line above the picture.
        animated: videos side by side in the animation; 0: some of them, larger.
        captions: of its rows.
        shows: what, in a word: the name of the files.
        original: as `clips`, before patches were pasted; None if none were.
        per_video: clips of a video that are much the same; one of them is animated.
    """

    clips: np.ndarray
    boxes: Sequence[np.ndarray] | np.ndarray
    predicted: np.ndarray | None
    names: list[str]
    title: str
    animated: int = 0
    captions: Sequence[str] = ()
    shows: str = "clips"
    original: np.ndarray | None = None
    per_video: int = 1


def main(arguments):
    """Draws clips as the network sees them, with their trajectories.

    python -m ctp_jax.visualize --config=configs/demo.py --out=DIR
    python -m ctp_jax.visualize --workdir=DIR      (a run, with its predictions)

    Writes a contact sheet, .png, and an animation, .gif, named for what they show: game
    (patches that move over videos), boxes (of the data set), clips.
    """
    if arguments:
        raise UserError(f"{arguments[0]!r}: not a flag: flags begin with --")
    config = CONFIG.value or config_of_run(WORKDIR.value)
    out = OUT.value or WORKDIR.value
    if not out:
        raise UserError("--out is missing: name the folder for the pictures")
    devices.start()
    drawn = draw(config, VIDEOS.value, WORKDIR.value, train=TRAIN.value)
    if BOXES_ONLY.value:
        drawn = drawn._replace(clips=np.full_like(drawn.clips, 128))
    for path in save(drawn, out, columns=COLUMNS.value, zoom=ZOOM.value):
        print(shown(path))


def config_of_run(workdir: str | None) -> ConfigDict:
    """The config of a run; `UserError` if there is none, or a wrong one."""
    if not workdir:
        raise UserError("--config and --workdir are missing: give one of them")
    path = buckets.opened(workdir) / "config.json"
    if not path.exists():
        raise UserError(
            f"--workdir={workdir}: no run (no config.json): name the folder of a run"
        )
    config = config_lib.from_json(untrusted.read_json(path, "give --config instead"))
    config_lib.validate(config)
    return config


def draw(
    config: ConfigDict, videos: int, workdir: str | None = None, train: bool = False
) -> Drawn:
    """Draws videos of a config, with predictions of the newest checkpoint of a run.

    Raises:
        UserError: the data are not prepared, or the workdir has no checkpoint of this
            config.
    """
    # Imported here, so that a wrong flag is reported before JAX and TensorFlow are.
    import jax

    from ctp_jax.ops.colour import to_uint8
    from ctp_jax.tasks import base, render
    from ctp_jax.train.checkpoints import restore

    config = copy.deepcopy(config)
    config.batch_size = 1
    task = base.load(config)
    train = train or not config.data.eval_split
    source = base.open_pipeline(config, task, train)
    task.see_data(source.whole, None)
    terminal.announce(f"drawing {formatting.count(videos, 'video')}, after compiling")
    stream = source.train_batches() if train else source.eval_batches()
    batches = list(itertools.islice(stream, videos))
    batch = jax.tree.map(lambda *rows: np.concatenate(rows), *batches)
    outputs, variables = None, None
    title = f"{config.data.name}, split {source.records.split}"
    if workdir:
        state, step = restore.newest(config, task, workdir, batch)
        variables = state.variables
        outputs = jax.device_get(jax.jit(task.predict)(variables, batch))
        title += f", predictions after {formatting.count(step, 'step')}"
    clips = np.asarray(to_uint8(jax.jit(task.picture)(batch, variables)))
    overlay = task.overlay(batch, outputs)
    names = [
        ": ".join(filter(None, (str(source.records.ids[index]), caption)))
        for index, caption in zip(batch["index"], overlay.captions, strict=True)
    ]
    drawn = _rows(clips, overlay, names, title)._replace(shows=task.shows)
    if task.shows != "game" or drawn.clips.shape[0] != len(batches):
        return drawn
    plain = jax.jit(lambda batch: render.crop_clips(batch, config.clip.size))(batch)
    return drawn._replace(original=np.asarray(to_uint8(plain))[:, 0])


def _rows(clips: np.ndarray, overlay: Any, names: list[str], title: str) -> Drawn:
    """One row per clip, for at most `CLIPS` evenly spread clips of every video.

    All clips have a row where the task says what each of them is.
    """
    count = clips.shape[1]
    rows = len(overlay.clips) or min(count, CLIPS)
    chosen = np.unique(np.linspace(0, count - 1, rows).round().astype(int))

    def flat(values: np.ndarray) -> np.ndarray:
        return values[:, chosen].reshape(-1, *values.shape[2:])

    clips = flat(clips)
    boxes = np.zeros((len(clips), 0, clips.shape[1], 4), np.float32)
    if overlay.boxes is not None:
        boxes = flat(overlay.boxes)
    predicted = None if overlay.predicted is None else flat(overlay.predicted)
    title += ": boxes" * bool(boxes.size)
    title += ", predicted ones dashed" * (predicted is not None)
    per_video = 1 if overlay.clips else len(chosen)
    if len(chosen) > 1:
        said = overlay.clips or [f"clip {clip + 1}" for clip in range(count)]
        names = [f"{name}, {said[clip]}" for name in names for clip in chosen]
    return Drawn(clips, boxes, predicted, names, title, per_video=per_video)


_PIXELS = 230_000  # of a frame of an animation, about
_TILE = 168  # side of a clip in it, about


def _animation(drawn: Drawn, zoom: int) -> dict[str, Any]:
    """The arguments of `pictures.save_animation`: fewer videos, but larger."""
    if drawn.animated:
        each = {"columns": drawn.animated, "names": drawn.captions, "zoom": zoom}
        return {"title": drawn.title, **each} | _videos(drawn, slice(None))
    side = drawn.clips.shape[2]
    zoom = max(zoom, round(_TILE / side))
    pair = 1 if drawn.original is None else 2
    most = max(_PIXELS // (side * zoom) ** 2 // pair, 1)
    title = drawn.title + ", the original on the left" * (pair == 2)
    chosen = slice(None, most * drawn.per_video, drawn.per_video)
    return {"title": title, "columns": 4, "zoom": zoom} | _videos(drawn, chosen)


def _videos(drawn: Drawn, chosen: slice) -> dict[str, Any]:
    """Some of the videos."""
    each = {"clips": drawn.clips, "boxes": drawn.boxes, "predicted": drawn.predicted}
    each["original"] = drawn.original
    return {k: None if v is None else v[chosen] for k, v in each.items()}


def save(
    drawn: Drawn,
    out: str | os.PathLike,
    columns: int = 8,
    zoom: int = 2,
    stem: str = "",
) -> list[Any]:
    """Writes a contact sheet and an animation into a folder; returns their paths.

    Args:
        drawn: what to draw.
        out: the folder; it is made if there is none.
        columns: frames per row of the sheet.
        zoom: picture pixels per clip pixel.
        stem: of the names of the files; by default what they show.
    """
    from ctp_jax import pictures

    out, stem = buckets.place(out), stem or drawn.shows
    with refusals(out):
        out.mkdir(parents=True, exist_ok=True)
        sheet = pictures.contact_sheet(
            drawn.clips,
            drawn.boxes,
            drawn.predicted,
            title=drawn.title,
            names=drawn.names,
            columns=columns,
            zoom=zoom,
        )
        with files.replacing_inside(out) as new:
            sheet.save(new / f"{stem}.png", optimize=True)
            pictures.save_animation(new / f"{stem}.gif", **_animation(drawn, zoom))
    buckets.push(out)
    return [out / f"{stem}.png", out / f"{stem}.gif"]


if __name__ == "__main__":
    cli.run(main, FLAGS)
