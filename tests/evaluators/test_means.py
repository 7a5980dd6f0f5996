"""Means of numbers that a task says of each video."""

import numpy as np

from ctp_jax.evaluators import means


def test_the_mean_is_over_videos_and_not_over_batches_or_padding():
    rng = np.random.default_rng(0)
    loss, hit = rng.normal(size=(2, 11)).astype(np.float32)
    evaluator = means.MeansEvaluator()
    for _ in range(2):  # the second pass begins anew
        evaluator.reset()
        for rows in (slice(0, 8), slice(8, 11)):
            mask = np.zeros(8)
            mask[: len(loss[rows])] = 1

            def padded(values, rows=rows):
                return np.resize(values[rows], 8)

            outputs = {"eval_loss": padded(loss), "top1": padded(hit)}
            outputs["other"] = np.zeros((8, 2))
            evaluator.update({"mask": mask}, outputs)
    found = dict(evaluator.results())
    assert set(found) == {"eval_loss", "top1"}
    np.testing.assert_allclose(found["eval_loss"], np.mean(loss, dtype=float))
    np.testing.assert_allclose(found["top1"], np.mean(hit, dtype=float))
