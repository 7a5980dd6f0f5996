import numpy as np
import pytest

from ctp_jax.evaluators import tracking


def test_iou_of_known_boxes():
    a = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1]], float)
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6], [1, 1, 1, 1]], float)
    np.testing.assert_allclose(tracking.iou_xyxy(a, b), [1 / 7, 1, 0, 0])


def test_success_auc_counts_thresholds():
    iou = np.array([0.0, 0.52, 1.0])
    by_hand = np.mean([[v > k / 20 for k in range(21)] for v in iou])
    assert tracking.success_auc(iou) == pytest.approx(by_hand)


def test_results_ignore_padding_and_batching():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (7, 2, 4, 2))
    truth = np.concatenate([low, low + rng.uniform(5, 30, low.shape)], -1)
    predicted = truth + rng.normal(0, 3, truth.shape)

    def run(sizes):
        evaluator = tracking.TrackingEvaluator()
        evaluator.reset()
        start = 0
        for size in sizes:
            rows = slice(start, start + size)
            padding = 8 - size
            garbage = np.full((padding, 2, 4, 4), 1e6)
            evaluator.update(
                {"mask": np.r_[np.ones(size), np.zeros(padding)]},
                {
                    "boxes": np.concatenate([truth[rows], garbage]),
                    "predicted": np.concatenate([predicted[rows], -garbage]),
                    "query": np.concatenate([truth[rows, :, 0], garbage[:, :, 0]]),
                },
            )
            start += size
        return dict(evaluator.results())

    whole, pieces = run([7]), run([3, 4])
    expected = tracking.iou_xyxy(predicted, truth)
    assert whole["iou"] == pytest.approx(expected.mean())
    np.testing.assert_allclose(whole["iou_per_frame"], expected.mean((0, 1)))
    stay = tracking.iou_xyxy(np.repeat(truth[:, :, :1], 4, axis=2), truth)
    assert whole["iou_stay_put"] == pytest.approx(stay.mean())
    assert whole["iou_per_frame_stay_put"][0] == pytest.approx(1.0)
    for name, value in whole.items():
        np.testing.assert_allclose(pieces[name], value, err_msg=name)
