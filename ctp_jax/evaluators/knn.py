"""Classification by a weighted vote of the nearest training videos."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from ctp_jax.errors import UserError
from ctp_jax.evaluators.base import Subject
from ctp_jax.evaluators.feature_bank import FeatureBank, NeighbourEvaluator
from ctp_jax.metrics_file import CHANCE, VIDEOS

LOOKS_AT = "features"

_BLOCK = 1024  # queries at a time, to bound the memory: queries times classes


class KNNEvaluator(NeighbourEvaluator):
    """Weighted k-nearest-neighbour classification (Wu et al., CVPR 2018, section 3.4).

    Each of the k nearest gallery videos votes for its class with the weight
    exp(similarity / temperature). Classes without a vote are not predicted; if sums are
    equal, the class of the lower number wins. Queries without a label are left out.

    Yields:
        knn_top1, knn_top5: share of queries whose class has the largest sum of votes, or
            one of the five largest; knn_top5 where there are more than five classes.
        knn_top1_chance, knn_top5_chance: the same for the classes with the most videos
            in the gallery, always.
        knn_videos: number of labelled queries.
    """

    def __init__(
        self, k: int = 20, temperature: float = 0.07, *, bank: FeatureBank | None = None
    ):
        """See the class.

        Args:
            k: how many neighbours vote; the whole gallery if it has fewer videos.
            temperature: of the weights.
            bank: to share with other evaluators.

        Raises:
            UserError: for k below 1, or a temperature that is not positive.
        """
        if k < 1:
            raise UserError(f"k-NN with k = {k}: needs at least 1 neighbour")
        if not temperature > 0:
            raise UserError(f"k-NN with temperature = {temperature}: must be above 0")
        super().__init__(bank or FeatureBank(), k)
        self._k, self._temperature = k, temperature

    def results(self) -> Iterator[tuple[str, Any]]:
        found = self.bank.neighbours()
        labelled = found.query_label >= 0
        labels = found.gallery_label[found.row[labelled, : self._k]]
        similarity = found.similarity[labelled, : self._k]
        ranks = [
            rank_by_votes(
                labels[start : start + _BLOCK],
                similarity[start : start + _BLOCK],
                found.query_label[labelled][start : start + _BLOCK],
                self._temperature,
            )
            for start in range(0, len(labels), _BLOCK)
        ]
        rank = np.concatenate(ranks)
        queries = found.query_label[labelled]
        known = found.gallery_label[found.gallery_label >= 0]
        counts = np.bincount(known, minlength=int(queries.max()) + 1)
        # With a query's own video, if it is there: of equal classes, its own would never
        # be the largest without it, and the guess always wrong.
        by_size = np.argsort(-counts, kind="stable")
        for top in (1, 5) if (counts > 0).sum() > 5 else (1,):
            yield f"knn_top{top}", float((rank < top).mean())
            guessed = np.isin(queries, by_size[:top])
            yield f"knn_top{top}{CHANCE}", float(guessed.mean())
        yield f"knn_{VIDEOS}", len(queries)


def rank_by_votes(
    labels: Int[np.ndarray, "q k"],
    similarity: Float[np.ndarray, "q k"],
    truth: Int[np.ndarray, " q"],
    temperature: float,
) -> Int[np.ndarray, " q"]:
    """The rank of the true class by its sum of votes, from 0.

    Args:
        labels: of the neighbours; those of label -1 do not vote.
        similarity: of the neighbours, in descending order.
        truth: the queries' classes.
        temperature: of the weights.

    Returns:
        int (q,): for a class without a vote, the largest int64.
    """
    classes = int(max(labels.max(), truth.max())) + 1
    # Weights are divided by the largest: the order stays, and exp cannot overflow.
    exponent = (similarity - similarity[:, :1]).astype(np.float64) / temperature
    weights = np.where(labels >= 0, np.exp(exponent), 0.0)
    votes, query = np.zeros((len(labels), classes)), np.arange(len(labels))
    # Not a product with one-hot labels, nearly all of which are zeros.
    np.add.at(votes, (query[:, None], np.maximum(labels, 0)), weights)
    own = votes[query, truth][:, None]
    before: Bool[np.ndarray, "q c"] = votes > own
    before |= (votes == own) & (np.arange(classes) < truth[:, None])
    return np.where(own[:, 0] > 0, before.sum(axis=1), np.iinfo(np.int64).max)


def make(options: ConfigDict, subject: Subject) -> KNNEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return KNNEvaluator(bank=FeatureBank.of(subject))
