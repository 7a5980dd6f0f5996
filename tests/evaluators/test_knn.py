"""Weighted k-NN against loops in float64."""

import math

import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.evaluators import feature_bank, knn, nearest, retrieval
from tests.evaluators import made_features as made


def expected(queries, gallery, k, temperature, top):
    """Share of queries whose class is among the `top` with the most votes."""
    right = []
    for feature, label in zip(*queries, strict=True):
        if label < 0:
            continue
        votes = {}
        for similarity, number in made.ranked(feature, gallery[0])[:k]:
            if gallery[1][number] >= 0:
                weight = math.exp(similarity / temperature)
                voted = votes.get(gallery[1][number], 0.0)
                votes[gallery[1][number]] = voted + weight
        order = sorted(votes, key=lambda name: (-votes[name], name))
        right.append(label in order[:top])
    return np.mean(right)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (20, 0.07), (20, 1.0), (60, 5)])
def test_it_is_the_share_of_queries_that_are_voted_for(k, temperature):
    # Eleven classes, so that five of them are not all of them.
    queries, gallery = made.make(1, queries=40, classes=11)
    results = made.run([knn.KNNEvaluator(k, temperature)], queries, gallery)
    for top in (1, 5):
        value = expected(queries, gallery, k, temperature, top)
        assert results[f"knn_top{top}"] == pytest.approx(value)
        assert 0 < value < 1


def test_many_queries_are_counted_in_blocks(monkeypatch):
    monkeypatch.setattr(knn, "_BLOCK", 7)
    queries, gallery = made.make(2, classes=8)
    results = made.run([knn.KNNEvaluator(9, 0.5)], queries, gallery)
    for top in (1, 5):
        value = expected(queries, gallery, 9, 0.5, top)
        assert results[f"knn_top{top}"] == pytest.approx(value)


def test_absent_classes_missing_labels_and_small_galleries():
    queries, gallery = made.make(3, classes=8)
    queries[1][::5], gallery[1][::3] = -1, -1
    gallery[1][gallery[1] == 7] = 6
    for count in (60, 13, 2):
        part = gallery[0][:count], gallery[1][:count]
        results = made.run([knn.KNNEvaluator(20, 0.3)], queries, part)
        labels = part[1][part[1] >= 0]
        sizes = {k: np.sum(labels == k) for k in range(8)}
        ranked = sorted(sizes, key=lambda k: -sizes[k])
        some = len(set(labels.tolist())) > 5
        assert ("knn_top5" in results) == some
        for top in (1, 5) if some else (1,):
            value = expected(queries, part, 20, 0.3, top)
            assert results[f"knn_top{top}"] == pytest.approx(value)
            own = queries[1][queries[1] >= 0]
            guess = np.mean([label in ranked[:top] for label in own])
            assert results[f"knn_top{top}_chance"] == pytest.approx(guess)


def test_equal_votes_go_to_the_lower_class():
    queries = np.eye(3, dtype=np.float32)[:1].repeat(3, 0), np.array([1, 4, 2])
    gallery = np.eye(3, dtype=np.float32)[[0, 0]], np.array([4, 1])
    results = made.run([knn.KNNEvaluator(2)], queries, gallery)
    assert results["knn_top1"] == pytest.approx(1 / 3)
    # Of 1 and 4, which have a gallery video each, the first is guessed: one of three.
    assert results["knn_top1_chance"] == pytest.approx(1 / 3)
    assert "knn_top5" not in results and results["knn_videos"] == 3


def test_chance_of_equal_classes_of_one_split_is_that_of_always_the_same_one():
    features = np.random.default_rng(0).normal(size=(20, 9)).astype(np.float32)
    videos = features, np.arange(20) % 2
    split = made.records(videos[1])
    bank = feature_bank.FeatureBank(split, split)
    results = made.run([knn.KNNEvaluator(bank=bank)], videos, videos)
    assert results["knn_top1_chance"] == pytest.approx(0.5)


def test_a_tiny_temperature_is_the_nearest_neighbour():
    queries, gallery = made.make(4)
    results = made.run([knn.KNNEvaluator(20, 1e-6)], queries, gallery)
    value = expected(queries, gallery, 1, 1.0, 1)
    assert results["knn_top1"] == pytest.approx(value)


def test_evaluators_with_one_bank_store_and_search_once(monkeypatch):
    queries, gallery = made.make(5)
    searches = []

    def search(*args, **kwargs):
        searches.append([len(part) for part in args[:2]])
        return real(*args, **kwargs)

    real = nearest.search
    monkeypatch.setattr(nearest, "search", search)
    bank = feature_bank.FeatureBank()
    both = [
        knn.KNNEvaluator(20, 0.3, bank=bank),
        retrieval.RetrievalEvaluator((1, 50), bank=bank),
    ]
    for _ in range(2):
        together = made.run(both, queries, gallery)
    assert searches == [[23, 60], [23, 60]]
    alone = made.run([knn.KNNEvaluator(20, 0.3)], queries, gallery)
    alone |= made.run([retrieval.RetrievalEvaluator((1, 50))], queries, gallery)
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        np.testing.assert_array_equal(together[name], value)


@pytest.mark.parametrize(
    "arguments, message", [((0,), "at least 1"), ((5, 0.0), "must be above 0")]
)
def test_mistakes_get_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        knn.KNNEvaluator(*arguments)
