"""Whether two clips of a video find each other among clips of other videos.

For contrastive tasks; needs no labels.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch
from ctp_jax.evaluators import nearest
from ctp_jax.evaluators.base import Evaluator, Outputs, Subject
from ctp_jax.metrics_file import CHANCE, VIDEOS

LOOKS_AT = "predictions"

_TOP = 5


class PairsEvaluator(Evaluator):
    """Reads `outputs['embedding']` (n, 2, d), unit vectors of two clips of each video.

    Yields:
        pair_top1, pair_top5: share of videos whose first clip finds the second clip of
            the same video, most alike or among the five most alike second clips of all;
            pair_top5 where there are more than five videos.
        pair_top1_chance, pair_top5_chance: the same for guesses.
        pair_videos: n.
        pair_similarity: mean cosine of the two clips of a video.
        other_similarity: mean cosine of a first clip and the second clips of other
            videos; where it nears pair_similarity, the embeddings have collapsed.
    """

    def reset(self) -> None:
        self._embedding: list[np.ndarray] = []

    def update(self, batch: Batch, outputs: Outputs) -> None:
        real = np.asarray(batch["mask"]) > 0
        self._embedding.append(np.asarray(outputs["embedding"], np.float32)[real])

    def results(self) -> Iterator[tuple[str, Any]]:
        count = sum(map(len, self._embedding))
        if not count:
            return
        first, second = np.concatenate(self._embedding).swapaxes(0, 1)
        _, rows = nearest.search(first, second, min(_TOP, count))
        right = rows == np.arange(count)[:, None]
        for top in (1, _TOP) if count > _TOP else (1,):
            yield f"pair_top{top}", float(right[:, :top].any(axis=1).mean())
            yield f"pair_top{top}{CHANCE}", top / count
        yield f"pair_{VIDEOS}", count
        own = float((first * second).sum(axis=1, dtype=np.float64).mean())
        yield "pair_similarity", own
        if count > 1:
            every = float(first.mean(axis=0, dtype=float) @ second.mean(0, dtype=float))
            yield "other_similarity", (count * every - own) / (count - 1)


def make(options: ConfigDict, subject: Subject) -> PairsEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return PairsEvaluator()
