"""Trackers follow squares whose track is known; they say when they have lost them."""

import sys
import types

import cv2
import numpy as np
import pytest

from ctp_jax import trackers
from ctp_jax.errors import UserError
from tests.made_tracks import moving_square

WITHIN = {"kcf": 1.0, "median_flow": 1.0, "csrt": 2.0}
"""Pixels. CSRT looks for a square of 32 pixels in cells of three: half a cell, and the
rounding of the box to whole pixels."""


def errors(boxes, truth):
    """Distance of the centres along the worse axis, (t,)."""
    centres = [(b[:, :2] + b[:, 2:]) / 2 for b in (boxes, truth)]
    return np.abs(centres[0] - centres[1]).max(axis=-1)


def sides(boxes):
    return boxes[:, 2:] - boxes[:, :2]


@pytest.mark.parametrize("tracker", trackers.TRACKERS)
@pytest.mark.parametrize("velocity", [(0, 0), (1, 0), (-1, 2), (3, 0), (3, -3)])
def test_a_square_is_followed(tracker, velocity):
    frames, truth = moving_square(velocity=velocity, start=(60, 55))
    boxes, ok = trackers.follow(frames, truth[0], tracker)
    assert boxes.shape == (16, 4) and boxes.dtype == np.float64 and ok.dtype == bool
    assert ok.all()
    assert errors(boxes, truth).max() <= WITHIN[tracker]


def test_kcf_is_opencvs_with_one_more_update_of_the_first_frame():
    frames, truth = moving_square(velocity=(2.4, 1.3))
    boxes, _ = trackers.follow(frames, truth[0], "kcf")
    tracker = cv2.TrackerKCF.create()
    tracker.init(frames[0, ..., ::-1].copy(), (20, 50, 32, 32))
    for frame, box in zip(frames, boxes, strict=True):
        _, (x, y, width, height) = tracker.update(frame[..., ::-1].copy())
        np.testing.assert_array_equal(box, [x, y, x + width, y + height])


@pytest.mark.parametrize("tracker", trackers.TRACKERS)
def test_boxes_between_pixels_do_not_drift(tracker):
    """The first box is kept exactly; what rounding leaves out is put back."""
    frames, truth = moving_square(33.3, velocity=(0, 0), start=(20.4, 50.3))
    boxes, ok = trackers.follow(frames, truth[0], tracker)
    assert ok.all()
    np.testing.assert_array_equal(boxes[0], truth[0])
    # KCF and median flow see nothing move; CSRT as above.
    limit = 1e-3 if tracker != "csrt" else WITHIN["csrt"]
    assert errors(boxes, truth).max() <= limit


@pytest.mark.parametrize("tracker", ["csrt", "median_flow"])
@pytest.mark.parametrize("growth", [1.02, 0.98])
def test_size_is_adapted(tracker, growth):
    """Nearer to the true size, on the scale of factors, than to the first one."""
    frames, truth = moving_square(60, (1, 0), growth, start=(50, 40))
    boxes, ok = trackers.follow(frames, truth[0], tracker)
    assert ok.all()
    wrong = np.abs(np.log(sides(boxes)[-1] / sides(truth)[-1]))
    assert (wrong < np.abs(np.log(growth)) * 15 / 2).all()


def test_kcf_keeps_the_size():
    frames, truth = moving_square(60, (1, 0), 1.02, start=(50, 40))
    boxes, _ = trackers.follow(frames, truth[0], "kcf")
    np.testing.assert_array_equal(sides(boxes), np.full((16, 2), 60.0))


@pytest.mark.parametrize("tracker", ["kcf", "median_flow"])
def test_an_object_that_is_replaced_is_lost(tracker):
    frames, truth = moving_square(seed=1)
    other, _ = moving_square(seed=2)
    mixed = np.concatenate([frames[:8], other[8:]])
    boxes, ok = trackers.follow(mixed, truth[0], tracker)
    assert ok.tolist() == 8 * [True] + 8 * [False]
    np.testing.assert_array_equal(boxes[8:], np.tile(boxes[7], (8, 1)))


def test_a_lost_object_comes_back_only_if_it_may():
    frames, truth = moving_square(velocity=(1, 0))
    frames[6:9] = 127
    _, ok = trackers.follow(frames, truth[0], "kcf")
    assert ok.tolist() == 6 * [True] + 10 * [False]
    boxes, ok = trackers.follow(frames, truth[0], "kcf", comes_back=True)
    assert ok.tolist() == 6 * [True] + 3 * [False] + 7 * [True]
    assert errors(boxes, truth)[ok].max() <= 1


@pytest.mark.parametrize("direction", [(-4, 0), (4, 0), (0, -4), (0, 4)])
def test_leaving_the_frame(direction):
    """The box goes on while it is followed, whole; then it is lost."""
    start = (80 + 10 * direction[0], 56 + 8 * direction[1])
    frames, truth = moving_square(velocity=direction, start=start, count=24)
    boxes, ok = trackers.follow(frames, truth[0], "kcf")
    assert ok[:8].all() and not ok[-4:].any()
    assert errors(boxes, truth)[ok].max() <= 1
    np.testing.assert_array_equal(sides(boxes), np.full((24, 2), 32.0))


@pytest.mark.parametrize("tracker", trackers.TRACKERS)
def test_coming_into_the_frame(tracker):
    frames, truth = moving_square(velocity=(3, 1), start=(-10.2, 50))
    boxes, ok = trackers.follow(frames, truth[0], tracker)
    assert ok.all()
    assert errors(boxes, truth).max() <= WITHIN[tracker]


@pytest.mark.parametrize("tracker", trackers.TRACKERS)
@pytest.mark.parametrize(
    "box", [(-50, 0, -10, 30), (0, 0, 2, 30), (9, 9, 9, 9), (20, 30, 10, 40)]
)
def test_a_box_that_shows_nothing_is_not_followed(tracker, box):
    frames, _ = moving_square(count=3)
    boxes, ok = trackers.follow(iter(frames), np.array(box), tracker)
    assert not ok.any()
    np.testing.assert_array_equal(boxes, np.tile(box, (3, 1)))


def test_a_box_that_a_tracker_cannot_start_from_is_not_followed():
    """CSRT's `init` fails on it, though it is inside the image."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 240, 320, 3), "uint8")
    box = np.array([20.0, 210.0, 260.0, 215.0])
    boxes, ok = trackers.follow(iter(frames), box, "csrt")
    assert not ok.any()
    np.testing.assert_array_equal(boxes, [box, box])


def test_wrong_arguments():
    frames, truth = moving_square(count=1)
    with pytest.raises(ValueError, match="four finite numbers"):
        trackers.follow(frames, np.array([0, 0, np.nan, 9]))
    with pytest.raises(ValueError, match="no frames"):
        trackers.follow(frames[:0], truth[0])
    with pytest.raises(UserError, match="tracker 'kfc': needs one of kcf, csrt"):
        trackers.follow(frames, truth[0], "kfc")


def test_an_opencv_without_trackers(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="5.1"))
    with pytest.raises(UserError, match="OpenCV 5.1 .* pip uninstall .* pip install"):
        trackers.require("kcf")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"needs OpenCV .*pip install .*\[tracking\]"):
        trackers.require("csrt")
