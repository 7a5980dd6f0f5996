"""Pairs of clips, against every similarity computed by NumPy."""

import numpy as np
import pytest

from ctp_jax.evaluators import pairs


def run(embedding, masks):
    evaluator = pairs.PairsEvaluator()
    evaluator.reset()
    for rows, mask in zip(np.split(embedding, len(masks)), masks, strict=True):
        evaluator.update({"mask": mask}, {"embedding": rows})
    return dict(evaluator.results())


def test_shares_and_similarities_are_numpys():
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(30, 2, 8))
    embedding[:, 1] += embedding[:, 0]
    embedding /= np.linalg.norm(embedding, axis=-1, keepdims=True)
    masks = np.ones((3, 10))
    masks[2, 6:] = 0  # padding
    found = run(embedding.astype(np.float32), masks)
    real = embedding[:26]
    cosine = real[:, 0] @ real[:, 1].T
    own = np.diag(cosine)
    rank = (cosine > own[:, None]).sum(axis=1)
    assert 0.1 < (rank == 0).mean() < 0.9
    assert found["pair_top1"] == (rank == 0).mean()
    assert found["pair_top5"] == (rank < 5).mean()
    assert (found["pair_top1_chance"], found["pair_top5_chance"]) == (1 / 26, 5 / 26)
    assert found["pair_videos"] == 26
    assert found["pair_similarity"] == pytest.approx(own.mean(), rel=1e-6)
    others = cosine[~np.eye(26, dtype=bool)].mean()
    assert found["other_similarity"] == pytest.approx(others, rel=1e-5)


def test_one_video_and_collapsed_embeddings():
    one = np.eye(4, dtype=np.float32)[:1]
    found = run(np.stack([one, one], axis=1), np.ones((1, 1)))
    assert found["pair_top1"] == 1 and "other_similarity" not in found
    assert "pair_top5" not in found
    found = run(np.repeat(np.stack([one, one], axis=1), 10, axis=0), np.ones((1, 10)))
    assert (found["pair_top1"], found["pair_top5"]) == (0.1, 0.5)
    assert found["other_similarity"] == pytest.approx(found["pair_similarity"])


def test_no_readable_video_gives_no_numbers():
    one = np.eye(4, dtype=np.float32)[:1]
    assert run(np.stack([one, one], axis=1), np.zeros((1, 1))) == {}
