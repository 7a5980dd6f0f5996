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
        # The sizes of the classes are not known, so neither is the error of their mean.
        ("class_accuracy", 0.9, 0.1, ""),
        ("x/class_accuracy", 0.9, 0.1, ""),
    ],
)
def test_standing(name, value, baseline, standing):
    assert results.Result(name, value, baseline, videos=4).standing == standing


def test_a_gain_within_two_standard_errors_is_none():
    values = {"iou": 0.4, "iou_stay_put": 0.41, "iou_gain_error": 0.02, "videos": 3}
    found = results.results(values)
    assert list(found) == ["iou"] and found["iou"].standing == results.EVEN
    found = results.results(values | {"iou_gain_error": 0.002})
    assert found["iou"].standing == results.WORSE
    assert found["iou"]._replace(videos=1).standing == results.EVEN


@pytest.mark.parametrize(
    "name", ["top1", "x/top5", "retrieval_top20", "iou", "eval_loss"]
)
def test_known_metrics(name):
    assert results.is_known(name) and not results.is_known(f"{name}x")


def test_every_metric_of_ours_is_explained():
    for name in results.MAIN:
        assert results.meaning(name), name
    assert results.meaning("pitch") == ""


def test_a_mean_over_classes_has_no_binomial_error():
    """Classes of 98 and 2 videos, half of each right: the error is 18 %, not 5 %."""
    for name in ("class_accuracy", "x/class_accuracy"):
        assert results.Result(name, 0.5, 0.4, videos=100).error is None
    assert results.Result("accuracy", 0.5, 0.4, videos=100).error == pytest.approx(0.05)


def test_evaluators_of_one_run_have_their_own_numbers_of_videos():
    values = {"iou": 0.6, "success_auc": 0.5, "videos": 8.0}
    whole = {"ao": 0.3, "sr50": 0.2, "window_iou": 0.4, "window_iou_all": 0.5}
    whole |= {"track_center_error": 4.0, "sequences_videos": 5}
    both = {name: each.videos for name, each in results.results(values | whole).items()}
    expected = {"iou": 8, "success_auc": 8, "ao": 5, "sr50": 5, "window_iou": 5}
    expected |= {"window_iou_all": 5, "track_center_error": 5}
    assert both == expected
    alone = results.results({f"x/{name}": value for name, value in whole.items()})
    assert {each.videos for each in alone.values()} == {5}
    errors = results.results({"center_error": 4.0, "videos": 8})
    assert errors["center_error"].videos == 8


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_none(bad):
    found = results.results({"top1": bad, "top1_chance": 0.5, "videos": 4})
    assert found["top1"] == results.Result("top1", None, 0.5, "chance", (), 4)
    assert found["top1"].standing == results.sentence(found) == ""
    found = results.results({"top1": 0.5, "top1_chance": bad, "videos": bad})
    assert found["top1"] == results.Result("top1", 0.5)
