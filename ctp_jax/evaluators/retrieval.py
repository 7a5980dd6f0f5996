"""Video retrieval: do a video's nearest neighbours show the same action?"""

import csv
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from ctp_jax import formatting
from ctp_jax.errors import UserError
from ctp_jax.evaluators.base import Subject
from ctp_jax.evaluators.feature_bank import (
    FeatureBank,
    NeighbourEvaluator,
    Neighbours,
)
from ctp_jax.metrics_file import CHANCE, VIDEOS

LOOKS_AT = "features"

_LISTED = 5  # neighbours of a query in the table and in the picture
_DRAWN = 8  # queries in the picture
_HEADER = (
    "query",
    "label",
    "rank",
    "neighbour",
    "neighbour_label",
    "similarity",
    "correct",
)


class RetrievalEvaluator(NeighbourEvaluator):
    """Nearest neighbours by cosine similarity, the protocol of VCOP (CVPR 2019).

    Yields:
        retrieval_top1, ...: share of the labelled queries for which at least one of the
            k nearest gallery videos has the query's class. If the gallery has fewer than
            k videos, this k is left out; see `notes`.
        retrieval_top1_chance, ...: the same for k videos of the gallery drawn at random,
            without the query itself.
        retrieval_videos: number of labelled queries.
        neighbours: int32 (q, k), record numbers among the gallery's, nearest first.
        neighbour_similarity: float32 (q, k).
        neighbour_query: int32 (q,), record numbers in the queries' split.
    """

    def __init__(
        self,
        ks: Sequence[int] = (1, 5, 10, 20, 50),
        query_records: Any | None = None,
        gallery_records: Any | None = None,
        *,
        bank: FeatureBank | None = None,
    ):
        """See the class.

        Args:
            ks: numbers of neighbours to report.
            query_records: `ctp_jax.data.records.Records` of the split of the queries.
            gallery_records: those of the split that is searched.
            bank: to share with other evaluators, instead of the records.

        Raises:
            UserError: for a k below 1, and see `FeatureBank`.
        """
        self._ks = sorted({int(k) for k in ks})
        if not self._ks or self._ks[0] < 1:
            raise UserError(
                f"retrieval at k = {', '.join(map(str, ks)) or 'nothing'}: needs "
                "numbers of neighbours, each at least 1"
            )
        bank = bank or FeatureBank(query_records, gallery_records)
        super().__init__(bank, max(self._ks[-1], _LISTED))

    def _find(self) -> tuple[Neighbours, list[int]]:
        """The neighbours, and each k for which there are enough of them."""
        found = self.bank.neighbours()
        ks = [k for k in self._ks if k <= found.row.shape[1]]
        if not ks:
            raise UserError(
                f"retrieval at k = {self._ks[0]}: the gallery has only "
                f"{formatting.count(found.row.shape[1], 'video')} to find"
            )
        return found, ks

    def results(self) -> Iterator[tuple[str, Any]]:
        found, ks = self._find()
        hit = np.logical_or.accumulate(found.correct[found.query_label >= 0], axis=1)
        for k in ks:
            yield f"retrieval_top{k}", float(hit[:, k - 1].mean())
        total, of_class = self._to_find(found)
        for k in ks:
            missed = chance_of_none(total, of_class, k)
            yield f"retrieval_top{k}{CHANCE}", float(1 - missed.mean())
        yield f"retrieval_{VIDEOS}", len(of_class)
        yield "neighbours", found.gallery[found.row[:, : ks[-1]]].astype(np.int32)
        yield "neighbour_similarity", found.similarity[:, : ks[-1]]
        yield "neighbour_query", found.query.astype(np.int32)

    def _to_find(
        self, found: Neighbours
    ) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"]]:
        """For each labelled query, other gallery videos: all, and those of its class."""
        labelled = found.query_label >= 0
        labels, own = found.query_label[labelled], found.own[labelled]
        of_class = (found.gallery_label[:, None] == labels).sum(axis=0)
        itself = (own >= 0) & (found.gallery_label[own] == labels)
        return len(found.gallery) - (own >= 0), of_class - itself

    def notes(self) -> list[str]:
        """Lines for the user about the last results: which k were left out."""
        found, ks = self._find()
        left_out = ", ".join(str(k) for k in self._ks if k not in ks)
        line = (
            f"retrieval at {left_out} is left out: the gallery has only "
            f"{formatting.count(found.row.shape[1], 'video')} to find"
        )
        return [line] if left_out else []

    def save(self, directory: pathlib.Path) -> None:
        """Writes neighbours.csv and neighbours.png; nothing without records."""
        if self.bank.query_records is None or self.bank.gallery_records is None:
            return
        self._write_table(directory / "neighbours.csv")
        self._draw(directory / "neighbours.png")

    def _write_table(self, path: pathlib.Path) -> None:
        found = self.bank.neighbours()
        queries: Any = self.bank.query_records
        gallery: Any = self.bank.gallery_records
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_HEADER)
            for i, query in enumerate(found.query):
                own = (queries.ids[query], class_name(queries, found.query_label[i]))
                for rank, row in enumerate(found.row[i, :_LISTED]):
                    neighbour = gallery.ids[found.gallery[row]]
                    label = class_name(gallery, int(found.gallery_label[row]))
                    similarity = f"{found.similarity[i, rank]:.6f}"
                    correct = int(found.correct[i, rank])
                    writer.writerow(
                        (*own, rank + 1, neighbour, label, similarity, correct)
                    )

    def _draw(self, path: pathlib.Path) -> None:
        # Imported here, because reading frames imports TensorFlow.
        from ctp_jax.data import reading
        from ctp_jax.evaluators import neighbour_sheet

        found = self.bank.neighbours()
        queries: Any = self.bank.query_records
        gallery: Any = self.bank.gallery_records
        shown = spread_over_classes(found.query_label, _DRAWN)
        rows = found.row[shown, :_LISTED]
        frames = reading.middle_frames(gallery, found.gallery[rows].ravel())
        sheet = neighbour_sheet.draw(
            reading.middle_frames(queries, found.query[shown]),
            [frames[i : i + rows.shape[1]] for i in range(0, rows.size, rows.shape[1])],
            found.correct[shown, :_LISTED],
            query_names=[class_name(queries, n) for n in found.query_label[shown]],
            neighbour_names=[
                [class_name(gallery, n) for n in labels]
                for labels in found.gallery_label[rows]
            ],
            title=f"{queries.split}, nearest videos of {gallery.split}; tick: same class",
        )
        sheet.save(path, optimize=True)


def chance_of_none(
    total: int | Int[np.ndarray, " q"], wanted: Int[np.ndarray, " q"], k: int
) -> Float[np.ndarray, " q"]:
    """The probability that none of k videos is wanted, drawn without replacement.

    Args:
        total: number of videos to draw from, for all queries or for each.
        wanted: how many of them are wanted, for each query.
        k: how many are drawn.

    >>> chance_of_none(4, np.array([1]), 2)
    array([0.5])
    """
    left = np.reshape(total, (-1, 1)) - np.arange(k)
    return (np.maximum(left - wanted[:, None], 0) / left).prod(axis=1)


def class_name(records: Any, label: int | np.integer) -> str:
    """The name of a class, its number if it has no name, '' for label -1."""
    if label < 0:
        return ""
    return (
        records.class_names[label] if label < len(records.class_names) else str(label)
    )


def spread_over_classes(
    labels: Int[np.ndarray, " n"], count: int
) -> Int[np.ndarray, " m"]:
    """Picks rows of as many classes as possible, evenly from the first to the last.

    Args:
        labels: of the rows; -1 is never picked.
        count: how many rows, fewer if there are no more.

    Returns:
        int (m,), row numbers in the order of their classes.
    """
    known = np.flatnonzero(labels >= 0)
    known = known[np.argsort(labels[known], kind="stable")]
    _, first, sizes = np.unique(labels[known], return_index=True, return_counts=True)
    if len(first) >= count:
        return known[first[np.linspace(0, len(first) - 1, count).round().astype(int)]]
    # The first row of every class, then the second of every class, and so on.
    turn = np.arange(len(known)) - np.repeat(first, sizes)
    return known[np.sort(np.argsort(turn, kind="stable")[:count])]


def make(options: ConfigDict, subject: Subject) -> RetrievalEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return RetrievalEvaluator(bank=FeatureBank.of(subject))
