"""Retrieval against loops in float64; what is kept of it."""

import csv
import itertools

import numpy as np
import pytest
from PIL import Image

from ctp_jax.data import reading
from ctp_jax.errors import UserError
from ctp_jax.evaluators import feature_bank, retrieval
from tests.evaluators import made_features as made


def expected(queries, gallery, k, same=False):
    """Share of queries with a neighbour of their class among k."""
    right = []
    for i, (feature, label) in enumerate(zip(*queries, strict=True)):
        if label < 0:
            continue
        near = made.ranked(feature, gallery[0], i if same else None)[:k]
        right.append(any(gallery[1][j] == label for _, j in near))
    return np.mean(right)


def by_number(results, name):
    """Rows in the order of the queries' record numbers: batches were shuffled."""
    return results[name][np.argsort(results["neighbour_query"])]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_it_is_the_share_of_queries_with_a_right_neighbour(size):
    queries, gallery = made.make()
    evaluator = retrieval.RetrievalEvaluator((1, 2, 5, 20))
    results = made.run([evaluator], queries, gallery, size)
    values = []
    for k in (1, 2, 5, 20):
        values.append(expected(queries, gallery, k))
        assert results[f"retrieval_top{k}"] == pytest.approx(values[-1])
    assert 0.2 < values[0] < values[1] < values[2]  # or nothing was tested
    assert evaluator.notes() == []
    assert sorted(results["neighbour_query"]) == list(range(23))
    near = [made.ranked(feature, gallery[0])[:20] for feature in queries[0]]
    np.testing.assert_array_equal(
        by_number(results, "neighbours"), [[j for _, j in row] for row in near]
    )
    np.testing.assert_allclose(
        by_number(results, "neighbour_similarity"),
        [[value for value, _ in row] for row in near],
        atol=2e-6,
    )


def test_a_second_evaluation_forgets_the_first():
    evaluator = retrieval.RetrievalEvaluator((1, 5))
    made.run([evaluator], *made.make(1, queries=40))
    queries, gallery = made.make(2)
    results = made.run([evaluator], queries, gallery)
    assert len(results["neighbours"]) == 23
    assert results["retrieval_top1"] == pytest.approx(expected(queries, gallery, 1))


def test_a_split_searched_in_itself_does_not_find_itself():
    _, videos = made.make(3)
    split = made.records(videos[1])
    same = retrieval.RetrievalEvaluator((1, 5), split, split)
    results = made.run([same], videos, videos)
    for k in (1, 5):
        value = expected(videos, videos, k, same=True)
        assert results[f"retrieval_top{k}"] == pytest.approx(value)
    assert value < 1.0


def test_a_video_does_not_find_itself_in_a_split_with_other_numbers():
    _, videos = made.make(3)
    part = np.arange(60)[::-3]
    some = videos[0][part], videos[1][part]
    split, whole = made.records(some[1], "some"), made.records(videos[1], "all")
    split.ids = whole.ids[part]
    results = made.run([retrieval.RetrievalEvaluator((1,), split, whole)], some, videos)
    near = [made.ranked(videos[0][i], videos[0], i)[0][1] for i in part]
    np.testing.assert_array_equal(by_number(results, "neighbours")[:, 0], near)
    # In another data set the same name is another video.
    whole.name = "other"
    results = made.run([retrieval.RetrievalEvaluator((1,), split, whole)], some, videos)
    np.testing.assert_array_equal(by_number(results, "neighbours")[:, 0], part)


def test_a_class_that_the_gallery_lacks_is_never_right():
    queries, gallery = made.make(4)
    keep = gallery[1] != 2
    gallery = gallery[0][keep], gallery[1][keep]
    results = made.run(
        [retrieval.RetrievalEvaluator((1, int(keep.sum())))], queries, gallery
    )
    share = np.mean(queries[1] != 2)
    assert share < 1
    assert results[f"retrieval_top{keep.sum()}"] == pytest.approx(share)


def test_a_gallery_that_is_too_small_for_a_k():
    queries, gallery = made.make(5, gallery=7)
    evaluator = retrieval.RetrievalEvaluator((1, 5, 10, 20))
    results = made.run([evaluator], queries, gallery)
    names = [name for name in results if name.startswith("retrieval")]
    chances = ["retrieval_top1_chance", "retrieval_top5_chance"]
    assert names == ["retrieval_top1", "retrieval_top5", *chances, "retrieval_videos"]
    (note,) = evaluator.notes()
    assert "retrieval at 10, 20 is left out: the gallery has only 7" in note
    with pytest.raises(UserError, match="at k = 10: the gallery has only 7 videos"):
        made.run([retrieval.RetrievalEvaluator((10,))], queries, gallery)
    one = gallery[0][:1], gallery[1][:1]
    results = made.run([retrieval.RetrievalEvaluator()], queries, one)
    assert results["retrieval_top1"] == pytest.approx(np.mean(queries[1] == one[1]))


def test_videos_without_a_label_are_no_queries_and_never_right():
    queries, gallery = made.make(6)
    queries[1][::4], gallery[1][::3] = -1, -1
    results = made.run([retrieval.RetrievalEvaluator((1, 5))], queries, gallery)
    for k in (1, 5):
        value = expected(queries, gallery, k)
        assert results[f"retrieval_top{k}"] == pytest.approx(value)
    assert results["retrieval_videos"] == (queries[1] >= 0).sum()


def test_chance_is_that_of_videos_drawn_at_random():
    """All draws are listed: 3 of 9 gallery videos, one of which has no label."""
    queries, gallery = made.make(8, gallery=9, classes=4)
    gallery[1][0] = -1
    results = made.run([retrieval.RetrievalEvaluator((1, 3, 9))], queries, gallery)
    for k in (1, 3, 9):
        draws = [set(d) for d in itertools.combinations(gallery[1].tolist(), k)]
        hits = [np.mean([label in d for d in draws]) for label in queries[1].tolist()]
        assert results[f"retrieval_top{k}_chance"] == pytest.approx(np.mean(hits))


def test_chance_does_not_draw_the_query_itself():
    """Two classes of ten: 9 of the 19 other videos have the class of the query."""
    features = np.random.default_rng(0).normal(size=(20, 9)).astype(np.float32)
    videos = features, np.arange(20) % 2
    split = made.records(videos[1])
    evaluator = retrieval.RetrievalEvaluator((1, 2), split, split)
    results = made.run([evaluator], videos, videos)
    assert results["retrieval_top1_chance"] == pytest.approx(9 / 19)
    missed = (10 / 19) * (9 / 18)
    assert results["retrieval_top2_chance"] == pytest.approx(1 - missed)


def test_chance_where_some_queries_are_in_the_gallery():
    """All draws are listed, of the gallery without the query."""
    _, (features, label) = made.make(8, gallery=12, classes=4)
    label[2] = -1
    # Queries are videos 4 to 11; the gallery, 0 to 7.
    queries, gallery = (features[4:], label[4:]), (features[:8], label[:8])
    sides = made.records(queries[1]), made.records(gallery[1], "train")
    sides[0].ids, sides[1].ids = np.arange(4, 12), np.arange(8)
    results = made.run([retrieval.RetrievalEvaluator((1, 3), *sides)], queries, gallery)
    for k in (1, 3):
        hits = []
        for query in range(4, 12):
            others = [number for number in range(8) if number != query]
            draws = itertools.combinations(label[others].tolist(), k)
            hits.append(np.mean([label[query] in draw for draw in draws]))
        assert results[f"retrieval_top{k}_chance"] == pytest.approx(np.mean(hits))


def test_a_record_that_comes_twice_counts_once():
    queries, gallery = made.make(11)
    evaluator = retrieval.RetrievalEvaluator((1, 5, 60))
    for update, side in (
        (evaluator.update_gallery, gallery),
        (evaluator.update, queries),
    ):
        for seed, rows in ((0, 60), (1, 9), (2, 4)):
            part = side[0][:rows], side[1][:rows]
            for batch, outputs in made.batches(*part, 8, seed):
                update(batch, outputs)
    results = dict(evaluator.results())
    assert results["neighbours"].shape == (23, 60)
    assert results["retrieval_top5"] == pytest.approx(expected(queries, gallery, 5))


def test_mistakes_get_one_line():
    queries, gallery = made.make()
    none = np.full(60, -1)
    with pytest.raises(UserError, match="gallery videos: no labels"):
        made.run([retrieval.RetrievalEvaluator()], queries, (gallery[0], none))
    with pytest.raises(UserError, match="made, split test: no labels"):
        retrieval.RetrievalEvaluator((1,), made.records(none), made.records(none))
    with pytest.raises(UserError, match="do not have the same classes"):
        retrieval.RetrievalEvaluator(
            (1,),
            made.records(queries[1]),
            made.records(gallery[1], "train", "other", ("a", "b")),
        )
    for ks in ((), (0, 5)):
        with pytest.raises(UserError, match="needs numbers of neighbours"):
            retrieval.RetrievalEvaluator(ks)
    gallery[0][31, 2] = np.inf
    with pytest.raises(UserError, match="gallery video, record 31: the encoder gave"):
        made.run([retrieval.RetrievalEvaluator()], queries, gallery)
    bank = feature_bank.FeatureBank(
        made.records(queries[1]), made.records(gallery[1], "train")
    )
    with pytest.raises(UserError, match="gallery video train/video 31: the encoder"):
        made.run([retrieval.RetrievalEvaluator(bank=bank)], queries, gallery)
    evaluator = retrieval.RetrievalEvaluator()
    evaluator.reset()
    with pytest.raises(UserError, match="cannot search for neighbours of . videos"):
        list(evaluator.results())


def test_neighbours_are_written_down(tmp_path, monkeypatch):
    queries, gallery = made.make(9)
    queries[1][3], gallery[1][::2] = -1, -1
    names = (*made.CLASSES, "")  # number -1 has none
    test, train = made.records(queries[1]), made.records(gallery[1], "train")
    asked = []

    def middle_frames(split, numbers):
        numbers = [int(number) for number in numbers]
        asked.append((split.split, numbers))
        return [np.full((30, 40, 3), 3 * number, np.uint8) for number in numbers]

    monkeypatch.setattr(reading, "middle_frames", middle_frames)
    evaluator = retrieval.RetrievalEvaluator((1,), test, train)
    made.run([evaluator], queries, gallery)
    (tmp_path / "results").mkdir()
    evaluator.save(tmp_path / "results")
    with (tmp_path / "results" / "neighbours.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 23
    for i, feature in enumerate(queries[0]):
        own = [row for row in rows if row["query"] == f"test/video {i}"]
        near = made.ranked(feature, gallery[0])[:5]
        assert [row["rank"] for row in own] == list("12345")
        for row, (similarity, number) in zip(own, near, strict=True):
            assert row["neighbour"] == f"train/video {number}"
            assert row["label"] == names[queries[1][i]]
            assert row["neighbour_label"] == names[gallery[1][number]]
            right = row["label"] == row["neighbour_label"] != ""
            assert row["correct"] == str(int(right))
            assert float(row["similarity"]) == pytest.approx(similarity, abs=2e-6)
    drawn = dict(asked)
    assert len(drawn["test"]) == 8 and set(queries[1][drawn["test"]]) == set(range(5))
    for place, number in enumerate(drawn["test"]):
        near = [j for _, j in made.ranked(queries[0][number], gallery[0])[:5]]
        assert drawn["train"][5 * place : 5 * place + 5] == near
    with Image.open(tmp_path / "results" / "neighbours.png") as image:
        assert image.width > 6 * 150 and image.height > 8 * 110


def test_nothing_is_written_without_records(tmp_path):
    queries, gallery = made.make(10)
    evaluator = retrieval.RetrievalEvaluator((1,))
    made.run([evaluator], queries, gallery)
    evaluator.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "labels, count, expected",
    [
        ([3, 1, 2, 0, 1, 3], 2, [3, 0]),
        ([3, 1, 2, 0, 1, 3], 4, [3, 1, 2, 0]),
        ([3, 1, 2, 0, 1, 3], 5, [3, 1, 4, 2, 0]),
        ([0, 0, 0, 5, -1], 3, [0, 1, 3]),
        ([0, 0, 0, 5, -1], 9, [0, 1, 2, 3]),
        (np.arange(100), 8, [0, 14, 28, 42, 57, 71, 85, 99]),
    ],
)
def test_the_queries_shown_are_spread_over_the_classes(labels, count, expected):
    picked = retrieval.spread_over_classes(np.array(labels), count)
    assert picked.tolist() == expected
