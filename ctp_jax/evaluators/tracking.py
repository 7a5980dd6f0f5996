"""How well predicted trajectories follow the true ones."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax.evaluators.base import Evaluator, Subject

LOOKS_AT = "predictions"

# OTB's overlap thresholds (Wu et al. 2013); success is an overlap above the threshold.
THRESHOLDS = np.linspace(0.0, 1.0, 21)


def iou_xyxy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4) pairwise, float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    intersection = np.prod(np.maximum(high - low, 0.0), axis=-1)
    areas = [np.prod(np.maximum(c[..., 2:] - c[..., :2], 0.0), axis=-1) for c in (a, b)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def success_auc(iou: np.ndarray) -> float:
    """Area under the success curve: mean over thresholds of the share above them."""
    return float((np.ravel(iou)[:, None] > THRESHOLDS).mean())


class TrackingEvaluator(Evaluator):
    """Overlap of `outputs['predicted']` with `outputs['boxes']`, both (b, n, t, 4).

    The network was given `outputs['query']`, (b, n, 4).

    Yields:
        iou: mean over videos, trajectories and all t frames, the first included.
        iou_stay_put: the same of a predictor that leaves the box where it was.
        success_auc: see `success_auc`; success_auc_stay_put likewise.
        iou_per_frame, iou_per_frame_stay_put: arrays (t,).
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self._predicted: list[np.ndarray] = []
        self._stay_put: list[np.ndarray] = []

    def update(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        real = np.asarray(batch["mask"]) > 0
        truth = np.asarray(outputs["boxes"])[real]
        predicted = np.asarray(outputs["predicted"])[real]
        self._predicted.append(iou_xyxy(predicted, truth))
        query = np.asarray(outputs["query"])[real][..., None, :]
        self._stay_put.append(iou_xyxy(query, truth))

    def results(self) -> Iterator[tuple[str, Any]]:
        for suffix, parts in (("", self._predicted), ("_stay_put", self._stay_put)):
            iou = np.concatenate(parts)
            yield f"iou{suffix}", float(iou.mean())
            yield f"success_auc{suffix}", success_auc(iou)
            yield f"iou_per_frame{suffix}", iou.mean(axis=(0, 1))


def make(options: ConfigDict, subject: Subject) -> TrackingEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return TrackingEvaluator()
