"""Metrics, their baselines and standard errors."""

import math

import pytest

from ctp_jax import results


def test_baselines_and_videos_stand_beside_their_metrics():
    values = {"x/top1": 0.5, "x/top1_chance": 0.25, "x/videos": 16.0, "x/top3": 0.75}
    values |= {"iou": 0.6, "iou_stay_put": 0.5, "videos": 8.0, "odd_chance": 0.1}
    found = results.results(values)
    assert list(found) == ["x/top1", "x/top3", "iou", "odd_chance"]
    assert found["x/top1"] == results.Result("x/top1", 0.5, 0.25, "chance", (), 16)
    assert found["x/top1"].error == pytest.approx(math.sqrt(0.5 * 0.5 / 16))
    assert found["x/top3"].error == pytest.approx(math.sqrt(0.75 * 0.25 / 16))
    assert found["iou"].error is None and found["iou"].standing == results.BETTER


@pytest.mark.parametrize(
    "name, value, baseline, standing",
    [
        ("center_error", 4.0, 5.0, "better"),
        ("eval_loss", 3.0, 2.0, "worse"),
        ("top1", None, 0.5, ""),
        ("top1", 0.5, None, ""),
        # All of four videos are right, by chance half: the error is that of chance, 25 %.
        ("top1", 1.0, 0.5, "even"),
    ],
)
def test_standing(name, value, baseline, standing):
    assert results.Result(name, value, baseline, videos=4).standing == standing


def test_every_metric_of_ours_is_explained():
    for name in results.MAIN:
        assert results.meaning(name), name
    assert results.meaning("pitch") == ""
