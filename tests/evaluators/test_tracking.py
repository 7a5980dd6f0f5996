import numpy as np
import pytest

from ctp_jax.evaluators import tracking, tracks


def iou(a, b):
    """Of two boxes, in float64."""
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(width, 0.0) * max(height, 0.0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return both / (sum(areas) - both)


def test_success_auc_counts_thresholds():
    iou = np.array([0.0, 0.52, 1.0])
    by_hand = np.mean([[v > k / 20 for k in range(21)] for v in iou])
    assert tracking.success(iou).mean() == pytest.approx(by_hand)


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
    pairs = zip(predicted.reshape(-1, 4), truth.reshape(-1, 4), strict=True)
    expected = np.reshape([iou(*pair) for pair in pairs], truth.shape[:-1])
    assert whole["iou"] == pytest.approx(expected.mean())
    np.testing.assert_allclose(whole["iou_per_frame"], expected.mean((0, 1)))
    moved = (predicted - truth).reshape(-1, 2, 2).mean(axis=1)
    distance = np.hypot(moved[:, 0], moved[:, 1])
    root, found = (
        np.sqrt(np.maximum(each[..., 2:] - each[..., :2], 0).prod(-1).ravel())
        for each in (truth, predicted)
    )
    assert whole["center_error"] == pytest.approx(distance.mean())
    assert whole["size_error_share"] == pytest.approx(np.abs(found / root - 1).mean())
    stay = [iou(row[0], box) for row in truth.reshape(-1, 4, 4) for box in row]
    assert whole["iou_stay_put"] == pytest.approx(np.mean(stay))
    assert whole["iou_per_frame_stay_put"][0] == pytest.approx(1.0)
    gains = (expected.ravel() - stay).reshape(7, 8).mean(axis=1)
    error = np.sqrt(((gains - gains.mean()) ** 2).sum() / 6 / 7)
    assert whole["iou_gain_error"] == pytest.approx(error)
    for name, value in whole.items():
        np.testing.assert_allclose(pieces[name], value, err_msg=name)


def test_boxes_without_weight_do_not_count():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (5, 2, 4, 2))
    truth = np.concatenate([low, low + rng.uniform(5, 30, low.shape)], -1)
    predicted = truth + rng.normal(0, 3, truth.shape)
    weights = rng.random((5, 2, 4)) < 0.6
    weights[:, :, 3] = False
    evaluator = tracking.TrackingEvaluator()
    evaluator.update(
        {"mask": np.ones(5)},
        {
            "boxes": np.where(weights[..., None], truth, 1e6),
            "predicted": predicted,
            "query": truth[:, :, 0],
            "weights": weights.astype(np.float32),
        },
    )
    found = dict(evaluator.results())
    pairs = zip(predicted.reshape(-1, 4), truth.reshape(-1, 4), strict=True)
    every = np.reshape([iou(*pair) for pair in pairs], weights.shape)
    assert found["iou"] == pytest.approx(every[weights].mean())
    expected = [every[..., t][weights[..., t]].mean() for t in range(3)]
    np.testing.assert_allclose(found["iou_per_frame"], [*expected, np.nan])


def test_the_error_of_a_gain_weighs_videos_by_their_boxes():
    """Against resampling the videos; of 120 with 1 to 40 boxes, long ones gain more."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 40, 120)
    totals = counts * (0.01 * counts + rng.normal(0, 0.3, 120))
    rows = rng.integers(0, 120, (20_000, 120))
    resampled = totals[rows].sum(axis=1) / counts[rows].sum(axis=1)
    assert tracks.gain_error(totals, counts) == pytest.approx(resampled.std(), rel=0.05)
    one = np.array([0.0, 6.0]), np.array([0, 3])  # of one video nothing is known
    assert tracks.gain_error(*one) == pytest.approx(2.0)
    assert tracks.gain_error(np.zeros(2), np.zeros(2)) is None
