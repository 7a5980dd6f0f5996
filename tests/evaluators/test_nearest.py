"""Search against brute force in float64."""

import numpy as np
import pytest

from ctp_jax.evaluators import nearest

# Some divide the numbers of rows, some do not, some exceed them.
BLOCKS = [(1024, 8192), (4, 5), (7, 16)]


def cosines(queries, gallery):
    """(q, g), a pair at a time."""
    found = np.zeros((len(queries), len(gallery)))
    for i, query in enumerate(queries.astype(np.float64)):
        for j, row in enumerate(gallery.astype(np.float64)):
            lengths = np.sqrt(sum(query**2)) * np.sqrt(sum(row**2))
            found[i, j] = sum(query * row) / lengths if lengths else 0.0
    return found


def make(seed=0, q=23, g=60, d=17):
    rng = np.random.default_rng(seed)
    queries, gallery = rng.normal(size=(q, d)), rng.normal(size=(g, d))
    return queries.astype(np.float32), gallery.astype(np.float32)


def assert_finds(queries, gallery, k, exclude=None):
    """The similarities of brute force, at rows that have them, each row once.

    Rows of the same similarity may come in any order.
    """
    expected = cosines(queries, gallery)
    if exclude is not None:
        asked = np.flatnonzero(exclude >= 0)
        expected[asked, exclude[asked]] = -np.inf
    largest = -np.sort(-expected, axis=1)[:, :k]
    for query_block, gallery_block in BLOCKS:
        similarity, row = nearest.search(
            queries,
            gallery,
            k,
            exclude=exclude,
            query_block=query_block,
            gallery_block=gallery_block,
        )
        at_rows = np.take_along_axis(expected, row, axis=1)
        for found in (similarity, at_rows):
            np.testing.assert_allclose(found, largest, rtol=0, atol=2e-6)
        assert all(len(set(found)) == k for found in row.tolist())
        assert (np.diff(similarity, axis=1) <= 0).all()
        assert similarity.dtype == np.float32 and row.dtype == np.int32


@pytest.mark.parametrize("k", [1, 6, 60])
def test_it_finds_what_brute_force_finds(k):
    assert_finds(*make(), k)


def test_rows_come_in_the_order_of_brute_force():
    queries, gallery = make(1)
    expected = np.argsort(-cosines(queries, gallery), axis=1)
    for query_block, gallery_block in BLOCKS:
        blocks = {"query_block": query_block, "gallery_block": gallery_block}
        _, row = nearest.search(queries, gallery, 60, **blocks)
        np.testing.assert_array_equal(row, expected)


def test_every_copy_of_a_row_is_found():
    queries, gallery = make(2)
    # In different blocks and at different places in them.
    copies = [3, 11, 20, 37, 59]
    gallery[copies] = gallery[20]
    queries[:5] = gallery[20] * 2
    for k in (3, 20):
        assert_finds(queries, gallery, k)
    _, row = nearest.search(queries, gallery, 5, gallery_block=7)
    assert sorted(row[0].tolist()) == copies


def test_rows_of_zeros_have_similarity_zero():
    queries, gallery = make(3)
    gallery[[2, 40]] = 0.0
    queries[[0, 22]] = 0.0
    for k in (4, 60):
        assert_finds(queries, gallery, k)


def test_very_large_and_very_small_features():
    queries, gallery = make(4)
    scale = 10.0 ** np.linspace(-30, 30, len(gallery))[:, None]
    gallery = (gallery * scale).astype(np.float32)
    assert_finds(queries * np.float32(1e25), gallery, 7)


def test_nothing_finds_what_it_must_not():
    _, gallery = make(5)
    gallery[7] = gallery[5]
    exclude = np.arange(60)
    exclude[::9] = -1
    assert_finds(gallery, gallery, 5, exclude)
    assert_finds(gallery, gallery, 59, exclude)
    _, row = nearest.search(gallery, gallery, 59, exclude=exclude, gallery_block=7)
    assert not (row == exclude[:, None]).any()
    assert_finds(gallery, gallery, 60, np.full(60, -1))


def test_one_row_and_no_query():
    queries, gallery = make(g=1)
    assert_finds(queries, gallery, 1)
    similarity, row = nearest.search(queries[:0], gallery, 1)
    assert similarity.shape == row.shape == (0, 1)


def test_compiled_once_for_each_shape_of_a_block():
    queries, gallery = make(6, d=19)
    before = nearest._merge._cache_size()
    nearest.search(queries, gallery, 3, query_block=5, gallery_block=7)
    # Whole blocks and the last one, on both sides.
    assert nearest._merge._cache_size() - before == 4
