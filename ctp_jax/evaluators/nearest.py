"""The nearest rows of a large set by cosine similarity, exactly, by brute force.

Symbols: q queries, g gallery rows, d features, u distinct gallery rows, k neighbours.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ctp_jax.errors import UserError


class _Distinct(NamedTuple):
    """Which rows of a gallery are the same.

    Attributes:
        first: (u,) the first row of each kind, ascending.
        members: (u, m) the rows of each kind, ascending, -1 where there are fewer.
    """

    first: Int[np.ndarray, " u"]
    members: Int[np.ndarray, "u m"]


def search(
    queries: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    k: int,
    *,
    exclude: Int[np.ndarray, " q"] | None = None,
    query_block: int = 1024,
    gallery_block: int = 8192,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The k gallery rows of the largest cosine similarity to each query.

    The host holds both matrices. The default device sees them in blocks: at a time
    at most three of the gallery, three of queries, and the products of one with one.
    Products are float32 at full precision.

    Gallery rows that are the same are compared once and share their similarity, so
    that they tie wherever the blocks are cut. Ties go to the lower row. A row of
    zeros has similarity 0 to everything.

    Args:
        queries: float16 or float32.
        gallery: likewise.
        k: how many.
        exclude: for each query a gallery row that it must not find, -1 for none.
        query_block: queries on the device at a time.
        gallery_block: gallery rows on the device at a time.

    Returns:
        Similarities, float32, falling, and gallery rows, int32.

    Raises:
        UserError: the gallery has too few rows, or a feature is not finite.
    """
    some_excluded = exclude is not None and bool((exclude >= 0).any())
    available = len(gallery) - some_excluded
    if not 1 <= k <= available:
        raise UserError(
            f"{k} nearest neighbours: the gallery has {available} rows to find; ask "
            "for at least one and no more than that"
        )
    for rows, start in _blocks(queries, query_block):
        check_finite(rows, lambda row, start=start: f"query {start + row}")
    # An excluded row takes a place in its query's list until it is struck out.
    needed = k + some_excluded
    distinct = _find_distinct(gallery, needed, gallery_block)
    similarity, kind = _search_distinct(
        queries,
        gallery,
        distinct.first,
        min(needed, len(distinct.first)),
        _even_block(len(queries), query_block),
        _even_block(len(distinct.first), gallery_block),
    )
    found = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), int)
    for start in range(0, len(queries), query_block):
        rows = slice(start, start + query_block)
        found[0][rows], found[1][rows] = _name_members(
            similarity[rows],
            distinct.members[kind[rows]],
            exclude[rows] if exclude is not None and some_excluded else None,
            k,
        )
    return np.clip(found[0], -1.0, 1.0), found[1].astype(np.int32)


def check_finite(rows: Float[np.ndarray, "n d"], name: Callable[[int], str]) -> None:
    """Raises `UserError` if a row is not finite, with the name of that row."""
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise UserError(
            f"{name(int(np.argmin(finite)))}: the encoder gave features that are not "
            "finite; has its training diverged? take an earlier checkpoint"
        )


def _blocks(
    rows: Float[np.ndarray, "n d"], size: int
) -> Iterator[tuple[Float[np.ndarray, "_ d"], int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size], start


def _even_block(count: int, most: int) -> int:
    """Rows of a block: blocks of one size, of which the last needs little padding."""
    blocks = max(-(-count // most), 1)
    rows = max(-(-count // blocks), 1)
    # Matrix units like rows in eights.
    return min(-(-rows // 8) * 8, most)


def _find_distinct(
    gallery: Float[np.ndarray, "g d"], most: int, block: int
) -> _Distinct:
    """Sorts rows by what is in them; of each kind the first `most` rows are listed.

    Two products of the same two rows may differ in the last bit, depending on where
    in a block a row lies. Comparing each kind once is what makes equal rows tie.
    """
    kinds: dict[bytes, int] = {}
    kind = np.empty(len(gallery), np.int64)
    for rows, start in _blocks(gallery, block):
        check_finite(rows, lambda row, start=start: f"gallery row {start + row}")
        # Adding 0 makes -0, which equals 0, the same bytes.
        for number, row in enumerate(np.ascontiguousarray(rows) + rows.dtype.type(0)):
            digest = hashlib.blake2b(row, digest_size=16).digest()
            kind[start + number] = kinds.setdefault(digest, len(kinds))
    order = np.argsort(kind, kind="stable")
    sizes = np.bincount(kind, minlength=len(kinds))
    place = np.arange(len(gallery)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members = np.full((len(kinds), min(int(sizes.max()), most)), -1, np.int32)
    listed = place < members.shape[1]
    members[kind[order][listed], place[listed]] = order[listed]
    return _Distinct(members[:, 0], members)


def _search_distinct(
    queries: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    first: Int[np.ndarray, " u"],
    k: int,
    query_block: int,
    gallery_block: int,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """As `search` among the gallery rows `first`, numbered 0 to u - 1.

    The outer loop is over the gallery: each of its blocks is sent once, and all
    queries once for each of them.
    """
    starts = range(0, len(queries), query_block)
    best = [
        (
            np.full((query_block, k), -np.inf, np.float32),
            np.full((query_block, k), -1, np.int32),
        )
        for _ in starts
    ]

    def put(start):
        rows = gallery[first[start : start + gallery_block]]
        return _normalise(_put_padded(rows, gallery_block))

    upcoming, running = put(0), None
    for start in range(0, len(first), gallery_block):
        block, count = upcoming, min(gallery_block, len(first) - start)
        for number, query in enumerate(starts):
            rows = _put_padded(queries[query : query + query_block], query_block)
            best[number] = _merge(rows, block, start, count, *best[number])
            if number == 0 and start + gallery_block < len(first):
                upcoming = put(start + gallery_block)
            # Fetching the result before this one keeps the device one step ahead of
            # the host and no more: what is under way stays within the blocks.
            if running is not None and running != number:
                best[running] = jax.device_get(best[running])
            running = number
    best = jax.device_get(best)
    if not best:
        return np.empty((0, k), np.float32), np.empty((0, k), np.int32)
    similarity, kind = (np.concatenate(part) for part in zip(*best, strict=True))
    return similarity[: len(queries)], kind[: len(queries)]


def _put_padded(rows: Float[np.ndarray, "n d"], size: int) -> Float[Array, "size d"]:
    """Sends rows to the device, zeros below them: one shape, compiled once."""
    missing = ((0, size - len(rows)), (0, 0))
    return jax.device_put(np.pad(rows, missing) if len(rows) < size else rows)


@jax.jit
def _normalise(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows of length one, float32; zeros stay zeros."""
    rows = rows.astype(jnp.float32)
    # Scaled first: squares of very large or small features leave float32's range.
    peak = jnp.abs(rows).max(axis=1, keepdims=True)
    rows = rows / jnp.where(peak > 0, peak, 1.0)
    length = jnp.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows / jnp.where(length > 0, length, 1.0)


@jax.jit
def _merge(
    queries: Float[Array, "b d"],
    gallery: Float[Array, "n d"],
    start: Int[Array, ""] | int,
    count: Int[Array, ""] | int,
    similarity: Float[Array, "b k"] | np.ndarray,
    kind: Int[Array, "b k"] | np.ndarray,
) -> tuple[Float[Array, "b k"], Int[Array, "b k"]]:
    """The best of what was found before and of one block of the gallery.

    Args:
        queries: as they are.
        gallery: normalised; rows from `count` on are padding.
        start: the number of the block's first row.
        count: see `gallery`.
        similarity: the best so far, falling.
        kind: their numbers, below `start`.
    """
    products = jnp.matmul(
        _normalise(queries), gallery.T, precision=lax.Precision.HIGHEST
    )
    # Sorting tells -0 from 0.
    products = jnp.where(products == 0, 0.0, products)
    products = jnp.where(jnp.arange(len(gallery)) < count, products, -jnp.inf)
    k = similarity.shape[1]
    # Of equal values `top_k` takes the first, and what was found before stands first.
    new, column = lax.top_k(products, min(k, len(gallery)))
    similarity, column = (
        jnp.concatenate(pair, axis=1)
        for pair in ((similarity, new), (kind, start + column))
    )
    similarity, chosen = lax.top_k(similarity, k)
    return similarity, jnp.take_along_axis(column, chosen, axis=1)


def _name_members(
    similarity: Float[np.ndarray, "b n"],
    members: Int[np.ndarray, "b n m"],
    exclude: Int[np.ndarray, " b"] | None,
    k: int,
) -> tuple[Float[np.ndarray, "b k"], Int[np.ndarray, "b k"]]:
    """From the n nearest kinds of row to the k nearest rows."""
    struck = members < 0
    if exclude is not None:
        struck |= members == exclude[:, None, None]
    similarity = np.where(struck, -np.inf, similarity[:, :, None])
    similarity = similarity.reshape(len(members), -1).astype(np.float32)
    members = members.reshape(len(members), -1)
    order = np.lexsort((members, -similarity), axis=-1)[:, :k]
    return (
        np.take_along_axis(similarity, order, axis=1),
        np.take_along_axis(members, order, axis=1),
    )
