"""Which record of a split stands at which position of a run.

Pure functions of the position, in a graph: the n positions of an epoch hold every
record once, an evaluation goes through the split in its own order.
"""

import tensorflow as tf

from ctp_jax.data import rng


def shuffled(position: tf.Tensor, total: int, seed: int) -> tf.Tensor:
    """Record number, int64, at an int64 position: another order in every epoch."""
    count = tf.constant(total, tf.int64)
    key = _key(seed, "order", position // count)
    return tf.random.experimental.index_shuffle(position % count, key, count - 1)


def replacement(
    first: tf.Tensor, number: tf.Tensor, position: tf.Tensor, total: int, seed: int
) -> tf.Tensor:
    """Record number, int64, of the replacement `number` for the record `first`.

    Those of one position, number = 0 .. total - 2, are all other records in an order
    drawn for this position alone.
    """
    others = tf.constant(max(total - 1, 1), tf.int64)
    key = _key(seed, "others", position)
    offset = tf.random.experimental.index_shuffle(number % others, key, others - 1)
    return (first + 1 + offset) % total


def _key(seed: int, stream: str, number: tf.Tensor) -> tf.Tensor:
    """Key of a shuffle, int64 (2,).

    Hashed: the shuffle takes its key as it is, and those of epochs 0, 1, 2 would be so
    alike that their orders correlate.
    """
    start = tf.constant(rng.stream_seed(seed, stream), tf.int64)
    return tf.random.stateless_uniform(
        [2], tf.stack([start, number]), minval=None, maxval=None, dtype=tf.int64
    )


def evenly_spaced(position: tf.Tensor, total: int, used: int) -> tf.Tensor:
    """Record number, int64, of evaluations that use only some.

    They are spread over the split, which may be sorted by class; positions from `used`
    on hold the last of them again.
    """
    row = tf.minimum(position, used - 1)
    return row * total // used
