"""The nearest rows of a large set by cosine similarity, exactly, by brute force.

Symbols: q queries, g gallery rows, d features, k neighbours, b and n rows of a block.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ctp_jax import terminal


def search(
    queries: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    k: int,
    *,
    exclude: Int[np.ndarray, " q"] | None = None,
    query_block: int = 1024,
    gallery_block: int = 8192,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The k gallery rows with the largest cosine similarity to each query.

    The host holds both matrices; the default device holds one block of each at a time.
    Products are float32 at full precision. A row of zeros has similarity 0 to all rows.

    Args:
        queries: float32, finite.
        gallery: likewise.
        k: how many; no more than there are rows that a query may find.
        exclude: for each query a gallery row that it must not find, -1 for none.
        query_block: queries on the device at a time.
        gallery_block: gallery rows on the device at a time.

    Returns:
        Similarities, float32, in descending order, and gallery rows, int32.
    """
    if exclude is None:
        exclude = np.full(len(queries), -1)
    similarity = np.full((len(queries), k), -np.inf, np.float32)
    row = np.full((len(queries), k), -1, np.int32)
    # The inner loop is over queries: so a gallery block is sent to the device only once.
    starts = range(0, len(gallery), gallery_block)
    for start in terminal.progress(starts, "search", len(starts), unit="blocks"):
        block = _normalise(jax.device_put(gallery[start : start + gallery_block]))
        for first in range(0, len(queries), query_block):
            part = slice(first, first + query_block)
            found = _merge(
                queries[part], block, start, exclude[part], similarity[part], row[part]
            )
            similarity[part], row[part] = jax.device_get(found)
    return np.clip(similarity, -1.0, 1.0), row


@jax.jit
def _normalise(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows of length one; zeros stay zeros."""
    # Scaled first: squares of very large or small features are out of float32's range.
    peak = jnp.abs(rows).max(axis=1, keepdims=True)
    rows = rows / jnp.where(peak > 0, peak, 1.0)
    length = jnp.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows / jnp.where(length > 0, length, 1.0)


@jax.jit
def _merge(
    queries: Float[Array, "b d"] | np.ndarray,
    gallery: Float[Array, "n d"],
    start: Int[Array, ""] | int,
    exclude: Int[Array, " b"] | np.ndarray,
    similarity: Float[Array, "b k"] | np.ndarray,
    row: Int[Array, "b k"] | np.ndarray,
) -> tuple[Float[Array, "b k"], Int[Array, "b k"]]:
    """The nearest rows among those found so far and one block of the gallery.

    Args:
        queries: not normalised.
        gallery: the block, normalised.
        start: the number of the block's first row.
        exclude: the row that each query must not find.
        similarity: of the nearest rows so far, in descending order.
        row: the numbers of these rows.
    """
    products = jnp.matmul(
        _normalise(queries), gallery.T, precision=lax.Precision.HIGHEST
    )
    column = start + jnp.arange(len(gallery))
    products = jnp.where(column == exclude[:, None], -jnp.inf, products)
    k = similarity.shape[1]
    similarity = jnp.concatenate([similarity, products], axis=1)
    row = jnp.concatenate([row, jnp.broadcast_to(column, products.shape)], axis=1)
    similarity, chosen = lax.top_k(similarity, k)
    return similarity, jnp.take_along_axis(row, chosen, axis=1)
