"""Search against brute force in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.evaluators import nearest

# Some divide the numbers of rows, some do not, some exceed them.
BLOCKS = [(1024, 8192), (4, 5), (7, 16)]


def brute_force(queries, gallery, k, exclude=None):
    """Rows and similarities: the larger first, of equal ones the lower row."""
    rows, similarities = [], []
    for i, query in enumerate(queries.astype(np.float64)):
        ranked = []
        for j, row in enumerate(gallery.astype(np.float64)):
            lengths = np.sqrt(sum(query**2)) * np.sqrt(sum(row**2))
            if exclude is None or exclude[i] != j:
                ranked.append((-(sum(query * row) / lengths if lengths else 0.0), j))
        ranked = sorted(ranked)[:k]
        rows.append([j for _, j in ranked])
        similarities.append([-value for value, _ in ranked])
    return np.array(similarities), np.array(rows)


def make(seed=0, q=23, g=60, d=17, dtype=np.float32):
    rng = np.random.default_rng(seed)
    queries, gallery = rng.normal(size=(q, d)), rng.normal(size=(g, d))
    return queries.astype(dtype), gallery.astype(dtype)


def assert_finds(queries, gallery, k, exclude=None):
    expected = brute_force(queries, gallery, k, exclude)
    for query_block, gallery_block in BLOCKS:
        similarity, row = nearest.search(
            queries,
            gallery,
            k,
            exclude=exclude,
            query_block=query_block,
            gallery_block=gallery_block,
        )
        np.testing.assert_array_equal(row, expected[1])
        np.testing.assert_allclose(similarity, expected[0], rtol=0, atol=2e-6)
        assert similarity.dtype == np.float32


@pytest.mark.parametrize(
    "k, dtype", [(1, np.float32), (6, np.float16), (60, np.float32)]
)
def test_it_finds_what_brute_force_finds(k, dtype):
    assert_finds(*make(dtype=dtype), k)


def test_equal_rows_tie_and_the_lower_one_comes_first():
    queries, gallery = make(1)
    # Copies lie in different blocks and at different places in them.
    gallery[[3, 11, 37, 59]] = gallery[20]
    gallery[[0, 58]] = gallery[30]
    queries[:5], queries[5:8] = gallery[20] * 2, gallery[30]
    for k in (3, 20):
        assert_finds(queries, gallery, k)
    similarity, row = nearest.search(queries, gallery, 5, gallery_block=7)
    assert row[0].tolist() == [3, 11, 20, 37, 59]
    assert len(set(similarity[0].tolist())) == 1


def test_equal_rows_tie_where_products_depend_on_the_place(monkeypatch):
    """Libraries round the last bits of a product by where in a block it stands."""
    exact = jnp.matmul

    def uneven(a, b, **kwargs):
        products = exact(a, b, **kwargs)
        return products + 1e-4 * jnp.sin(jnp.arange(products.size)).reshape(
            products.shape
        )

    _, gallery = make(7, d=23)
    gallery[:, 3] = 0.0
    copies = [3, 11, 20, 37, 59]
    gallery[copies] = gallery[20]
    gallery[11, 3] = -0.0
    monkeypatch.setattr(jnp, "matmul", uneven)
    nearest._merge.clear_cache()
    try:
        for block in (5, 7, 16):
            similarity, row = nearest.search(
                gallery[20:21], gallery, 5, gallery_block=block
            )
            assert row[0].tolist() == copies
            assert len(set(similarity[0].tolist())) == 1
    finally:
        nearest._merge.clear_cache()


def test_more_copies_than_neighbours():
    queries, gallery = make(2)
    gallery[10:50] = gallery[10]
    gallery[15, 0] = gallery[10, 0]
    queries[3] = gallery[10]
    assert_finds(queries, gallery, 4)
    exclude = np.full(len(queries), -1)
    exclude[3], exclude[4] = 11, 10
    assert_finds(queries, gallery, 4, exclude)


def test_rows_of_zeros_have_similarity_zero():
    queries, gallery = make(3)
    gallery[[2, 40]] = 0.0
    gallery[40, ::2] = -0.0  # equal to 0, yet other bytes
    queries[[0, 22]] = 0.0
    for k in (4, 60):
        assert_finds(queries, gallery, k)


def test_orthogonal_rows_tie_whatever_the_sign_of_zero():
    gallery = np.array([[-1, 0], [0, 2], [-3, 0], [1, 0], [0, -1]], np.float32)
    queries = np.array([[0, 1], [0, -1], [1, 0], [-1, 0]], np.float32)
    assert_finds(queries, gallery, 5)
    # Of one feature alone a product is no sum, and its zeros may have a sign.
    assert_finds(queries[:, :1], gallery[:, :1], 3)


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
    assert_finds(gallery, gallery, 60, np.full(60, -1))


def test_one_row_and_no_query():
    queries, gallery = make(g=1)
    assert_finds(queries, gallery, 1)
    similarity, row = nearest.search(queries[:0], gallery, 1)
    assert similarity.shape == row.shape == (0, 1)


def test_compiled_once_whatever_the_last_blocks_are():
    queries, gallery = make(6, d=19)
    before = nearest._merge._cache_size()
    nearest.search(queries, gallery, 3, query_block=5, gallery_block=7)
    assert nearest._merge._cache_size() - before <= 3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 61}, "has 60 rows to find"),
        ({"k": 0}, "at least one"),
        ({"k": 60, "exclude": np.arange(23)}, "has 59 rows to find"),
        ({"nan": "queries"}, "query 13: the encoder gave features"),
        ({"nan": "gallery"}, "gallery row 13: the encoder gave features"),
    ],
)
def test_mistakes_get_one_line(change, message):
    queries, gallery = make()
    arguments = {"k": 3, **change}
    broken = arguments.pop("nan", None)
    if broken:
        (queries if broken == "queries" else gallery)[13, 2] = np.nan
    with pytest.raises(UserError, match=message) as raised:
        nearest.search(queries, gallery, **arguments, query_block=6, gallery_block=6)
    assert "\n" not in str(raised.value)
