"""The built-in data set: its motions, its pictures, its splits."""

import functools
import io

import numpy as np
import pytest
from PIL import Image

from ctp_jax.errors import UserError
from ctp_jax.prepare import sprites as sprites_lib
from ctp_jax.prepare.builders import moving_shapes
from tests.prepare.make_sources import make_source, prepare_in


def test_shapes_are_a_function_of_seed_and_index():
    (first, _), (again, _) = (sprites_lib.draw_video(3, 7) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert 40 <= len(first) <= 60
    other, _ = sprites_lib.draw_video(4, 7)
    assert other.shape != first.shape or (other != first).any()
    encoded = sprites_lib.encode_shapes(3, 7)
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(f))) for f in encoded.frames])
    luma = np.array([0.299, 0.587, 0.114])  # chroma is halved
    assert np.abs(decoded @ luma - first @ luma).mean() < 3


def test_light_comes_from_above():
    """Rows are alike before the light, so their means over videos are those of the light."""
    rows = [
        sprites_lib.draw_video(0, i)[0][::20, :68].mean((0, 2, 3)) for i in range(20)
    ]
    every = np.mean(rows, axis=0)
    top, bottom = every[:8].mean(), every[60:].mean()
    above, below = np.interp([4, 64], [0, 72], sprites_lib.LIGHT)
    assert bottom / top == pytest.approx(below / above, rel=0.1)


@functools.cache
def paths(motion):
    """x, y, side, angle of many sprites, (400, 50 frames) each."""
    rng = np.random.default_rng(sprites_lib.CLASSES.index(motion))
    sprites = [sprites_lib.draw_sprite(rng, motion, 50, 72, 96) for _ in range(400)]
    return [
        np.stack([getattr(s, name) for s in sprites])
        for name in ("x", "y", "side", "angle")
    ]


def steps_on_torus(positions, extent):
    around = extent + 2 * sprites_lib.MARGIN
    return (np.diff(positions, axis=1) + around / 2) % around - around / 2


@pytest.mark.parametrize("motion", sprites_lib.CLASSES)
def test_a_frame_says_nothing_about_the_class(motion):
    """Every state is uniform at every instant, whatever the class.

    The largest gap between the empirical and the uniform distribution function of 400
    draws exceeds 0.1 once in a thousand times (Kolmogorov); the seeds are fixed.
    """
    x, y, side, angle = paths(motion)
    smallest, largest = sprites_lib.SIDES
    for frame in (0, 13, 49):
        for uniform in (
            (x[:, frame] + sprites_lib.MARGIN) / (96 + 2 * sprites_lib.MARGIN),
            (y[:, frame] + sprites_lib.MARGIN) / (72 + 2 * sprites_lib.MARGIN),
            np.log(side[:, frame] / smallest) / np.log(largest / smallest),
            (angle[:, frame] / (2 * np.pi)) % 1,
        ):
            assert uniform.min() >= 0
            assert uniform.max() <= 1
            grid = (np.arange(400) + 0.5) / 400
            assert np.abs(np.sort(uniform) - grid).max() < 0.1


@pytest.mark.parametrize("motion", sprites_lib.CLASSES)
def test_motion_is_that_of_the_class(motion):
    x, y, side, angle = paths(motion)
    dx, dy = steps_on_torus(x, 96), steps_on_torus(y, 72)
    across, along = np.ptp(np.cumsum(dx, 1), axis=1), np.ptp(np.cumsum(dy, 1), axis=1)
    # Twice the area swept around the start; positive is clockwise, y points down.
    swept = np.sum(np.cumsum(dx, 1)[:, :-1] * dy[:, 1:], axis=1) - np.sum(
        np.cumsum(dy, 1)[:, :-1] * dx[:, 1:], axis=1
    )
    growth = np.median(np.diff(np.log(side), axis=1), axis=1)
    turned = np.abs(angle[:, -1] - angle[:, 0])
    horizontal, vertical = dx.sum(1), dy.sum(1)
    seen = {
        "left": (horizontal < -30).all(),
        "right": (horizontal > 30).all(),
        "up": (vertical < -30).all(),
        "down": (vertical > 30).all(),
        "clockwise": (swept > 30).all(),
        "counterclockwise": (swept < -30).all(),
        "grow": (growth > 0.01).all(),
        "shrink": (growth < -0.01).all(),
        "shake": (np.hypot(across, along) > 2).all() and np.abs(swept).max() < 1e-6,
        "spin": (turned > 1).all(),
    }
    # Those that move straight sweep nothing either, but they go far.
    seen["shake"] &= (np.hypot(horizontal, vertical) < 12).all()
    assert [name for name, is_seen in seen.items() if is_seen] == [motion]


@pytest.mark.parametrize(("shape", "area"), [("disc", np.pi / 4), ("square", 1.0)])
def test_a_sprite_is_drawn_where_it_is(shape, area):
    side, x, y = 20.0, 30.3, 25.8
    sprite = sprites_lib.Sprite(
        *(np.array([value]) for value in (x, y, side, 0.4)),
        texture=np.ones((48, 48, 3), np.float32),
        shape=shape,
    )
    canvas = np.zeros((60, 70, 3), np.float32)
    sprites_lib.paste(canvas, sprite, 0)
    weight = canvas[..., 0]
    assert weight.sum() == pytest.approx(area * side**2, rel=0.02)
    rows, columns = np.indices(weight.shape)
    assert (weight * columns).sum() / weight.sum() == pytest.approx(x, abs=0.1)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=0.1)


@pytest.mark.parametrize("shape", ["disc", "square", "diamond", "ring"])
def test_a_box_is_around_its_sprite_and_a_part_of_it_is_visible(shape):
    """Against the pixels of the sprite alone, drawn white over black, 16 times as fine."""
    fine = 16
    for side, x, y, angle in [(20, 30.3, 25.8, 0.4), (14, 12.5, 40.1, 2.0)]:
        sprites = [
            sprites_lib.Sprite(
                *(np.array([value]) for value in (*place, angle)),
                texture=np.ones((48, 48, 3), np.float32),
                shape=shape,
            )
            for place in [
                (x, y, side),
                # The middle of pixel i is at i, and at 16 i + 7.5 in the fine image.
                (fine * (x + 0.5) - 0.5, fine * (y + 0.5) - 0.5, fine * side),
            ]
        ]
        canvas = np.zeros((60 * fine, 70 * fine, 3), np.float32)
        sprites_lib.paste(canvas, sprites[1], 0)
        rows, columns = np.nonzero(canvas[..., 0] > 0.5)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        found = sprites_lib.bounds(sprites[0])[0]
        np.testing.assert_allclose(found, np.divide(seen, fine), atol=1.5 / fine)
        area = len(rows) / fine**2
        assert sprites_lib.area(sprites[0])[0] == pytest.approx(area, rel=0.01)


def test_boxes_of_videos():
    """What is visible is in the frame and covered by no later sprite."""
    for index in range(4):
        frames, found = sprites_lib.draw_video(3, index)
        boxes, visibility = found["boxes"], found["visibility"]
        assert (
            boxes.shape == (len(frames), 5, 4) and visibility.shape == boxes.shape[:2]
        )
        assert boxes.dtype == visibility.dtype == np.float32
        assert np.isfinite(boxes).all() and visibility.min() >= 0
        assert visibility.max() <= 1 and (visibility > 0.9).any()
        size = np.array(frames.shape[2:0:-1])
        inside = np.minimum(boxes[..., 2:], size) - np.maximum(boxes[..., :2], 0)
        assert (inside[visibility > 0] > 0).all()
        # A still sprite of "spin" never moves; its box only breathes.
        extent = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
        part = np.prod(np.maximum(inside, 0), axis=-1) / np.maximum(extent, 1)
        # No more of a sprite is seen than its area's share allows: a ring fills least.
        assert (visibility <= np.minimum(part * 1.6, 1) + 0.1).all()


def test_moving_shapes_source(tmp_path):
    flags = ["--train_videos", "12", "--test_videos", "5"]
    source = make_source(moving_shapes.MovingShapes, *flags)
    assert [len(source.splits[s]) for s in ("train", "test")] == [12, 5]
    assert {item.label for item in source.items[:10]} == set(range(10))
    assert all(i.id.startswith(source.class_names[i.label]) for i in source.items)
    with pytest.raises(UserError, match="--test_videos=0: 0 is not a positive"):
        prepare_in(tmp_path, "moving_shapes", "--test_videos=0")
