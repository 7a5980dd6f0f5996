"""Clips with boxes: where their parts are."""

import numpy as np
import pytest
from PIL import Image

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


def luminance(pixels):
    """Relative luminance of WCAG 2, of sRGB in 0 to 255."""
    parts = np.asarray(pixels, float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("grey", [0, 20, 60, 117, 160, 220, 255])
@pytest.mark.parametrize("dashed", [False, True])
def test_every_box_stands_out_from_what_is_under_it(grey, dashed):
    """Contrast of at least 3, as WCAG asks of graphics, whatever the colour of the box."""
    count = len(pictures.COLOURS)
    frame = np.full((20, 20 * count, 3), grey, np.uint8)
    boxes = np.array([[20.0 * i + 4, 4, 20 * i + 15, 15] for i in range(count)])
    none = np.zeros((0, 4))
    given = (none, boxes) if dashed else (boxes, None)
    drawn = np.asarray(pictures.draw_frame(frame, *given, zoom=2))
    under = luminance([grey] * 3)
    for i in range(count):
        part = luminance(drawn[:, 40 * i : 40 * i + 40].reshape(-1, 3))
        light, dark = np.maximum(part, under), np.minimum(part, under)
        clear = (light + 0.05) / (dark + 0.05) >= 3
        # Of a box of 22 by 22 picture pixels, a line all around it, or half of one.
        assert clear.sum() >= (88 if not dashed else 44)


def test_predicted_boxes_have_the_colour_of_theirs():
    frame = np.full((40, 120, 3), 128, np.uint8)
    boxes = np.array([[5.0, 5, 35, 35], [45, 5, 75, 35], [85, 5, 115, 35]])
    solid = np.asarray(pictures.draw_frame(frame, boxes, None, zoom=2))
    dashed = np.asarray(pictures.draw_frame(frame, boxes[:0], boxes, zoom=2))
    for i, colour in enumerate(pictures.COLOURS[:3]):
        rgb = [int(colour[j : j + 2], 16) for j in (1, 3, 5)]
        part = np.s_[:, 80 * i : 80 * i + 80]
        counts = [(image[part] == rgb).all(-1).sum() for image in (solid, dashed)]
        assert 0.4 * counts[0] < counts[1] < 0.75 * counts[0]  # 7 of 12 pixels
        others = (dashed[part] == rgb).all(-1).sum()
        assert others == (dashed == rgb).all(-1).sum()


def test_the_original_stands_on_the_left(tmp_path):
    clips = np.zeros((3, 2, 8, 8, 3), np.uint8)
    clips[...] = np.array([[200, 0, 0]], np.uint8)
    original = np.zeros_like(clips)
    original[..., 2] = 200
    none = np.zeros((3, 0, 2, 4))
    path = tmp_path / "x.gif"
    pictures.save_animation(path, clips, none, original=original, columns=4, zoom=2)
    with Image.open(path) as animation:
        pixels = np.asarray(animation.convert("RGB")).astype(int)
    blue, red = (pixels[..., 2] > 150) & (pixels[..., 0] < 90), pixels[..., 0] > 150
    red &= pixels[..., 2] < 90
    assert blue.sum() == red.sum() == 3 * 16 * 16
    # Two rows: two pairs, then one.
    row = [bool(each) for each in blue[10][np.flatnonzero(blue[10] | red[10])]]
    assert row == 16 * [True] + 16 * [False] + 16 * [True] + 16 * [False]
