"""What the numbers of an evaluation mean: names, baselines, errors, a sentence of verdict.

For the log of a run, its report and its model card. Nothing large is imported.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ctp_jax import formatting
from ctp_jax.metrics_file import BASELINES, GAIN_ERROR, VIDEOS

MAIN = ("ao", "iou", "window_iou", "top1", "pair_top1", "retrieval_top1", "knn_top1")
"""The main metrics, those of a task before those of its encoder's features."""

_LABELS = {
    "iou": "mean IoU",
    "success_auc": "success AUC",
    "window_iou": "mean IoU of windows",
    "window_iou_all": "mean IoU of windows, given frame included",
    "ao": "average overlap of tracks",
    "sr50": "success rate of tracks at 0.5",
    "sr75": "success rate of tracks at 0.75",
    "track": "overlap of tracks",
    "track_center_error": "centre error of tracks, pixels",
    "track_size_error": "size error of tracks, pixels",
    "track_center_error_share": "centre error of tracks, of the object's size",
    "track_size_error_share": "size error of tracks, of the object's size",
    "center_error": "centre error, pixels",
    "size_error": "size error, pixels",
    "center_error_share": "centre error, of the object's size",
    "size_error_share": "size error, of the object's size",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "class_accuracy": "mean class accuracy",
    "clip_top1": "top-1 accuracy, single clips",
    "grad_norm": "gradient norm",
    "eval_loss": "loss",
    "clips_per_second": "clips per second",
    "input_share": "time spent waiting for input",
}
_KINDS = {"retrieval": "retrieval", "knn": "k-NN", "pair": "pairs"}

# By the beginning of a metric's name; the first that fits.
_MEANINGS = {
    "iou": "overlap of predicted and true boxes (intersection over union), mean over "
    "the frames of a clip",
    "success_auc": "share of boxes whose IoU is above a threshold, mean over thresholds",
    "window_iou": "overlap (IoU) in short windows that are given their true first box",
    "ao": "overlap (IoU) in whole videos, tracked from their first box alone",
    "sr": "share of frames in which a track overlaps the object by more than that",
    "center_error_share": "distance of the boxes' centres, as a share of the root of the "
    "true box's area",
    "size_error_share": "difference of the boxes' sizes, as a share of the true one",
    "center_error": "distance of the boxes' centres",
    "size_error": "difference of the boxes' sizes",
    "track_center_error": "distance of the boxes' centres in whole videos, tracked from "
    "their first box alone",
    "track_size_error": "difference of the boxes' sizes in whole videos, tracked likewise",
    "class_accuracy": "accuracy of each class, mean over the classes",
    "clip_top1": "share of single clips whose class has the highest score",
    "top1": "share of videos whose class has the highest score",
    "top5": "share of videos whose class is among the five highest scores",
    "retrieval_top": "share of videos with a video of their class among so many nearest "
    "training videos",
    "knn_top": "share of videos whose class wins a vote of the 20 nearest training videos",
    "pair_top": "share of videos whose two clips find each other among those of all",
    "eval_loss": "cross-entropy of the videos' scores",
}
# What an encoder does, and what is named beside its numbers.
_SENTENCES = {
    "iou": ("follows {objects}", "IoU"),
    "window_iou": ("follows objects through short windows", "IoU"),
    "ao": ("follows objects through whole videos", "average overlap"),
    "top1": ("tells the classes apart", "top-1"),
    "retrieval_top1": ("finds videos of the same class", "top-1 of retrieval"),
    "knn_top1": ("tells the classes apart by the nearest videos", "top-1 of k-NN"),
    "pair_top1": ("recognises another clip of the same video", "top-1"),
}
_CERTAIN = 2.0  # standard errors
BETTER, WORSE, EVEN = "better", "worse", "even"


class Result(NamedTuple):
    """A metric of held-out videos.

    Attributes:
        name: of the metric.
        value: None where it was not finite.
        baseline: its value without a network, or None.
        how: which baseline, in words.
        more: further baselines, (value, which).
        videos: that it was measured on; None where that was not noted.
        gain_error: standard error of the difference to the baseline, where it was
            measured video by video.
    """

    name: str
    value: float | None
    baseline: float | None = None
    how: str = ""
    more: tuple[tuple[float, str], ...] = ()
    videos: int | None = None
    gain_error: float | None = None

    @property
    def error(self) -> float | None:
        """The standard error of a share of the videos; None for others."""
        if self.value is None or not self.videos or not _is_counted(self.name):
            return None
        return standard_error(self.value, self.videos)

    @property
    def standing(self) -> str:
        """`BETTER` or `WORSE` than the baseline, or `EVEN`; '' as for `standing`."""
        return standing(self, self.baseline, self.gain_error or 0.0)


def standing(result: Result, other: float | None, error: float = 0.0) -> str:
    """Whether a result is better than another value of the same metric.

    A difference counts from two standard errors on. Where no error is known, it counts as
    soon as it can be seen; on a single video, never.

    Args:
        result: has a standard error if it is a share of the videos.
        other: the other value; None: there is none.
        error: its standard error.

    Returns:
        `BETTER`, `WORSE` or `EVEN`; '' where a value is missing, and for means over
        classes: their error depends on the sizes of the classes, which are not known.
    """
    if result.value is None or other is None or _is_class_mean(result.name):
        return ""
    # 'Even' is decided for the baseline's share, too: at 0 and 1 the own error is 0.
    own = result.error or 0.0
    if result.videos and _is_counted(result.name):
        own = max(own, standard_error(other, result.videos))
    gain = result.value - other
    gain = -gain if lower_is_better(result.name) else gain
    if result.videos == 1 or abs(gain) <= max(_CERTAIN * math.hypot(own, error), 5e-4):
        return EVEN
    return BETTER if gain > 0 else WORSE


def standard_error(share: float, count: int) -> float:
    """Of a share that was counted on `count` videos: binomial, sqrt(p (1 - p) / n)."""
    return math.sqrt(max(share * (1 - share), 0.0) / count)


def results(values: Mapping[str, Any]) -> dict[str, Result]:
    """The metrics of an evaluation, each with its baseline and number of videos.

    Args:
        values: of a line of `metrics.jsonl`, by name; null is a number there that is not
            finite. What is no number is left out.
    """
    values = {k: v for k, v in values.items() if v is None or is_number(v)}
    found = {}
    for name, value in values.items():
        # A baseline and its error stand beside their metric; a number of videos beside
        # its accuracy.
        if _owner(name) in values or re.search(rf"(^|_|/){VIDEOS}$", name):
            continue
        each = {
            how: _finite(values.get(name + suffix)) for suffix, how in BASELINES.items()
        }
        known = [(float(v), how) for how, v in each.items() if v is not None]
        first = known[0] if known else (None, "")
        count = _finite(values.get(_family(name) + VIDEOS))
        videos = None if count is None else int(count)
        gain_error = _finite(values.get(name + GAIN_ERROR))
        more = tuple(known[1:])
        found[name] = Result(name, _finite(value), *first, more, videos, gain_error)
    return found


def is_number(value: Any) -> bool:
    """Whether a value is one of Python, or an array of NumPy or JAX that holds one."""
    return isinstance(value, (int, float)) or getattr(value, "shape", None) == ()


def _finite(value: Any) -> Any:
    """The value; None for NaN and infinity."""
    return value if value is not None and math.isfinite(value) else None


def _owner(name: str) -> str | None:
    """The metric that this is a baseline of, or an error; None if it is neither."""
    suffixes = (*BASELINES, GAIN_ERROR)
    suffix = next((suffix for suffix in suffixes if name.endswith(suffix)), None)
    return name.removesuffix(suffix) if suffix else None


def _family(name: str) -> str:
    """What the number of a metric's videos begins with: 'x/knn_', 'sequences_', ''."""
    path, _, own = name.rpartition("/")
    path = f"{path}/" if path else ""
    if found := re.match(r"(retrieval|knn|pair)_", own):
        return path + found[0]
    if re.fullmatch(r"window_iou(_all)?|ao|sr\d+|track_.*", own):
        return f"{path}sequences_"
    return path


def is_accuracy(name: str) -> bool:
    """Whether a metric is a share of the videos, or the mean of that over classes."""
    return bool(re.search(r"(^|_|/)(top\d+|accuracy)$", name))


def _is_class_mean(name: str) -> bool:
    return bool(re.search(r"(^|_|/)class_accuracy$", name))


def _is_counted(name: str) -> bool:
    """Whether a metric is a share of the videos, whose error is binomial."""
    return is_accuracy(name) and not _is_class_mean(name)


def is_share(name: str) -> bool:
    """Whether a metric is a share in [0, 1], which is written as percent."""
    return is_accuracy(name) or name.endswith("_share")


def lower_is_better(name: str) -> bool:
    """Of losses and errors."""
    return "loss" in name or "error" in name


def label(name: str) -> str:
    """The name of a metric in words: 'retrieval_top5' -> 'retrieval, top 5'."""
    if match := re.fullmatch(rf"({'|'.join(_KINDS)})_top(\d+)", name):
        return f"{_KINDS[match[1]]}, top {match[2]}"
    return _LABELS.get(name, name.replace("_", " "))


def meaning(name: str) -> str:
    """What a metric measures, in a line; '' for one that is not known here."""
    name = name.rpartition("/")[2]
    return next((m for k, m in _MEANINGS.items() if name.startswith(k)), "")


KNOWN = (*dict.fromkeys((*_LABELS, *MAIN, "retrieval_top5")),)


def is_known(name: str) -> bool:
    """Whether a metric may be one of an evaluator of this package."""
    name = name.rpartition("/")[2]
    return name in KNOWN or bool(
        re.fullmatch(r"(\w+_)?top\d+|\w*(loss|accuracy)", name)
    )


def main_metrics(names: Sequence[str]) -> list[str]:
    """Those of `MAIN` among these metrics; without any, the first that is no loss."""
    others = [name for name in names if "loss" not in name]
    return [name for name in MAIN if name in names] or others[:1]


def main_metric(found: Mapping[str, Result]) -> str:
    """The metric that a verdict is about; '' if there is none."""
    names = [name for name in found if found[name].value is not None]
    return next(iter(main_metrics(names)), "")


def percent(share: float) -> str:
    """0.8391 -> '83.9 %' (with a non-breaking space)."""
    return f"{100 * share:.1f}\u00a0%"


def show(name: str, value: float | None, error: float | None = None) -> str:
    """The value of a metric as text, with its standard error; a dash for None."""
    if value is None:
        return "–"
    if error is not None:
        return f"{100 * value:.1f}\u00a0±\u00a0{percent(error)}"
    return percent(value) if is_share(name) else formatting.number(value)


def sentence(found: Mapping[str, Result], objects: str = "patches") -> str:
    """A verdict on the main metric: 'follows patches better than a box that stays: ...'.

    '' if there is nothing to say.

    Args:
        found: of `results`.
        objects: what is followed in clips.
    """
    result = found.get(main_metric(found))
    if result is None:
        return ""
    value = show(result.name, result.value, result.error)
    of = f" on {formatting.count(result.videos, 'video')}" if result.videos else ""
    does, what = _SENTENCES.get(result.name, ("", label(result.name)))
    if not does or result.baseline is None:
        return f"{what} {value}{of}"
    says = {
        BETTER: f"better than {result.how}",
        WORSE: f"worse than {result.how}",
        EVEN: f"no better than {result.how}",
    }[result.standing]
    baseline = show(result.name, result.baseline)
    does = does.format(objects=objects)
    more = "".join(f", {show(result.name, v)} of {how}" for v, how in result.more)
    return f"{does} {says}: {what} {value}{of} against {baseline}{more}"
