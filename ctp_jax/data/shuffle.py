"""Maps positions of a run to records of a split, in a TensorFlow graph.

Training visits every record once per epoch, in a different order each time. An
evaluation visits the records in the order of the split, or window by window. Each is a
class whose `locate` gives the record number, int64, of an attempt at a position of the
run, and its mask, 0 for padding; and whose `window` gives the number of the window.
"""

import heapq

import numpy as np
import tensorflow as tf
from jaxtyping import Int

from ctp_jax.data import rng
from ctp_jax.data.bad_records import TRIES


class Evaluation:
    """One pass over `count` of the records, spread evenly over the split."""

    def __init__(self, total: int, count: int):
        self.total, self.count = total, count

    def locate(
        self, position: tf.Tensor, attempt: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        mask = tf.cast(position < self.count, tf.float32)
        return evenly_spaced(position, self.total, self.count), mask

    def window(self, position: tf.Tensor) -> tf.Tensor:
        return tf.constant(0)


class Training(Evaluation):
    """Endless; a record that cannot be read is replaced by others."""

    def __init__(self, total: int, seed: int):
        super().__init__(total, total)
        self._seed = seed

    def locate(
        self, position: tf.Tensor, attempt: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        first = shuffled(position, self.total, self._seed)
        number = tf.maximum(attempt - TRIES, 0)
        other = replacement(first, number, position, self.total, self._seed)
        return tf.where(attempt < TRIES, first, other), tf.constant(1.0)


class Windows(Evaluation):
    """One pass over all windows of some of the records, see `deal`."""

    def __init__(self, windows: Int[np.ndarray, " n"], videos: int, rows: int):
        with tf.device("/CPU:0"):
            records = evenly_spaced(tf.range(videos), len(windows), videos).numpy()
            self._table = tf.constant(deal(records, windows[records], rows))
        super().__init__(len(windows), len(self._table))

    def locate(
        self, position: tf.Tensor, attempt: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        record = self._table[position, 0]
        return tf.maximum(record, 0), tf.cast(record >= 0, tf.float32)

    def window(self, position: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._table[position, 1], tf.int32)


def shuffled(position: tf.Tensor, total: int, seed: int) -> tf.Tensor:
    """Record number, int64, at an int64 position; a different order in every epoch."""
    count = tf.constant(total, tf.int64)
    return _permute(position % count, count, seed, "order", position // count)


def replacement(
    first: tf.Tensor, number: tf.Tensor, position: tf.Tensor, total: int, seed: int
) -> tf.Tensor:
    """Record number, int64, of the replacement `number` for the record `first`.

    For number = 0 .. total - 2 these are all other records, in a random order that
    depends on the position.
    """
    others = tf.constant(max(total - 1, 1), tf.int64)
    offset = _permute(number % others, others, seed, "others", position)
    return (first + 1 + offset) % total


def _permute(
    index: tf.Tensor, count: tf.Tensor, seed: int, stream: str, number: tf.Tensor
) -> tf.Tensor:
    """Where a random permutation of 0 .. count - 1 puts an index, all int64.

    Two permutations in a row: `index_shuffle` alone has at most 65,536 orders of up to
    65,536 records, and too often the identity (200 times as often as it should for 8).
    Their keys are hashed, because `index_shuffle` does not hash its key: the orders of
    epochs 0, 1, 2 would be correlated.

    Args:
        index: to permute.
        count: of the indices.
        seed: of the run.
        stream: name of the permutations, which are independent of those of other names.
        number: of the permutation.
    """
    for name in (stream, f"{stream}, again"):
        start = tf.constant(rng.stream_seed(seed, name), tf.int64)
        key = tf.random.stateless_uniform(
            [2], tf.stack([start, number]), minval=None, maxval=None, dtype=tf.int64
        )
        index = tf.random.experimental.index_shuffle(index, key, count - 1)
    return index


def evenly_spaced(position: tf.Tensor, total: int, used: int) -> tf.Tensor:
    """Record number, int64, if an evaluation uses only some of the records.

    They are spread evenly over the split, which may be sorted by class. Positions from
    `used` on repeat the last one.
    """
    row = tf.minimum(position, used - 1)
    return row * total // used


def deal(
    records: Int[np.ndarray, " n"], windows: Int[np.ndarray, " n"], rows: int
) -> Int[np.ndarray, "positions 2"]:
    """Deals the windows of records to positions, so that each row follows its videos.

    A row of the batches shows the windows of a record in consecutive batches, and then
    those of another one. The longest come first, each in the row that is free first, so
    that the rows end at about the same time.

    Args:
        records: their numbers.
        windows: how many each of them has.
        rows: of a global batch.

    Returns:
        (record number, number of the window) of each position of a pass, whose length
        is a multiple of `rows`; (-1, 0) for padding.
    """
    free = [(0, row) for row in range(rows)]
    # No row ends later: each began its last record when no row had more than the mean.
    last = int(windows.sum()) // rows + int(windows.max())
    table = np.tile(np.array([-1, 0], np.int64), (last, rows, 1))
    for number in np.argsort(-windows, kind="stable"):
        start, row = free[0]
        stop = start + int(windows[number])
        table[start:stop, row, 0] = records[number]
        table[start:stop, row, 1] = np.arange(stop - start)
        heapq.heapreplace(free, (stop, row))
    return table[: max(free)[0]].reshape(-1, 2)
