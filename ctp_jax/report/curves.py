"""The figures of one run (paper Fig. 6: loss and accuracy over training)."""

import re
from collections.abc import Sequence

import numpy as np

from ctp_jax.report import words
from ctp_jax.report.figures import Drawing, Line, draw, thin
from ctp_jax.report.read import Run

# Lines of metrics.jsonl that are drawn in a figure of their own, if at all.
_APART = ("learning_rate", "clips_per_second", "input_share", "eta", "grad_norm")
_HELD_OUT_LOSS = ("loss", "eval_loss")
_MAX_OTHERS = 6


def all_of(run: Run) -> list[Drawing]:
    """Every figure that a run has the numbers for."""
    by_epoch = uses_epochs([run])
    makers = [lambda: _loss(run, by_epoch)]
    makers.append(lambda: _by_rank(run))
    for names in _families(run):
        makers.append(lambda names=names: _accuracy(run, names, by_epoch))
    makers += [
        lambda: _learning_rate(run, by_epoch),
        lambda: _throughput(run, by_epoch),
        lambda: _gradient_norm(run, by_epoch),
    ]
    drawings = [run.attempt("a figure", make, None) for make in makers]
    drawings += [
        run.attempt(name, lambda n=name: _per_frame(run, n), None)
        for name in sorted(run.arrays)
        if name.endswith("_per_frame")
    ]
    return [drawing for drawing in drawings if drawing is not None]


def uses_epochs(runs: Sequence[Run]) -> bool:
    """Whether figures go over epochs: if they are known and not all of one epoch."""
    lines = [line for run in runs for line in run.train + run.held_out]
    epochs = [line.get("epoch") for line in lines]
    return bool(epochs) and None not in epochs and max(epochs) > 1


def points(
    lines: Sequence[dict], name: str, by_epoch: bool
) -> tuple[list[float], list[float | None]]:
    """(x, y) of a metric, from the lines that have it."""
    has = [line for line in lines if name in line]
    return [x["epoch" if by_epoch else "step"] for x in has], [x[name] for x in has]


def _line(run, kind, name, label, by_epoch, **style) -> tuple[Line, int]:
    lines = run.train if kind == "train" else run.held_out
    x, y, size = thin(*points(lines, name, by_epoch))
    if kind == "train":
        style.setdefault("dots", len(x) == 1)
    return Line(label, x, y, **style), size


def _x(by_epoch: bool) -> str:
    return "epoch" if by_epoch else "step"


def _has(lines: Sequence[dict], name: str) -> bool:
    return any(line.get(name) is not None for line in lines)


def _loss(run: Run, by_epoch: bool) -> Drawing | None:
    """Training loss, its parts where there are several, held-out loss."""
    parts = sorted({k for line in run.train for k in line if k.startswith("loss_")})
    lines, sizes = [], [1]
    wanted = [("train", "loss", "training", {"colour": 0})]
    wanted += [("eval", name, "held-out", {"colour": 1}) for name in _HELD_OUT_LOSS]
    if len(parts) > 1:
        for number, name in enumerate(parts):
            style = {"colour": 2 + number, "dash": 1, "width": 1.2}
            text = name.removeprefix("loss_").replace("_", " ")
            wanted.append(("train", name, f"training, part {text}", style))
    for kind, name, label, style in wanted:
        if _has(run.train if kind == "train" else run.held_out, name):
            line, size = _line(run, kind, name, label, by_epoch, **style)
            lines.append(line)
            sizes.append(size)
    if not lines:
        return None
    caption = "Training loss, a mean over the steps since the log line before"
    if len(parts) > 1:
        caption += ", and its parts (dashed)"
    if any(line.label == "held-out" for line in lines):
        caption += "; loss on held-out videos"
    return draw(
        "Loss",
        lines,
        xlabel=_x(by_epoch),
        caption=caption + _binned(max(sizes)) + ".",
    )


def _binned(size: int) -> str:
    return f". Each point is the mean of {size} log lines" if size > 1 else ""


def _families(run: Run) -> list[list[str]]:
    """Held-out metrics, in groups that share a figure; baselines not among them."""
    names = {n for n in run.results() if _has(run.held_out, n)}
    names |= {n for line in run.train for n in line if n in words.MAIN}
    names = words.ordered(n for n in names if not words.is_baseline(n))
    names = [n for n in names if n not in (*_HELD_OUT_LOSS, *_APART)]
    groups: dict[str, list[str]] = {}
    for name in names:
        if words.is_share(name):
            prefix = name.rpartition("top")[0].split("_")[0]
            key = prefix if prefix in ("retrieval", "knn") else "accuracy"
        else:
            key = "tracking" if name in ("iou", "success_auc") else name
        groups.setdefault(key, []).append(name)
    known = [v for k, v in groups.items() if v != [k]]
    others = [v for k, v in groups.items() if v == [k]]
    return known + others[:_MAX_OTHERS]


def _accuracy(run: Run, names: list[str], by_epoch: bool) -> Drawing | None:
    """Metrics of one family: held-out, on training clips, and what to compare with."""
    lines = []
    all_names = run.results()
    for number, name in enumerate(names):
        text = words.label(name)
        if _has(run.held_out, name):
            line, _ = _line(run, "eval", name, text, by_epoch, colour=number)
            lines.append(line)
        if _has(run.train, name):
            style = {"colour": number, "dash": 2, "width": 1.3}
            line, _ = _line(
                run, "train", name, f"{text}, training clips", by_epoch, **style
            )
            lines.append(line)
        baseline = words.baseline_of(name, all_names)
        if baseline and _has(run.held_out, baseline[0]) and number == 0:
            style = {"colour": -1, "dash": 1, "width": 1.3, "dots": False}
            line, _ = _line(run, "eval", baseline[0], baseline[1], by_epoch, **style)
            lines.append(line)
    # A single evaluation stands in the tiles and the table.
    if not any(len(line.x) > 1 for line in lines):
        return None
    share = words.is_share(names[0])
    caption = "On held-out videos"
    if any(line.label.endswith("training clips") for line in lines):
        caption += "; dotted: on the clips trained with, as they were drawn"
    if any(line.colour < 0 for line in lines):
        caption += "; grey: without a network"
    title = words.label(names[0])
    title = title[:1].upper() + title[1:] if len(names) == 1 else _family_title(names)
    return draw(title, lines, xlabel=_x(by_epoch), caption=caption + ".", percent=share)


def _by_rank(run: Run) -> Drawing | None:
    """Retrieval of the last evaluation: over how many neighbours are looked at."""
    found: dict[str, dict[int, float]] = {}
    for name, value in run.results().items():
        match = re.fullmatch(r"(retrieval|knn)_top(\d+)", name)
        if match and value is not None:
            found.setdefault(match[1], {})[int(match[2])] = value
    lines = []
    for number, (kind, values) in enumerate(sorted(found.items(), reverse=True)):
        counts = sorted(values)
        shares = [values[count] for count in counts]
        text = {"retrieval": "retrieval", "knn": "k-NN"}[kind]
        lines.append(Line(text, counts, shares, colour=number, dots=True))
    if not any(len(line.x) > 1 for line in lines):
        return None
    return draw(
        "Retrieval, top k",
        lines,
        xlabel="k",
        caption="Last evaluation. Retrieval is right if one of the k nearest training "
        "videos has the class of the held-out video.",
        percent=True,
        always_legend=True,
    )


def _family_title(names: list[str]) -> str:
    if not words.is_share(names[0]):
        return "Tracking"
    kind = names[0].split("_")[0]
    return {"retrieval": "Retrieval", "knn": "Nearest neighbours"}.get(kind, "Accuracy")


def _learning_rate(run: Run, by_epoch: bool) -> Drawing | None:
    if not _has(run.train, "learning_rate"):
        return None
    line, _ = _line(run, "train", "learning_rate", "", by_epoch)
    caption = "Learning rate at the last step of each log line."
    return draw(
        "Learning rate", [line], xlabel=_x(by_epoch), caption=caption, from_zero=True
    )


def _throughput(run: Run, by_epoch: bool) -> Drawing | None:
    if not _has(run.train, "clips_per_second"):
        return None
    line, _ = _line(run, "train", "clips_per_second", "", by_epoch, colour=2)
    middle = np.nanmedian(np.asarray(line.y, float))
    caption = f"Median {middle:.4g} clips per second"
    waits = [x.get("input_share") for x in run.train]
    waits = [w for w in waits if w is not None]
    if waits:
        share = words.percent(float(np.mean(waits)))
        caption += f"; {share} of the time was spent waiting for input"
    return draw(
        "Throughput",
        [line],
        xlabel=_x(by_epoch),
        ylabel="clips/s",
        caption=caption + ".",
        from_zero=True,
    )


def _gradient_norm(run: Run, by_epoch: bool) -> Drawing | None:
    if not _has(run.train, "grad_norm"):
        return None
    line, _ = _line(run, "train", "grad_norm", "", by_epoch, colour=3)
    caption = "Norm of the gradient before clipping, a mean over steps."
    return draw(
        "Gradient norm", [line], xlabel=_x(by_epoch), caption=caption, from_zero=True
    )


def _per_frame(run: Run, name: str) -> Drawing | None:
    """A metric over the frames of a clip, with its baseline."""
    stem = name.removesuffix("_per_frame")
    values = np.asarray(run.arrays[name], float)
    if values.ndim != 1 or not values.size:
        return None
    frames = list(range(len(values)))
    lines = [Line("predicted", frames, list(values), colour=0)]
    baseline = words.baseline_of(name, run.arrays)
    if baseline:
        other = list(np.asarray(run.arrays[baseline[0]], float))
        lines.append(Line(baseline[1], frames, other, colour=-1, dash=1, dots=False))
    text = words.label(stem)
    return draw(
        f"{text[:1].upper()}{text[1:]} per frame",
        lines,
        xlabel="frame of the clip",
        caption="At the last evaluation. The box in frame 0 is given.",
        percent=words.is_share(stem),
    )
