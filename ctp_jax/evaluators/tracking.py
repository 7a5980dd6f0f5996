"""How well predicted trajectories follow the true ones."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax.evaluators.base import Evaluator, Subject
from ctp_jax.evaluators.tracks import mean
from ctp_jax.ops.boxes import iou_xyxy

LOOKS_AT = "predictions"

# OTB's overlap thresholds (Wu et al. 2013); success is an overlap above the threshold.
THRESHOLDS = np.linspace(0.0, 1.0, 21)


def success_auc(iou: np.ndarray) -> float:
    """Area under the success curve: the share of overlaps above a threshold, averaged."""
    return float((np.ravel(iou)[:, None] > THRESHOLDS).mean())


class TrackingEvaluator(Evaluator):
    """Overlap of `outputs['predicted']` with `outputs['boxes']`, both (b, n, t, 4).

    `outputs['query']`, (b, n, 4), are the boxes that the network was given. Where there
    are `outputs['weights']`, (b, n, t), only boxes with a weight above 0 count.

    Yields:
        iou: mean over videos, trajectories and all t frames, the first included.
        iou_stay_put: the same for a baseline, the query box in every frame.
        success_auc, success_auc_stay_put: see the function `success_auc`.
        iou_per_frame, iou_per_frame_stay_put: arrays (t,).
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self._predicted: list[np.ndarray] = []
        self._stay_put: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []

    def update(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        real = np.asarray(batch["mask"]) > 0
        truth = np.asarray(outputs["boxes"], np.float64)[real]
        predicted = np.asarray(outputs["predicted"], np.float64)[real]
        self._predicted.append(iou_xyxy(predicted, truth))
        query = np.asarray(outputs["query"], np.float64)[real][..., None, :]
        self._stay_put.append(iou_xyxy(query, truth))
        weights = outputs.get("weights", np.ones((len(real), *truth.shape[1:3])))
        self._counts.append(np.asarray(weights)[real] > 0)

    def results(self) -> Iterator[tuple[str, Any]]:
        counts = np.concatenate(self._counts)
        for suffix, parts in (("", self._predicted), ("_stay_put", self._stay_put)):
            iou = np.concatenate(parts)
            known = iou[counts]
            # Without a box that counts, there is nothing to say.
            yield f"iou{suffix}", float(known.mean()) if known.size else 0.0
            yield f"success_auc{suffix}", success_auc(known) if known.size else 0.0
            flat = (-1, iou.shape[-1])
            per_frame = mean(iou.reshape(flat), counts.reshape(flat), axis=0)
            yield f"iou_per_frame{suffix}", per_frame


def make(options: ConfigDict, subject: Subject) -> TrackingEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return TrackingEvaluator()
