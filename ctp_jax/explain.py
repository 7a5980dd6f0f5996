"""Draws what speaks for a class in clips: `python -m ctp_jax.explain --workdir=RUN`."""

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctp_jax import chosen_videos, cli, devices, formatting, terminal, visualize
from ctp_jax.data.batch import Batch, labels
from ctp_jax.errors import UserError, shown
from ctp_jax.flags import Flags
from ctp_jax.storage import buckets, files

FLAGS = Flags()
cli.define_allow_code(FLAGS)
WORKDIRS = FLAGS.strings(
    "workdir",
    [],
    "Run of a classifier. Given again, runs are compared on the same videos.",
)
VIDEOS = FLAGS.list(
    "videos",
    ["4"],
    "Held-out videos: how many, evenly spread over the split, or their names.",
)
CLASS = FLAGS.string("class", "", "Explain this class, not the predicted one.")
TRUE = FLAGS.boolean("true", False, "Explain the true class of every video.")
OUT = FLAGS.string("out", None, "Folder for the pictures; default: --workdir.")
DATA_DIR = FLAGS.string("data_dir", "", "Where the data are now; default: as the run.")
ROWS = FLAGS.integer("rows", 6, "Draw at most so many clips.", lower_bound=1)
BOXES_ONLY = FLAGS.boolean(
    "boxes_only",
    False,
    "Draw heat and boxes without pixels, for videos that must not be published.",
)
GUIDED = FLAGS.boolean("guided", False, "Also draw guided backpropagation by itself.")
ARRAYS = FLAGS.boolean(
    "arrays", False, "Also write explain.npz: everything as numbers."
)

PREDICTED, TRUE_CLASS = -1, -2
Runs = Mapping[str, Sequence["Explained"]]


class Explained(NamedTuple):
    """What one run sees in one clip; t frames of s x s pixels.

    Attributes:
        video: its name.
        caption: the same and its true class.
        answer: the class that is explained and its probability, in words.
        label: the true class, -1 if it is not known.
        predicted: the class with the highest logit.
        clip: uint8 (t, s, s, 3).
        grad_cam: float32 (t, s, s).
        guided: float32 (t, s, s, 3), guided backpropagation.
        guided_grad_cam: float32 (t, s, s, 3), the product of the two.
        boxes: (n, t, 4) of the data set, NaN where there is none; n may be 0.
        shares: float64 (3,), inside the boxes: of Grad-CAM, of guided Grad-CAM, of all
            pixels; NaN without boxes or saliency.
    """

    video: str
    caption: str
    answer: str
    label: int
    predicted: int
    clip: np.ndarray
    grad_cam: np.ndarray
    guided: np.ndarray
    guided_grad_cam: np.ndarray
    boxes: np.ndarray
    shares: np.ndarray

    def without_pixels(self) -> "Explained":
        """What is measured, in little memory."""
        none = np.zeros(0)
        return self._replace(
            clip=none, grad_cam=none, guided=none, guided_grad_cam=none
        )


def main(arguments):
    """Draws what in held-out videos speaks for a class: guided Grad-CAM.

    python -m ctp_jax.explain --workdir=RUN [--workdir=OTHER] [--videos=8]
    python -m ctp_jax.explain --workdir=RUN FILE...      (videos of your own)

    Writes explain.png, a contact sheet, and explain.gif, an animation. Where the data set
    has boxes, prints which share of the saliency is inside them.
    """
    if not WORKDIRS.value:
        raise UserError("--workdir is missing: name the run of a classifier")
    if GUIDED.value and BOXES_ONLY.value:
        raise UserError("--guided and --boxes_only exclude each other: it shows edges")
    if VIDEOS.value in ([], ["0"]):
        raise UserError("--videos: give names, or a number above 0")
    if TRUE.value and (CLASS.value or arguments):
        other = "--class" if CLASS.value else arguments[0]
        raise UserError(f"--true and {other} exclude each other: give one of them")
    if arguments and FLAGS["videos"].present:
        raise UserError(
            f"--videos and {arguments[0]} exclude each other: name held-out videos or files"
        )
    devices.start()
    from ctp_jax.report.groups import paths_in_short

    videos: Any = list(dict.fromkeys(map(pathlib.Path, arguments)))
    videos = videos or list(dict.fromkeys(VIDEOS.value))
    if not arguments and len(videos) == 1 and videos[0].isdecimal():
        videos = int(videos[0])
    wanted = TRUE_CLASS if TRUE.value else CLASS.value or PREDICTED
    runs, short = {}, paths_in_short(WORKDIRS.value)
    for workdir in dict.fromkeys(WORKDIRS.value):
        found: list[Explained] = []
        for each in explain(workdir, videos, wanted, DATA_DIR.value):
            keep = ARRAYS.value or len(found) < ROWS.value
            found.append(each if keep else each.without_pixels())
        if not found:
            raise UserError(f"{workdir}: none of the videos can be read")
        if not arguments:
            videos = list(dict.fromkeys(each.video for each in found))
        runs[short[workdir]] = found
        print(summary(short[workdir], found), flush=True)
    out = buckets.place(OUT.value or WORKDIRS.value[0])
    drawn = {name: found[: ROWS.value] for name, found in runs.items()}
    for path in visualize.save(
        draw(drawn, BOXES_ONLY.value, GUIDED.value), out, stem="explain"
    ):
        print(shown(path))
    if ARRAYS.value:
        print(shown(_save_arrays(runs, out)))
        buckets.push(out)


def explain(
    workdir: str,
    videos: int | Sequence[str] | Sequence[pathlib.Path],
    wanted: int | str = PREDICTED,
    data_dir: str = "",
) -> Iterator[Explained]:
    """What the newest checkpoint of a run sees in videos, clip by clip.

    Of a recogniser's test clips, only one, from the middle of the video.

    Args:
        workdir: of the run.
        videos: how many held-out ones, evenly spread over the split; or their names; or
            the paths of files.
        wanted: the name of a class, PREDICTED or TRUE_CLASS.
        data_dir: where the data are, if not where the run had them.

    Raises:
        UserError: the run classifies nothing, has no checkpoint, or its data, a video or
            the class is not there.
    """
    import jax

    from ctp_jax.ops.colour import to_uint8
    from ctp_jax.tasks import base, classification
    from ctp_jax.train.checkpoints import restore

    config = chosen_videos.adapt(visualize.config_of_run(workdir), videos, data_dir)
    task = base.load(config)
    if not isinstance(task, classification.Task):
        raise UserError(
            f"{workdir}: config.task = {config.task!r} has no classes to explain: name "
            "the run of a classifier, for example of configs/finetune_ucf.py"
        )
    batches = chosen_videos.batches(task, videos, workdir)
    first = next(batches)
    if isinstance(wanted, str):
        wanted = chosen_videos.find(wanted, task.class_names, "class", workdir)
    state, _ = restore.newest(config, task, workdir, first[1])
    rows = jax.eval_shape(task.predict, state.variables, first[1])["logits"].shape[1]
    look, see = jax.jit(task.explain), jax.jit(lambda batch: to_uint8(task.draw(batch)))
    terminal.announce(f"{workdir}: explaining, after compiling")
    for video, batch in itertools.chain([first], batches):
        if not batch["mask"][0]:  # it cannot be read
            continue
        chosen = int(labels(batch)[0]) if wanted == TRUE_CLASS else wanted
        if wanted == TRUE_CLASS and chosen < 0:
            raise UserError(f"--true: the class of {video} is not known: give --class")
        found = look(state.variables, batch, np.full(rows, chosen, np.int32))
        found, clips = jax.device_get((found, see(batch)[0]))
        for number in range(len(clips)):
            yield _explained(number, video, task.class_names, batch, clips, found)


def _explained(
    number: int,
    video: str,
    names: Sequence[str],
    batch: Batch,
    clips: np.ndarray,
    found: Any,
) -> Explained:
    """A clip of a batch of one video, of which all is found."""
    from ctp_jax.ops.boxes import share_inside

    label, row = int(labels(batch)[0]), number * len(found.logits) // len(clips)
    logits, boxes = found.logits[row], chosen_videos.boxes(batch, number)
    grad_cam, guided = found.grad_cam[number], found.guided_grad_cam[number]
    maps = grad_cam, np.abs(guided).sum(-1), np.ones_like(grad_cam)
    return Explained(
        video,
        f"{video}: {names[label]}" if label >= 0 else video,
        _answer(logits, int(found.classes[row]), names),
        label,
        int(logits.argmax()),
        clips[number],
        grad_cam,
        found.guided[number],
        guided,
        boxes,
        np.array([share_inside(each, boxes) for each in maps]),
    )


def _answer(logits: np.ndarray, chosen: int, names: Sequence[str]) -> str:
    """The class and its probability, and the predicted one if it is another."""
    from ctp_jax.evaluators.recognition import log_softmax

    chances = np.exp(log_softmax(logits))
    both = chosen, int(logits.argmax())
    said = [f"{names[i]} ({chances[i]:.0%})" for i in both]
    return ", predicted ".join(dict.fromkeys(said))


def summary(name: str, explained: Sequence[Explained]) -> str:
    """A line about a run: how often it is right, and where it looks."""
    known = [each for each in explained if each.label >= 0]
    right = sum(each.predicted == each.label for each in known)
    line = f"{name}: {formatting.count(len(explained), 'clip')}"
    line += f", {right} of {len(known)} right" * bool(known)
    shares = np.array([each.shares for each in explained])
    known = ~np.isnan(shares).any(1)
    if not known.any():
        return line
    cam, guided, area = shares[known].mean(0)
    return (
        f"{line}; in the boxes are {area:.1%} of the pixels, {cam:.1%} of Grad-CAM, "
        f"{guided:.1%} of guided Grad-CAM "
        f"(mean of {formatting.count(int(known.sum()), 'clip')})"
    )


def draw(runs: Runs, boxes_only: bool = False, guided: bool = False) -> visualize.Drawn:
    """Rows of frames, Grad-CAM and guided Grad-CAM, run by run under every clip.

    Args:
        runs: by their names, the same clips of each.
        boxes_only: grey in place of pixels, and no guided Grad-CAM: it shows edges.
        guided: also a row of guided backpropagation.

    Raises:
        UserError: the clips of the runs are not the same ones, or not of one size.
    """
    from ctp_jax import pictures

    if len(shapes := {each.clip.shape for run in runs.values() for each in run}) > 1:
        sizes = " and ".join(f"{t} frames of {s} pixels" for t, s, *_ in sorted(shapes))
        raise UserError(f"clips of {sizes}: draw the runs one by one")
    if len({tuple(each.video for each in run) for run in runs.values()}) > 1:
        raise UserError(
            f"{' and '.join(runs)} see other clips of the videos: draw the runs one by one"
        )
    rows, names = [], []
    first = next(iter(runs))
    columns = list(zip(*runs.values(), strict=True))
    same = all(np.array_equal(a.clip, b.clip) for a, *rest in columns for b in rest)
    slopes = {"guided backpropagation": lambda each: each.guided} if guided else {}
    if not boxes_only:
        slopes["guided Grad-CAM"] = lambda each: each.guided_grad_cam
    parts = ["frames"] * (not same) + ["Grad-CAM", *slopes]
    title = ["frames"] * same + [f"{name}: {', '.join(parts)}" for name in runs]
    for clips in columns:
        for name, each in zip(runs, clips, strict=True):
            clip = np.full_like(each.clip, 128) if boxes_only else each.clip
            heat = pictures.overlay_heat(clip[None], each.grad_cam[None])[0]
            prefix = f"{name}: " if len(runs) > 1 else ""
            if name == first or not same:
                # Far outside, nothing is drawn.
                rows.append((clip, np.nan_to_num(each.boxes, nan=-999.0)))
                names.append(each.caption)
            rows.append((heat, each.boxes[:0]))
            names.append(f"{prefix}Grad-CAM of {each.answer}")
            for what, of in slopes.items():
                rows.append((pictures.slopes_as_pixels(of(each)), each.boxes[:0]))
                names.append(f"{prefix}{what}")
    return visualize.Drawn(
        np.stack([row[0] for row in rows]),
        [row[1] for row in rows],
        None,
        names,
        " | ".join(title),
        animated=len(rows) // len(columns),
        captions=[clips[0].caption for clips in columns],
    )


def _save_arrays(runs: Runs, out: pathlib.Path) -> pathlib.Path:
    """Writes explain.npz: the fields of `Explained`, (runs, clips, ...) each."""
    arrays: dict[str, Any] = {
        field: np.array(
            [[getattr(each, field) for each in run] for run in runs.values()]
        )
        for field in Explained._fields
    }
    with files.replacing_inside(out) as new:
        np.savez_compressed(new / "explain.npz", run=list(runs), **arrays)
    return out / "explain.npz"


if __name__ == "__main__":
    cli.run(main, FLAGS)
