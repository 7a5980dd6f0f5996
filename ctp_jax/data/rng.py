"""Uniform random numbers that are a pure function of (seed, stream, position).

A batch has to be the same on any number of hosts and after any restart, so no random
number may depend on earlier ones. Each example gets one vector of uniforms
from one stateless op, seeded by the run's seed, the stream's name and the example's
position in the run; every decision takes its share of that vector. The decisions are
then plain arithmetic, vectorised over the batch, and no further random op runs.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def exp(x: tf.Tensor) -> tf.Tensor:
    """The exponential of float32, the same wherever in a batch a number stands.

    TensorFlow computes most of an array in vectors and its tail one by one, and float32
    results of the two differ in the last bit: batches would depend on their size, and
    so on the number of processes. In float64 that is rounded away.
    """
    return tf.cast(tf.exp(tf.cast(x, tf.float64)), tf.float32)


def log(x: tf.Tensor) -> tf.Tensor:
    """The logarithm; see `exp`."""
    return tf.cast(tf.math.log(tf.cast(x, tf.float64)), tf.float32)


def stream_seed(seed: int, stream: str) -> int:
    """A 63-bit seed for one named stream of a run."""
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def uniforms(seed: int, stream: str, position: tf.Tensor, count: int) -> tf.Tensor:
    """`count` float32 numbers in [0, 1) for one position (int64 scalar)."""
    seeds = tf.stack([tf.constant(stream_seed(seed, stream), tf.int64), position])
    return tf.random.stateless_uniform([count], seed=seeds)


class Rng:
    """Turns uniform numbers into samples of other distributions.

    Attributes:
        lead: leading dimensions of every result; the first may be None, unknown.
        used: number of uniforms per row that were used so far.
    """

    def __init__(self, numbers: tf.Tensor):
        """Takes uniforms in [0, 1) of shape (*lead, count)."""
        self._numbers = numbers
        self.lead = tuple(numbers.shape[:-1])
        self.used = 0

    def take(self, count: int) -> tf.Tensor:
        """The next `count` numbers, (*lead, count)."""
        start, self.used = self.used, self.used + count
        available = self._numbers.shape[-1]
        if available is not None and self.used > available:
            raise ValueError(f"{self.used} numbers drawn of {available}")
        return self._numbers[..., start : self.used]

    def split(self, count: int) -> "Rng":
        """Rng with one more leading dimension: independent for each of `count`."""
        return _SplitRng(self, count)

    def unit(self, shape: Sequence[int] = ()) -> tf.Tensor:
        """U[0, 1), (*lead, *shape)."""
        numbers = self.take(math.prod(shape))
        lead = [-1 if size is None else size for size in self.lead]
        return tf.reshape(numbers, [*lead, *shape])

    def uniform(self, shape: Sequence[int], low, high) -> tf.Tensor:
        """U[low, high), float32; the bounds may be tensors."""
        return low + (high - low) * self.unit(shape)

    def integer(self, shape: Sequence[int], count) -> tf.Tensor:
        """Integers 0 .. count - 1, int32; `count` may be a tensor, at least 1."""
        count = tf.cast(count, tf.float32)
        # float32 rounding can reach `count` itself for the largest numbers.
        value = tf.minimum(tf.floor(self.unit(shape) * count), count - 1.0)
        return tf.cast(value, tf.int32)

    def bernoulli(self, shape: Sequence[int], probability: float) -> tf.Tensor:
        """True with `probability`."""
        return self.unit(shape) < probability

    def category(
        self, shape: Sequence[int], probabilities: Sequence[float]
    ) -> tf.Tensor:
        """Index i with probability probabilities[i], int32."""
        total, bounds = 0.0, []
        for probability in probabilities[:-1]:
            total += probability
            bounds.append(total)
        above = self.unit(shape)[..., None] >= tf.constant(bounds, tf.float32)
        return tf.reduce_sum(tf.cast(above, tf.int32), axis=-1)

    def pick(self, shape: Sequence[int], values: Sequence[float]) -> tf.Tensor:
        """One of `values`, uniformly."""
        return tf.gather(tf.constant(values), self.integer(shape, len(values)))


class _SplitRng(Rng):
    def __init__(self, parent: Rng, count: int):
        self._parent = parent
        self._count = count
        self.lead = (*parent.lead, count)
        self.used = 0

    def take(self, count: int) -> tf.Tensor:
        self.used += count
        return self._parent.unit([self._count, count])


def traced(
    decide: Callable[[Rng, Any], Any], batch: Any, lead: Sequence[int] = (1,)
) -> tuple[Callable[[tf.Tensor, Any], Any], int]:
    """The graph of decisions, built once, and how many random numbers a row it uses.

    Args:
        decide: function of an `Rng` and of the batch.
        batch: the `tf.TensorSpec`s of the batch.
        lead: leading dimensions of the numbers.

    Returns:
        A function of uniforms, (*lead, count), and of the batch; and the count.
    """
    used = 1

    def sample(numbers, batch):
        nonlocal used
        rng = Rng(numbers)
        decided = decide(rng, batch)
        used = max(used, rng.used)
        return decided

    numbers = tf.TensorSpec([*lead, None], tf.float32)
    graph = tf.function(sample, input_signature=[numbers, batch], autograph=False)
    graph.get_concrete_function()
    return graph, used


def count_uniforms(decide: Callable[[Rng], object], lead: Sequence[int] = (1,)) -> int:
    """Number of random numbers per row that `decide` uses; see `traced`."""

    def only_count(numbers: Rng, _) -> None:
        decide(numbers)

    return traced(only_count, (), lead)[1]
