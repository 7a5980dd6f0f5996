"""How well predicted trajectories follow the true ones."""

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch
from ctp_jax.evaluators.base import Evaluator, Outputs, Subject
from ctp_jax.evaluators.tracks import errors, gain_error, mean
from ctp_jax.metrics_file import BASELINE, GAIN_ERROR, VIDEOS
from ctp_jax.ops.boxes import iou_xyxy

LOOKS_AT = "predictions"

# OTB's overlap thresholds (Wu et al. 2013); success is an overlap above the threshold.
THRESHOLDS = np.linspace(0.0, 1.0, 21)


def success(iou: np.ndarray) -> np.ndarray:
    """The share of the thresholds that each overlap is above.

    Its mean over boxes is the area under the success curve.
    """
    return (iou[..., None] > THRESHOLDS).mean(axis=-1)


class TrackingEvaluator(Evaluator):
    """Compares `outputs['predicted']` with `outputs['boxes']`, both (b, n, t, 4).

    `outputs['query']`, (b, n, 4), are the boxes that the network was given. Where there
    are `outputs['weights']`, (b, n, t), only boxes with a weight above 0 count.

    Yields:
        iou: mean over videos, trajectories and all t frames, the first included.
        success_auc: mean of `success` over the same boxes.
        center_error, size_error, and with `_share`: likewise of `errors`, in pixels of
            the clip.
        iou_per_frame: array (t,).
        *_stay_put: the same for a baseline, the query box in every frame.
        *_gain_error: see `ctp_jax.metrics_file`.
        videos: how many there were.
    """

    def reset(self) -> None:
        self._values = collections.defaultdict(list)
        self._counts: list[np.ndarray] = []

    def update(self, batch: Batch, outputs: Outputs) -> None:
        real = np.asarray(batch["mask"]) > 0
        truth = np.asarray(outputs["boxes"], np.float64)[real]
        predicted = np.asarray(outputs["predicted"], np.float64)[real]
        query = np.asarray(outputs["query"], np.float64)[real][..., None, :]
        stay_put = np.broadcast_to(query, truth.shape)
        for suffix, found in (("", predicted), (BASELINE, stay_put)):
            iou = iou_xyxy(found, truth)
            values = {"iou": iou, "success_auc": success(iou), **errors(found, truth)}
            for name, value in values.items():
                self._values[name + suffix].append(value)
        weights = outputs.get("weights", np.ones((len(real), *truth.shape[1:3])))
        self._counts.append(np.asarray(weights)[real] > 0)

    def results(self) -> Iterator[tuple[str, Any]]:
        counts = np.concatenate(self._counts)
        values = {name: np.concatenate(each) for name, each in self._values.items()}
        for name, each in values.items():
            known = each[counts]
            # Without a box that counts, there is nothing to say.
            yield name, float(known.mean()) if known.size else 0.0
            if name + BASELINE in values:
                gain = np.where(counts, each - values[name + BASELINE], 0.0)
                error = gain_error(gain.sum(axis=(1, 2)), counts.sum(axis=(1, 2)))
                if error is not None:
                    yield name + GAIN_ERROR, error
        for suffix in ("", BASELINE):
            iou = values[f"iou{suffix}"]
            flat = (-1, iou.shape[-1])
            per_frame = mean(iou.reshape(flat), counts.reshape(flat), axis=0)
            yield f"iou_per_frame{suffix}", per_frame
        yield VIDEOS, len(counts)


def make(options: ConfigDict, subject: Subject) -> TrackingEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return TrackingEvaluator()
