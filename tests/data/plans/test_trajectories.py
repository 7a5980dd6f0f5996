"""The game against its description, over many rng."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from configs import common
from ctp_jax.data import rng as rng_lib
from ctp_jax.data.plans import key_frames, trajectories

FRAMES, SIZE, EXAMPLES = 16, 112, 4000


def make_draws(count, examples=EXAMPLES):
    numbers = np.random.default_rng(0).random((examples, count), np.float32)
    return rng_lib.Rng(tf.constant(numbers))


@pytest.fixture(scope="module")
def plan():
    config = common.game()
    count = rng_lib.count_uniforms(
        lambda d: trajectories.sample_game(d, config, FRAMES, SIZE)
    )
    result = trajectories.sample_game(make_draws(count), config, FRAMES, SIZE)
    return {name: value.numpy() for name, value in result.items()}


def test_boxes_are_whole_pixels_inside_the_frame(plan):
    boxes = plan["boxes"]
    assert boxes.shape == (EXAMPLES, 3, FRAMES, 4)
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, np.round(boxes))
    assert boxes.min() == 0 and boxes.max() == SIZE
    assert (boxes[..., 2:] - boxes[..., :2]).min() >= 1


def test_first_boxes_follow_scales_and_ratios(plan):
    config = common.game()
    sides = plan["boxes"][:, :, 0, 2:] - plan["boxes"][:, :, 0, :2]
    scale, ratio = np.meshgrid(config.scales, config.ratios)
    jitter = np.random.default_rng(1).uniform(-0.18, 0.18, (20000, 2))
    choice = np.random.default_rng(2).integers(0, scale.size, 20000)
    root = np.sqrt(ratio.ravel()[choice])
    expected = np.stack([scale.ravel()[choice] * root, scale.ravel()[choice] / root], 1)
    expected = np.clip(expected * np.exp(jitter), 1, SIZE - 1)
    for axis in range(2):
        ours = np.quantile(sides[..., axis], [0.1, 0.5, 0.9])
        np.testing.assert_allclose(
            ours, np.quantile(expected[:, axis], [0.1, 0.5, 0.9]), atol=1.5
        )
    # The position is uniform, so the free space is split evenly.
    free = SIZE - sides
    assert (plan["boxes"][:, :, 0, :2] / free).mean() == pytest.approx(0.5, abs=0.01)


def test_speed_and_size_change_are_bounded(plan):
    boxes = plan["boxes"].astype(np.float64)
    # Rounding moves a corner by half a pixel; acceleration doubles the speed at most.
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    inside = (boxes.min(axis=(-2, -1)) > 1) & (boxes.max(axis=(-2, -1)) < SIZE - 1)
    step = np.abs(np.diff(centre, axis=2)).max(axis=(2, 3))[inside]
    assert 3 < step.max() <= 2 * 3 + 1
    whole = np.abs(centre[:, :, -1] - centre[:, :, 0])[inside]
    assert whole.max() <= 3 * (FRAMES - 1) + 0.5
    assert whole.max() > 30
    sides = boxes[..., 2:] - boxes[..., :2]
    change = np.log((sides[:, :, -1]) / sides[:, :, 0])[inside]
    big = sides[:, :, 0][inside].min(-1) > 30
    assert np.abs(change[big]).max() <= 0.025 * (FRAMES - 1) + 2 / 30
    assert np.abs(change[big]).max() > 0.3


def test_shares_of_every_choice(plan):
    shape = plan["shape"]
    for value, share in enumerate([0.5, 0.35, 0.15]):
        assert (shape == value).mean() == pytest.approx(share, abs=0.02)
    soft = plan["edge"] < 0.5
    assert soft.mean() == pytest.approx(0.5, abs=0.02)
    assert 0.30 <= plan["edge"][soft].min() < plan["edge"][soft].max() <= 0.45
    counts = np.bincount(plan["source"].ravel(), minlength=FRAMES)
    np.testing.assert_allclose(counts / counts.sum(), 1 / FRAMES, atol=0.01)
    assert 0.8 <= plan["opacity"].min() < plan["opacity"].max() <= 1.0


def test_masking_spares_the_first_and_the_source_frame(plan):
    visible, source = plan["visible"], plan["source"]
    assert visible[:, :, 0].all()
    assert np.take_along_axis(visible, source[..., None], -1).all()
    other = np.arange(1, FRAMES) != source[..., None]
    assert visible[:, :, 1:][other].mean() == pytest.approx(0.8, abs=0.01)


def test_large_patches_come_first(plan):
    sides = (plan["boxes"][..., 2:] - plan["boxes"][..., :2]).mean(2)
    area = np.take_along_axis(sides.prod(-1), plan["order"], axis=1)
    assert (np.diff(area, axis=1) <= 0).all()


def progress_of(config, examples):
    """How far along its way each axis of each trajectory is, (examples, k, t).

    Only axes that went far; tiny boxes and great speeds make rounding to pixels nothing.
    """
    config.scales, config.ratios, config.box_jitter = (2.0,), (1.0,), 0.0
    config.speed, side = 100.0, 1 << 16
    count = rng_lib.count_uniforms(
        lambda d: trajectories.sample_game(d, config, FRAMES, side)
    )
    boxes = trajectories.sample_trajectories(
        make_draws(count, examples), config, FRAMES, side
    )
    moved = boxes.numpy()[..., :2].astype(np.float64)
    moved = np.moveaxis(moved - moved[:, :, :1], 2, 3)
    return moved.reshape(examples, -1, FRAMES)


def test_acceleration_has_the_right_shape():
    config = common.game()
    config.key_frames, config.interpolation = (1.0,), (0.0, 1.0, 0.0)
    moved = progress_of(config, 500).reshape(-1, FRAMES)
    moved = moved[np.abs(moved[:, -1]) > 300]
    expected = (np.arange(FRAMES) / (FRAMES - 1)) ** 2
    np.testing.assert_allclose(
        moved / moved[:, -1:], np.tile(expected, (len(moved), 1)), atol=0.01
    )


def test_trajectories_of_a_clip_share_kinds_of_motion():
    config = common.game()
    config.key_frames, config.interpolation = (1.0,), (0.4, 0.3, 0.3)
    kinds = set()
    for axes in progress_of(config, 300):
        axes = axes[np.abs(axes[:, -1]) > 300]
        middle = axes[:, 7] / axes[:, -1]
        if len(middle) > 1:
            assert np.ptp(middle) < 0.02
            kinds.add(round(float(middle.mean()), 1))
    assert kinds == {0.2, 0.5, 0.7}


def test_trajectories_of_a_clip_share_key_frames():
    config = common.game()
    config.key_frames, config.interpolation = (0.0, 1.0), (1.0, 0.0, 0.0)
    keys = set()
    for axes in progress_of(config, 300):
        bend = np.abs(np.diff(axes, n=2))
        bend = bend[bend.max(axis=1) > 30]
        where = {int(row.argmax()) + 1 for row in bend}
        assert len(where) <= 1
        keys |= where
    assert keys == {6, 7, 8, 9}


def reference_key_frames(rng, frames, probabilities):
    """As described in the paper's code: draw, jitter, merge, sort."""
    inner = rng.choice(len(probabilities), p=probabilities)
    if inner == 0:
        return [0, frames - 1]
    spacing = frames / (inner + 1)
    ticks = np.array([int(spacing * i) for i in range(1, inner + 1)])
    jitter = int(spacing / 3)
    if jitter:
        ticks = ticks + rng.integers(-jitter, jitter, inner)
    return sorted({0, frames - 1, *ticks.tolist()})


@pytest.mark.parametrize("frames", [2, 5, 16, 32])
def test_key_frames_are_distributed_as_described(frames):
    probabilities = (0.5, 0.3, 0.2)
    keys = key_frames.sample_key_frames(make_draws(5, 20000), frames, probabilities)
    assert (np.diff(keys.numpy(), axis=1) >= 0).all()
    rng = np.random.default_rng(0)

    def shares(rows):
        found, counts = np.unique([str(row) for row in rows], return_counts=True)
        return dict(zip(found, counts / counts.sum(), strict=True))

    ours = shares([sorted(set(row)) for row in keys.numpy().tolist()])
    theirs = shares(
        [reference_key_frames(rng, frames, probabilities) for _ in range(20000)]
    )
    assert ours.keys() == theirs.keys()
    for name, share in theirs.items():
        assert ours[name] == pytest.approx(share, abs=0.015), name


@pytest.mark.parametrize(
    ("kind", "progress"),
    [
        (0, lambda s: s),
        (1, lambda s: s**2),
        (2, lambda s: 1 - (1 - s) ** 2),
    ],
)
def test_interpolation_of_one_kind(kind, progress):
    keys = tf.constant([[0, 4, 9, 9], [0, 9, 9, 9]])
    values = tf.constant([[0.0, 8.0, -2.0, -2.0], [1.0, 3.0, 3.0, 3.0]])
    kinds = tuple(np.eye(3)[kind])
    ours = key_frames.interpolate(values, keys, 10, make_draws(3, 2), kinds).numpy()
    for row, stops in enumerate([[(0, 0), (4, 8), (9, -2)], [(0, 1), (9, 3)]]):
        for (t0, a), (t1, b) in itertools.pairwise(stops):
            for t in range(t0, t1 + 1):
                expected = a + (b - a) * progress((t - t0) / (t1 - t0))
                assert ours[row, t] == pytest.approx(expected, abs=1e-5)


def test_merged_key_frames_share_a_value():
    keys = tf.constant([[0, 0, 5, 5]])
    values = key_frames.share_merged(tf.constant([[1.0, 2.0, 3.0, 4.0]]), keys)
    np.testing.assert_array_equal(values, [[1, 1, 3, 3]])


def test_ablations_switch_off_what_they_name():
    config = common.game()
    config.speed = config.size_change = 0.0
    config.visible, config.soft_edge = 1.0, 0.0
    config.opacity, config.shapes = (1.0, 1.0), (1.0, 0.0, 0.0)
    config.num_trajectories = 5
    count = rng_lib.count_uniforms(
        lambda d: trajectories.sample_game(d, config, FRAMES, SIZE)
    )
    result = trajectories.sample_game(make_draws(count, 50), config, FRAMES, SIZE)
    boxes = result["boxes"].numpy()
    assert boxes.shape[1] == 5
    np.testing.assert_array_equal(boxes, np.repeat(boxes[:, :, :1], FRAMES, 2))
    assert result["visible"].numpy().all()
    np.testing.assert_array_equal(result["opacity"], 1.0)
    assert not result["shape"].numpy().any()


def test_sizes_beyond_what_float32_holds_fill_the_clip():
    config = common.game()
    config.size_change = 10.0  # the most that it may be
    count = rng_lib.count_uniforms(
        lambda d: trajectories.sample_game(d, config, FRAMES, SIZE)
    )
    plan = trajectories.sample_game(make_draws(count, 50), config, FRAMES, SIZE)
    boxes = plan["boxes"].numpy()
    assert np.isfinite(boxes).all() and boxes.min() >= 0 and boxes.max() <= SIZE
