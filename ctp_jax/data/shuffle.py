"""Maps positions of a run to records of a split, in a TensorFlow graph.

Training visits every record once per epoch, in a different order each time. An
evaluation visits the records in the order of the split.
"""

import tensorflow as tf

from ctp_jax.data import rng


def shuffled(position: tf.Tensor, total: int, seed: int) -> tf.Tensor:
    """Record number, int64, at an int64 position; a different order in every epoch."""
    count = tf.constant(total, tf.int64)
    key = _key(seed, "order", position // count)
    return tf.random.experimental.index_shuffle(position % count, key, count - 1)


def replacement(
    first: tf.Tensor, number: tf.Tensor, position: tf.Tensor, total: int, seed: int
) -> tf.Tensor:
    """Record number, int64, of the replacement `number` for the record `first`.

    For number = 0 .. total - 2 these are all other records, in a random order that
    depends on the position.
    """
    others = tf.constant(max(total - 1, 1), tf.int64)
    key = _key(seed, "others", position)
    offset = tf.random.experimental.index_shuffle(number % others, key, others - 1)
    return (first + 1 + offset) % total


def _key(seed: int, stream: str, number: tf.Tensor) -> tf.Tensor:
    """Key of a shuffle, int64 (2,).

    Hashed, because `index_shuffle` does not hash its key: the orders of epochs 0, 1, 2
    would be correlated.
    """
    start = tf.constant(rng.stream_seed(seed, stream), tf.int64)
    return tf.random.stateless_uniform(
        [2], tf.stack([start, number]), minval=None, maxval=None, dtype=tf.int64
    )


def evenly_spaced(position: tf.Tensor, total: int, used: int) -> tf.Tensor:
    """Record number, int64, if an evaluation uses only some of the records.

    They are spread evenly over the split, which may be sorted by class. Positions from
    `used` on repeat the last one.
    """
    row = tf.minimum(position, used - 1)
    return row * total // used
