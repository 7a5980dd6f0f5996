"""The figures of one run (paper Fig. 6: loss and accuracy over training)."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctp_jax import results
from ctp_jax.metrics_file import BASELINE, BASELINES
from ctp_jax.report.figures import GREY, Drawing, Line, draw
from ctp_jax.report.read import Run

_UNDRAWN = ("kind", "step", "epoch", "eta", "replaced")
_UNDRAWN += ("loss", "eval_loss", "training loss")
_CAPTIONS = {
    "learning_rate": "At the last step of each log line.",
    "grad_norm": "Before clipping, a mean over the steps between log lines.",
    "clips_per_second": "Training alone, without evaluations and checkpoints.",
    "input_share": "Of the time between log lines.",
}


def figures(run: Run) -> list[Drawing]:
    """Every figure for which the run has numbers."""
    found = [run.attempt("loss", _loss, run)]
    for title, names in _families(run).items():
        found.append(run.attempt(title, _family, run, title, names))
    for name in sorted(run.arrays):
        if name.endswith("_per_frame"):
            found.append(run.attempt(name, _per_frame, run, name))
    return [drawing for drawing in found if drawing is not None]


def line_of(
    lines: Sequence[dict[str, Any]],
    name: str,
    label: str,
    colour: int = 0,
    dash: int = 0,
) -> list[Line]:
    """[the line of a metric]; [] if no log line has a value of it."""
    has = [line for line in lines if name in line]
    if all(line[name] is None for line in has):
        return []
    steps = [line["step"] for line in has]
    return [Line(label, steps, [line[name] for line in has], colour, dash)]


def _loss(run: Run) -> Drawing | None:
    """Training loss, its parts where there are several, held-out loss."""
    lines = line_of(run.train, "loss", "training")
    for name in ("loss", "eval_loss"):
        lines += line_of(run.held_out, name, "held-out", colour=1)
    parts = sorted({k for line in run.train for k in line if k.startswith("loss_")})
    for colour, name in enumerate(parts if len(parts) > 1 else [], 2):
        text = f"training, part {results.label(name.removeprefix('loss_'))}"
        lines += line_of(run.train, name, text, colour=colour, dash=1)
    caption = "Training loss and its parts are means over the steps between log lines."
    return draw("Loss", lines, caption=caption)


def _families(run: Run) -> dict[str, list[str]]:
    """{title: metrics that share a figure}; held-out metrics come first."""
    names = [*run.results(), *(name for line in run.train for name in line)]
    names = [*results.main_metrics(names), *names]
    families: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        # Of nearest neighbours, only top 1 is drawn; the table has the others.
        if name in _UNDRAWN or re.match(r"loss_|(retrieval|knn|pair)_top(?!1$)", name):
            continue
        title = results.label(name)
        if name in ("retrieval_top1", "knn_top1"):
            title = "Nearest neighbours"
        elif name in ("iou", "success_auc"):
            title = "Tracking"
        elif re.match(r"(window_iou|ao|sr50|sr75)$", name):
            title = "Tracking whole videos"
        elif re.match(r"(center|size)_error", name):
            unit = "of the object's size" if results.is_share(name) else "pixels"
            title = f"Errors of centre and size, {unit}"
        elif results.is_accuracy(name):
            title = "Accuracy"
        families.setdefault(title, []).append(name)
    return families


def _family(run: Run, title: str, names: list[str]) -> Drawing | None:
    """Metrics on held-out videos and in training, with their baseline."""
    lines = []
    for colour, name in enumerate(names):
        label = results.label(name)
        held_out = line_of(run.held_out, name, label, colour=colour)
        label = "" if name in _CAPTIONS else f"{label}, training"
        style = {"colour": colour, "dash": 2 if held_out else 0}
        lines += held_out + line_of(run.train, name, label, **style)
    for dash, (suffix, label) in enumerate(BASELINES.items(), 1):
        lines += line_of(run.held_out, names[0] + suffix, label, colour=GREY, dash=dash)
    # A single evaluation is shown in the tiles and the table.
    if all(len(line.x) < 2 for line in lines):
        return None
    caption = "On held-out videos; “training”: on the clips trained with."
    if not any(name in line for line in run.held_out for name in names):
        caption = "On the clips trained with, means over the steps between log lines."
    return draw(
        title,
        lines,
        caption=_CAPTIONS.get(names[0], caption),
        percent=results.is_share(names[0]),
        from_zero=names[0] in _CAPTIONS,
    )


def _per_frame(run: Run, name: str) -> Drawing | None:
    """A metric over the frames of a clip, with its baseline."""
    lines = []
    for key, label, colour, dash in (
        (name, "predicted", 0, 0),
        (name + BASELINE, BASELINES[BASELINE], GREY, 1),
    ):
        values = np.asarray(run.arrays.get(key, []), float)
        if values.ndim == 1 and values.size:
            frames = list(range(len(values)))
            lines.append(Line(label, frames, list(values), colour, dash))
    return draw(
        f"{results.label(name.removesuffix('_per_frame'))} per frame",
        lines,
        xlabel="frame of the clip",
        caption="At the last evaluation. The box in frame 0 is given.",
    )
