"""Means over the held-out videos of what a task says of each; needs no labels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch
from ctp_jax.evaluators.base import Evaluator, Outputs, Subject

LOOKS_AT = "predictions"


class MeansEvaluator(Evaluator):
    """Yields the mean of every entry of the outputs that has a number per video, (b,)."""

    def reset(self) -> None:
        self._values: dict[str, list[np.ndarray]] = {}

    def update(self, batch: Batch, outputs: Outputs) -> None:
        real = np.asarray(batch["mask"]) > 0
        for name, values in outputs.items():
            if np.ndim(values) == 1:
                chosen = np.asarray(values, np.float64)[real]
                self._values.setdefault(name, []).append(chosen)

    def results(self) -> Iterator[tuple[str, Any]]:
        for name, parts in self._values.items():
            yield name, float(np.concatenate(parts).mean())


def make(options: ConfigDict, subject: Subject) -> MeansEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return MeansEvaluator()
