"""Features of two splits and the nearest neighbours of one in the other.

Evaluators that look at neighbours share one `FeatureBank`: features are stored once
and searched once.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ctp_jax.errors import UserError
from ctp_jax.evaluators import nearest
from ctp_jax.evaluators.base import Evaluator, Subject

# More than the C library ever takes from its heap, where freed memory stays with the
# process: parts of this size go back to the system when they are let go.
_PART_BYTES = 64 * 2**20


class Neighbours(NamedTuple):
    """The nearest gallery videos of every query: q queries, g gallery videos.

    Attributes:
        similarity: float32 (q, k), cosine, falling.
        row: (q, k), into the gallery's arrays below.
        query: (q,) record numbers in their split.
        query_label: (q,), -1 for none.
        gallery: (g,) record numbers in theirs.
        gallery_label: (g,), -1 for none.
    """

    similarity: Float[np.ndarray, "q k"]
    row: Int[np.ndarray, "q k"]
    query: Int[np.ndarray, " q"]
    query_label: Int[np.ndarray, " q"]
    gallery: Int[np.ndarray, " g"]
    gallery_label: Int[np.ndarray, " g"]

    @property
    def correct(self) -> np.ndarray:
        """bool (q, k): whether a neighbour has the query's class."""
        labels = self.gallery_label[self.row]
        return (labels == self.query_label[:, None]) & (labels >= 0)


class FeatureBank:
    """Gathers features of queries and of a gallery; finds neighbours on request.

    Every record counts once: it may be added again, by another evaluator or another
    batch, and is passed over then. Where both splits are of one data set, a video that
    is in both does not find itself.

    Memory of the host: the features, and while they are put together 64 MiB more.
    """

    def __init__(
        self,
        query_records: Any | None = None,
        gallery_records: Any | None = None,
        dtype: Any = np.float32,
    ):
        """The splits, if they are known: for names of videos and classes.

        Args:
            query_records: `ctp_jax.data.records.Records` of the split that asks.
            gallery_records: of the split that is searched.
            dtype: to keep features in; float16 halves them and costs three digits.

        Raises:
            UserError: the splits have no labels, or not the same classes.
        """
        self.query_records, self.gallery_records = query_records, gallery_records
        self._queries = _Features("query", query_records, dtype)
        self._gallery = _Features("gallery", gallery_records, dtype)
        self._found: Neighbours | None = None
        self._k = 1
        for records in (query_records, gallery_records):
            if records is not None:
                _check_labels(records.label, f"{records.name}, split {records.split}")
        if query_records is None or gallery_records is None:
            return
        if query_records.class_names != gallery_records.class_names:
            raise UserError(
                f"{query_records.name} and {gallery_records.name} have not the same "
                "classes: neighbours can be judged within a data set only"
            )

    @classmethod
    def of(cls, subject: Subject) -> "FeatureBank":
        """The one bank of a pass."""
        if "bank" not in subject.shared:
            subject.shared["bank"] = cls(subject.held_out, subject.gallery)
        return subject.shared["bank"]

    def want(self, k: int) -> None:
        """Asks for k neighbours; the search finds as many as anybody wants."""
        self._k = max(self._k, k)

    def reset(self) -> None:
        """Forgets all features."""
        self._queries.reset()
        self._gallery.reset()
        self._found = None

    def add_queries(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Takes `outputs['features']`, float (b, d), of the split that asks."""
        self._queries.add(batch, outputs)

    def add_gallery(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Takes `outputs['features']`, float (b, d), of the split that is searched."""
        self._gallery.add(batch, outputs)

    def neighbours(self) -> Neighbours:
        """As many neighbours as are wanted, or all if there are fewer.

        The first call searches and lets the features go; later ones remember.

        Raises:
            UserError: there is nothing to find, or there are no labels.
        """
        if self._found is not None:
            return self._found
        own = self._own_rows()
        available = len(self._gallery) - bool((own >= 0).any())
        if available < 1 or not len(self._queries):
            raise UserError(
                f"neighbours of {len(self._queries)} videos among {available}: there "
                "is nothing to search; are both splits named, and not empty?"
            )
        for side in (self._queries, self._gallery):
            _check_labels(side.labels, f"{side.name} videos")
        queries, gallery = self._queries.take(), self._gallery.take()
        similarity, row = nearest.search(
            queries, gallery, min(self._k, available), exclude=own
        )
        self._found = Neighbours(
            similarity,
            row,
            np.array(self._queries.numbers),
            np.array(self._queries.labels),
            np.array(self._gallery.numbers),
            np.array(self._gallery.labels),
        )
        return self._found

    def _own_rows(self) -> Int[np.ndarray, " q"]:
        """The gallery row of each query's own video, -1 where it is not in there."""
        queries, gallery = self.query_records, self.gallery_records
        if queries is None or gallery is None or queries.name != gallery.name:
            return np.full(len(self._queries), -1)
        # By their names: the same video may have other numbers in other splits.
        names = gallery.ids[self._gallery.numbers].tolist()
        row_of = {name: row for row, name in enumerate(names)}
        names = queries.ids[self._queries.numbers].tolist()
        return np.array([row_of.get(name, -1) for name in names])


def _check_labels(labels: Any, where: str) -> None:
    if len(labels) and max(labels) < 0:
        raise UserError(
            f"{where}: no labels, so nothing says which neighbours are right; prepare "
            "the videos in one folder per class"
        )


class _Features:
    """Features of one split, in parts of equal size."""

    def __init__(self, name: str, records: Any | None, dtype: Any):
        self.name, self._records, self._dtype = name, records, np.dtype(dtype)
        self.reset()

    def reset(self) -> None:
        self.numbers: list[int] = []
        self.labels: list[int] = []
        self._seen: set[int] = set()
        self._parts: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> None:
        new = []
        for row, number in enumerate(np.asarray(batch["index"]).tolist()):
            if batch["mask"][row] > 0 and number not in self._seen:
                self._seen.add(number)
                new.append(row)
        if not new:
            return
        features = np.asarray(outputs["features"])[new].astype(np.float32)
        numbers = np.asarray(batch["index"])[new].tolist()
        nearest.check_finite(features, lambda row: self._name(numbers[row]))
        if self._dtype == np.float16:
            # Cosines do not see the scale, and none leaves the range of float16.
            peak = np.abs(features).max(axis=1, keepdims=True)
            features /= np.where(peak > 0, peak, 1.0)
        self._append(features)
        self.numbers += numbers
        self.labels += np.asarray(batch["label"])[new].tolist()

    def _name(self, number: int) -> str:
        if self._records is None:
            return f"{self.name} video, record {number}"
        return f"{self.name} video {self._records.ids[number]}"

    def _append(self, features: Float[np.ndarray, "b d"]) -> None:
        width = features.shape[1]
        rows = max(_PART_BYTES // (width * self._dtype.itemsize), 1)
        used = len(self.numbers) % rows
        while len(features):
            if not used:
                self._parts.append(np.empty((rows, width), self._dtype))
            room = self._parts[-1][used : used + len(features)]
            room[:] = features[: len(room)]
            features, used = features[len(room) :], (used + len(room)) % rows

    def take(self) -> Float[np.ndarray, "n d"]:
        """All features as one array; they are not kept here any longer.

        The array's memory is filled at the rate at which that of the parts is given
        back: the system hands out pages when they are first written to.
        """
        width = self._parts[0].shape[1]
        whole = np.empty((len(self), width), self._dtype)
        start = 0
        self._parts.reverse()
        while self._parts:
            part = self._parts.pop()
            room = whole[start : start + len(part)]
            room[:] = part[: len(room)]
            start += len(part)
        return whole


class NeighbourEvaluator(Evaluator):
    """Feeds a feature bank; subclasses judge the neighbours.

    Per evaluation: `reset`; `update_gallery` for each batch of the split that is
    searched; `update` for each batch of the split that asks; `results`. Evaluators
    that share a bank go through the same passes together.
    """

    needs_gallery = True

    def __init__(self, bank: FeatureBank, k: int):
        self.bank = bank
        bank.want(k)

    def reset(self) -> None:
        self.bank.reset()

    def update_gallery(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Takes `outputs['features']`, float (b, d), of the split that is searched."""
        self.bank.add_gallery(batch, outputs)

    def update(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        self.bank.add_queries(batch, outputs)

    def results(self) -> Iterator[tuple[str, Any]]:
        raise NotImplementedError
