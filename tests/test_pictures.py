"""Clips with boxes: where their parts are."""

import numpy as np

from ctp_jax import pictures


def colour_of(number):
    """A colour that no text has, for each frame."""
    return 0, 7 * number, 90


def test_wide_frames_and_boxes_that_are_missing():
    clips = np.stack([np.full((20, 30, 3), colour_of(i), np.uint8) for i in (1, 2)])
    boxes = np.array([[[[5.0, 5, 15, 15], [np.nan] * 4]]])
    sheet = np.asarray(pictures.contact_sheet(clips[None], boxes, zoom=2))
    first, second = (np.argwhere((sheet == colour_of(i)).all(-1)) for i in (1, 2))
    assert len(first) < len(second) == 40 * 60
    np.testing.assert_array_equal(np.ptp(second, axis=0), [39, 59])
    np.testing.assert_array_equal(np.ptp(first, axis=0), [39, 59])
    endless = np.array([[[[-1e30, 5, 1e30, 15], [5, -1e30, 15, 1e30]]]])
    pictures.contact_sheet(clips[None], boxes, endless, zoom=2)
