"""Whether two clips of a video find each other among clips of other videos.

For contrastive tasks; needs no labels.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax.evaluators import nearest
from ctp_jax.evaluators.base import Evaluator, Subject

LOOKS_AT = "predictions"

_TOP = 5


class PairsEvaluator(Evaluator):
    """Reads `outputs['embedding']` (n, 2, d), unit vectors of two clips of each video.

    Yields:
        pair_top1, pair_top5: share of videos whose first clip finds the second clip of
            the same video, most alike or among the five most alike second clips of all.
        pair_chance: pair_top1 by chance.
        pair_similarity: mean cosine of the two clips of a video.
        other_similarity: mean cosine of a first clip and the second clips of other
            videos; where it nears pair_similarity, the embeddings have collapsed.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self._embedding: list[np.ndarray] = []

    def update(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        real = np.asarray(batch["mask"]) > 0
        self._embedding.append(np.asarray(outputs["embedding"], np.float32)[real])

    def results(self) -> Iterator[tuple[str, Any]]:
        count = sum(map(len, self._embedding))
        if not count:
            return
        first, second = np.concatenate(self._embedding).swapaxes(0, 1)
        _, rows = nearest.search(first, second, min(_TOP, count))
        right = rows == np.arange(count)[:, None]
        yield "pair_top1", float(right[:, 0].mean())
        yield "pair_top5", float(right.any(axis=1).mean())
        yield "pair_chance", 1 / count
        own = float((first * second).sum(axis=1, dtype=np.float64).mean())
        yield "pair_similarity", own
        if count > 1:
            every = float(first.mean(axis=0, dtype=float) @ second.mean(0, dtype=float))
            yield "other_similarity", (count * every - own) / (count - 1)


def make(options: ConfigDict, subject: Subject) -> PairsEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return PairsEvaluator()
