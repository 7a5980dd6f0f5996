"""How metrics and config values are written."""

import re
import statistics
from collections.abc import Sequence
from typing import Any

from ctp_jax import files, formatting

# The main metrics; a run may have any of them.
MAIN = ("top1", "retrieval_top1", "knn_top1", "iou", "window_iou", "ao")

_LABELS = {
    "iou": "mean IoU",
    "success_auc": "success AUC",
    "window_iou": "mean IoU of windows",
    "window_iou_all": "mean IoU of windows, given frame included",
    "ao": "average overlap of tracks",
    "ao_kcf": "average overlap of KCF's tracks",
    "sr50": "success rate of tracks at 0.5",
    "sr75": "success rate of tracks at 0.75",
    "track": "overlap of tracks",
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


def is_share(name: str) -> bool:
    """Whether a metric is a share in [0, 1], which is written as percent."""
    return bool(re.search(r"(^|_)(top\d+|accuracy|share)$", name))


def label(name: str) -> str:
    """The name of a metric in words: 'retrieval_top5' -> 'retrieval, top 5'."""
    if match := re.fullmatch(r"(retrieval|knn)_top(\d+)", name):
        return f"{match[1].replace('knn', 'k-NN')}, top {match[2]}"
    return _LABELS.get(name, name.replace("_", " "))


def main_metrics(names: Sequence[str]) -> list[str]:
    """Those of `MAIN` among these metrics; without any, the first that is no loss."""
    others = [name for name in names if "loss" not in name]
    return [name for name in MAIN if name in names] or others[:1]


def percent(share: float) -> str:
    """0.8391 -> '83.9 %' (with a non-breaking space)."""
    return f"{100 * share:.1f}\u00a0%"


def show(name: str, value: float | None) -> str:
    """The value of a metric as text; a dash for None."""
    if value is None:
        return "–"
    return percent(value) if is_share(name) else formatting.number(value)


def spread(name: str, values: Sequence[float]) -> str:
    """'83.9 ± 0.4 %': mean and sample standard deviation (n - 1) of several values."""
    if len(values) < 2:
        return show(name, *values or [None])
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    if is_share(name):
        return f"{100 * mean:.1f} ± {percent(deviation)}"
    return f"{show(name, mean)} ± {show(name, deviation)}"


def field(name: str, value: Any) -> str:
    """The value of a config field as text; pages are published, so without folders."""
    if name == "init_from" and not value:
        return "from scratch"
    return "–" if value is None else str(files.without_folders(value)) or "(empty)"
