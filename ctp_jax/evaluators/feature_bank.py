"""Features of two splits and the nearest neighbours of one in the other.

Evaluators that look at neighbours share one `FeatureBank`: features are stored once
and searched once.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ctp_jax import formatting
from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError
from ctp_jax.evaluators import nearest
from ctp_jax.evaluators.base import Evaluator, Outputs, Subject


class Neighbours(NamedTuple):
    """The nearest gallery videos of every query: q queries, g gallery videos.

    Attributes:
        similarity: float32 (q, k), cosine, in descending order.
        row: (q, k), indices into the gallery's arrays below.
        query: (q,) record numbers in the split of the queries.
        query_label: (q,), -1 for none.
        gallery: (g,) record numbers in the split of the gallery.
        gallery_label: (g,), -1 for none.
        own: (q,) gallery row of the query itself, which it does not find; -1 for none.
    """

    similarity: Float[np.ndarray, "q k"]
    row: Int[np.ndarray, "q k"]
    query: Int[np.ndarray, " q"]
    query_label: Int[np.ndarray, " q"]
    gallery: Int[np.ndarray, " g"]
    gallery_label: Int[np.ndarray, " g"]
    own: Int[np.ndarray, " q"]

    @property
    def correct(self) -> np.ndarray:
        """bool (q, k): whether the neighbour has the query's class."""
        labels = self.gallery_label[self.row]
        return (labels == self.query_label[:, None]) & (labels >= 0)


class FeatureBank:
    """Collects features of queries and of a gallery; finds neighbours on request.

    Every record counts once: if another evaluator or another batch adds it again, it is
    ignored. If both splits are of one data set, a video that is in both does not find
    itself.
    """

    def __init__(
        self, query_records: Any | None = None, gallery_records: Any | None = None
    ):
        """Keeps the splits, if they are known, for the names of videos and classes.

        Args:
            query_records: `ctp_jax.data.records.Records` of the split of the queries.
            gallery_records: those of the split that is searched.

        Raises:
            UserError: the splits have no labels, or different classes.
        """
        self.query_records, self.gallery_records = query_records, gallery_records
        self.queries = _Features("query", query_records)
        self.gallery = _Features("gallery", gallery_records)
        self._found: Neighbours | None = None
        self._k = 1
        for records in (query_records, gallery_records):
            if records is not None:
                _check_labels(records.label, f"{records.name}, split {records.split}")
        if query_records is None or gallery_records is None:
            return
        if query_records.class_names != gallery_records.class_names:
            raise UserError(
                f"{query_records.name} and {gallery_records.name} do not have the "
                "same classes: neighbours can only be judged within one data set"
            )

    @classmethod
    def of(cls, subject: Subject) -> "FeatureBank":
        """The bank that the evaluators of a pass share."""
        if "bank" not in subject.shared:
            subject.shared["bank"] = cls(subject.held_out, subject.gallery)
        return subject.shared["bank"]

    def want(self, k: int) -> None:
        """Asks for k neighbours; the search uses the largest k that was asked for."""
        self._k = max(self._k, k)

    def reset(self) -> None:
        """Forgets all features."""
        self.queries.reset()
        self.gallery.reset()
        self._found = None

    def neighbours(self) -> Neighbours:
        """As many neighbours as were asked for, or all if there are fewer.

        The first call searches and frees the features; later calls return its result.

        Raises:
            UserError: there are no queries, no gallery or no labels.
        """
        if self._found is not None:
            return self._found
        own = self._own_rows()
        available = len(self.gallery) - bool((own >= 0).any())
        if available < 1 or not len(self.queries):
            raise UserError(
                "cannot search for neighbours of "
                f"{formatting.count(len(self.queries), 'video')} among {available}: "
                "check that both splits are set and not empty"
            )
        for side in (self.queries, self.gallery):
            _check_labels(side.labels, f"{side.name} videos")
        queries, gallery = self.queries.take(), self.gallery.take()
        similarity, row = nearest.search(
            queries, gallery, min(self._k, available), exclude=own
        )
        self._found = Neighbours(
            similarity,
            row,
            np.array(self.queries.numbers),
            np.array(self.queries.labels),
            np.array(self.gallery.numbers),
            np.array(self.gallery.labels),
            own,
        )
        return self._found

    def _own_rows(self) -> Int[np.ndarray, " q"]:
        """The gallery row of each query's own video, -1 if it is not in the gallery."""
        queries, gallery = self.query_records, self.gallery_records
        if queries is None or gallery is None or queries.name != gallery.name:
            return np.full(len(self.queries), -1)
        # Compared by name: a video has different numbers in different splits.
        names = gallery.ids[self.gallery.numbers].tolist()
        row_of = {name: row for row, name in enumerate(names)}
        names = queries.ids[self.queries.numbers].tolist()
        return np.array([row_of.get(name, -1) for name in names])


def _check_labels(labels: Any, where: str) -> None:
    if len(labels) and max(labels) < 0:
        raise UserError(
            f"{where}: no labels, so neighbours cannot be judged: prepare the videos in "
            "one folder per class"
        )


class _Features:
    """Features of one split, float32, with record numbers and labels."""

    def __init__(self, name: str, records: Any | None):
        self.name, self._records = name, records
        self.reset()

    def reset(self) -> None:
        self.numbers: list[int] = []
        self.labels: list[int] = []
        self._seen: set[int] = set()
        self._parts: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, batch: Batch, outputs: Outputs) -> None:
        new = []
        for row, number in enumerate(np.asarray(batch["index"]).tolist()):
            if batch["mask"][row] > 0 and number not in self._seen:
                self._seen.add(number)
                new.append(row)
        features = np.asarray(outputs["features"], np.float32)[new]
        numbers = np.asarray(batch["index"])[new].tolist()
        finite = np.isfinite(features).all(axis=1)
        if not finite.all():
            raise UserError(
                f"{self._name(numbers[int(np.argmin(finite))])}: the encoder gave "
                "features that are not finite, its training may have diverged: use an "
                "earlier checkpoint"
            )
        self._parts.append(features)
        self.numbers += numbers
        self.labels += np.asarray(batch["label"])[new].tolist()

    def _name(self, number: int) -> str:
        if self._records is None:
            return f"{self.name} video, record {number}"
        return f"{self.name} video {self._records.ids[number]}"

    def take(self) -> Float[np.ndarray, "n d"]:
        """All features as one array; they are then no longer kept here."""
        parts, self._parts = self._parts, []
        return np.concatenate(parts)


class NeighbourEvaluator(Evaluator):
    """Fills a feature bank; subclasses judge the neighbours.

    The calls of an evaluation are: `reset`; `update_gallery` for each batch of the
    split that is searched; `update` for each batch of the queries; `results`.
    Evaluators that share a bank take part in the same passes.
    """

    needs_gallery = True

    def __init__(self, bank: FeatureBank, k: int):
        self.bank = bank
        bank.want(k)

    def reset(self) -> None:
        self.bank.reset()

    def update_gallery(self, batch: Batch, outputs: Outputs) -> None:
        """Takes `outputs['features']`, float (b, d), of the split that is searched."""
        self.bank.gallery.add(batch, outputs)

    def update(self, batch: Batch, outputs: Outputs) -> None:
        self.bank.queries.add(batch, outputs)
