"""Digests of arrays: show that a restored state is the one that was saved.

The digest of an array is computed on its devices. Let w be the array as
words of 32 bits (narrower elements: a word each; wider ones: two), in row-major order,
and f a bijection of words. For two pairs (a, b) of streams of constants,

    digest = sum over i of f(w[i] xor a[i]) * b[i]   modulo 2**32,   b odd

Each term is a bijection of its word. So a change of one word always changes both sums;
a change of several words leaves both unchanged with a probability of about 2**-64. The
sum of integers does not depend on their order, so the digest does not depend on mesh,
sharding or platform. Name, type and shape of the array are mixed in at the end.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, UInt32

from ctp_jax.train.distributed import coordination
from ctp_jax.train.state import describe

# Not chosen freely: the first 32 bits of the fractions of sqrt(2), sqrt(3), sqrt(5),
# sqrt(7).
_STREAMS = ((0x6A09E667, 0xBB67AE85), (0x3C6EF372, 0xA54FF53A))
_GOLDEN = 0x9E3779B9
_EXPONENT = 0x7F800000  # of float32: all ones in what is not finite
_ROW = 1024  # words


class Measured(NamedTuple):
    """Digests of a tree, and reasons not to save it.

    Attributes:
        digests: {path: 16 hexadecimal digits}. If the copies on this process's devices
            differ, that of a copy that differs from the first.
        not_finite: paths of leaves with an infinity or a NaN.
        differing: paths of leaves whose copies on this process's devices differ.
    """

    digests: dict[str, str]
    not_finite: list[str]
    differing: list[str]


def measure(tree: Any) -> Measured:
    """Digests of all leaves, and which leaves should not be saved.

    Args:
        tree: of JAX or NumPy arrays; with several processes, each leaf is on all of
            them, and all call this.
    """
    kinds = describe(tree)
    if not kinds:
        return Measured({}, [], [])
    leaves = jax.tree.leaves(tree)
    # Without x64, JAX would cut 64-bit NumPy arrays to 32 bits.
    with jax.enable_x64(True):
        sums, finite = _program(_replicated(leaves))(leaves, _rows(leaves))
    (sums, odd), finite = _odd_copy(sums), np.asarray(finite)
    digests = {
        path: _name_in(f"{path} {kind}", row)
        for (path, kind), row in zip(kinds.items(), sums, strict=True)
    }
    return Measured(
        digests,
        [path for path, good in zip(kinds, finite, strict=True) if not good],
        [path for path, differs in zip(kinds, odd, strict=True) if differs],
    )


def disagreement(measured: Measured) -> tuple[str, int] | None:
    """The first leaf that differs between devices or processes.

    Args:
        measured: of the same tree on every process; all call this.

    Returns:
        (path, index of a process that differs), or None; the same on every process.
    """
    first = coordination.from_first("digests", measured.digests)
    paths = dict.fromkeys([*first, *measured.digests])
    mine = next(
        (
            path
            for path in paths
            if path in measured.differing
            or first.get(path) != measured.digests.get(path)
        ),
        "",
    )
    found = coordination.gather("digests", mine)
    return next(((path, i) for i, path in enumerate(found) if path), None)


def difference(stored: Mapping[str, str], tree: Any) -> str:
    """The first leaf of a tree whose digest is not the stored one.

    Args:
        stored: digests, from `measure`.
        tree: as for `measure`.

    Returns:
        Its path, or '' if all agree.
    """
    found = measure(tree).digests
    for path in dict.fromkeys([*stored, *found]):
        if stored.get(path) != found.get(path):
            return path
    return ""


def _replicated(leaves: list[Any]) -> NamedSharding | None:
    """A copy on every device of the mesh, which each process can read."""
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding):
            return NamedSharding(leaf.sharding.mesh, PartitionSpec())
    return None


@functools.cache
def _program(sharding: NamedSharding | None) -> Callable:
    return jax.jit(_sums, out_shardings=sharding)


class _Rows(NamedTuple):
    """Rows of `_ROW` words that hold all leaves, each starting at a new row.

    Attributes:
        leaf: number of the row's leaf.
        first: position of the row's first word in its leaf, modulo 2**32.
        length: words of the row that belong to the leaf; the rest is padding.
    """

    leaf: np.ndarray
    first: np.ndarray
    length: np.ndarray


def _rows(leaves: list[Any]) -> _Rows:
    counts = [leaf.size * max(1, leaf.dtype.itemsize // 4) for leaf in leaves]
    rows = [-(-count // _ROW) for count in counts]
    first = np.concatenate([np.arange(n, dtype=np.int64) * _ROW for n in rows])
    length = np.minimum(np.repeat(np.array(counts, np.int64), rows) - first, _ROW)
    leaf = np.repeat(np.arange(len(leaves), dtype=np.int32), rows)
    return _Rows(leaf, first.astype(np.uint32), length.astype(np.uint32))


# All leaves are put into one matrix: the arithmetic is then compiled once, while one
# program part per leaf would take seconds to compile. This costs a copy of the tree, and
# leaves that are split over devices are gathered.
def _sums(
    leaves: list[Any], rows: _Rows
) -> tuple[UInt32[Array, "n 2"], Bool[Array, " n"]]:
    parts = []
    for leaf in leaves:
        words = _words(leaf).reshape(-1)
        parts += [words, jnp.zeros(-words.size % _ROW, jnp.uint32)]
    words = jnp.concatenate(parts).reshape(len(rows.leaf), _ROW)
    column = jnp.arange(_ROW, dtype=jnp.uint32)
    position = jnp.asarray(rows.first)[:, None] + column
    counts = column < rows.length[:, None]
    sums = []
    for first, second in _STREAMS:
        a = _mix(position * jnp.uint32(_GOLDEN) + jnp.uint32(first))
        b = (a * jnp.uint32(_GOLDEN) + jnp.uint32(second)) | 1
        terms = jnp.where(counts, _mix(words ^ a) * b, jnp.uint32(0))
        sums.append(jnp.sum(terms, axis=1, dtype=jnp.uint32))
    # The padding is zeros, which are finite.
    odd = (words & _EXPONENT == _EXPONENT).any(1)
    sums = [*sums, odd.astype(jnp.uint32)]
    *sums, odd = (
        jax.ops.segment_sum(each, rows.leaf, len(leaves), indices_are_sorted=True)
        for each in sums
    )
    finite = [_is_finite(leaf, words == 0) for leaf, words in zip(leaves, odd)]
    return jnp.stack(sums, axis=1), jnp.stack(finite)


def _is_finite(leaf: Array, as_words: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether a leaf is finite; `as_words`: whether it would be as float32."""
    if leaf.dtype == jnp.float32:
        return as_words
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.array(True)
    return jnp.isfinite(leaf).all()


def _words(leaf: Array) -> UInt32[Array, "..."]:
    """An array as 32-bit words; wider elements become a last axis, low word first."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    bits = 8 * leaf.dtype.itemsize
    if bits < 32:
        narrow = jnp.dtype(f"uint{bits}")
        return jax.lax.bitcast_convert_type(leaf, narrow).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32)


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of words: the finalizer of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _odd_copy(
    sums: jax.Array,
) -> tuple[UInt32[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
    """Compares the copies of the sums on this process's devices.

    Returns:
        (sums of the first device, or of one that differs from it; whether one does).
    """
    copies = [np.asarray(shard.data) for shard in sums.addressable_shards]
    chosen, odd = copies[0].copy(), np.zeros(len(copies[0]), bool)
    for copy in copies[1:]:
        rows = (copy != copies[0]).any(axis=1)
        chosen[rows] = copy[rows]
        odd |= rows
    return chosen, odd


def _name_in(name: str, sums: np.ndarray) -> str:
    """Mixes name, type and shape of an array into its sums, without collisions."""
    about = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], "<u4")
    return "".join(f"{word:08x}" for word in (sums ^ about).tolist())
