"""Tubelets against SciPy's Gaussian filter, brute force and their description."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from configs import tubelet
from ctp_jax.data import rng as rng_lib
from ctp_jax.data.plans import tubelets

FRAMES, SIZE, EXAMPLES = 16, 112, 3000


def sample(config, examples=EXAMPLES):
    def decide(rng):
        return tubelets.sample_tubelets(rng, config, FRAMES, SIZE)

    count = rng_lib.count_uniforms(decide)
    numbers = np.random.default_rng(0).random((examples, count), np.float32)
    plan = decide(rng_lib.Rng(tf.constant(numbers)))
    return {name: value.numpy() for name, value in plan.items()}


@pytest.fixture(scope="module")
def config():
    return tubelet.get_config("data=none").game


@pytest.fixture(scope="module")
def plan(config):
    return sample(config)


@pytest.mark.parametrize(("points", "sigma"), [(48, 8.0), (5, 3.0), (2, 0.3)])
def test_the_filter_is_scipys(points, sigma):
    numbers = np.random.default_rng(1).random((7, points))
    ours = numbers @ tubelets.gaussian_filter(points, sigma).T
    theirs = ndimage.gaussian_filter1d(numbers, sigma, mode="reflect")
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_paths_are_those_of_brute_force(config):
    """One number after the other, with SciPy, inside a frame as in the release."""
    n, points = config.num_trajectories, config.points
    rows = np.random.default_rng(2).random((200, n * (2 * points + 3)), np.float32)
    rng = rng_lib.Rng(tf.constant(rows))
    ours = tubelets.sample_paths(rng, config, FRAMES, SIZE).numpy()
    assert rng.used == rows.shape[1] and ours.shape == (200, FRAMES, n, 2)
    frames = np.round(np.linspace(0, points - 1, FRAMES)).astype(int)
    for row, path in zip(np.float64(rows), ours, strict=True):
        for i in range(n):
            reach = 20 + int(row[2 * n * points + i] * 70)
            for axis in range(2):
                start = (2 * i + axis) * points
                where = 9.5 + row[start : start + points] * (SIZE - 19)
                smooth = ndimage.gaussian_filter1d(where, 8, mode="reflect")
                smooth -= smooth.min()
                smooth /= smooth.max()
                first = 2 * n * points + n + 2 * i + axis
                corner = int(row[first] * (SIZE - reach))
                centres = (smooth * reach + corner)[frames].astype(int)
                # The release's points lie elsewhere, which moves them by rounding.
                assert (np.abs(path[:, i, axis] - centres) <= 1).all()
                assert (path[:, i, axis] == centres).mean() > 0.8
        assert path.min() >= 0 and path.max() <= SIZE - 1


def test_reach_and_place_are_uniform(config):
    """Of all points; a path that is drawn at each of them shows its ends."""
    numbers = np.random.default_rng(3).random((EXAMPLES, 198), np.float32)
    rng = rng_lib.Rng(tf.constant(numbers))
    path = tubelets.sample_paths(rng, config, config.points, SIZE).numpy()
    low, reach = path.min(axis=1), np.ptp(path, axis=1)
    np.testing.assert_array_equal(reach[..., 0], reach[..., 1])
    counts = np.bincount(reach[..., 0].astype(int).ravel(), minlength=90)
    assert not counts[:20].any() and len(counts) == 90
    expected = 2 * EXAMPLES / 70
    # Five standard deviations of a binomial.
    assert np.abs(counts[20:] - expected).max() < 5 * np.sqrt(expected)
    place = (low + 0.5) / (SIZE - reach)
    assert 0 < place.min() and place.max() < 1
    assert place.mean() == pytest.approx(0.5, abs=0.02)


def test_boxes_are_whole_pixels_around_the_paths(plan):
    boxes = plan["boxes"]
    assert boxes.shape == (EXAMPLES, 2, FRAMES, 4) and boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, np.round(boxes))
    assert boxes.min() == 0 and boxes.max() == SIZE
    sides = boxes[..., 2:] - boxes[..., :2]
    assert sides.min() >= 1
    # Where it is not cut at the edge, a patch keeps its size; both sides are rounded.
    inside = ((boxes > 0) & (boxes < SIZE)).all(axis=-1)
    for one, where in zip(
        sides.reshape(-1, FRAMES, 2), inside.reshape(-1, FRAMES), strict=True
    ):
        assert not where.any() or np.ptp(one[where], axis=0).max() <= 2
    assert plan["visible"].all()


def test_rotation_starts_at_nothing_and_is_whole_degrees(plan):
    degrees = plan["degrees"]
    np.testing.assert_array_equal(degrees, np.trunc(degrees))
    assert not degrees[..., 0].any() and not plan["shear"].any()
    # Without inner key frames the last angle is uniform; acceleration doubles the speed.
    assert 85 < np.abs(degrees).max() <= 6 * (FRAMES - 1)
    assert 11 <= np.abs(np.diff(degrees)).max() <= 2 * 6 + 1
    assert degrees.mean() == pytest.approx(0, abs=1)
    different = (degrees[:, 0] != degrees[:, 1]).any(axis=-1)
    assert different.mean() > 0.99


def test_shear_is_along_one_axis_or_both(config):
    changed = config.copy_and_resolve_references()
    changed.rotation, changed.shear = 0.0, 0.066
    plan = sample(changed)
    shear = plan["shear"]
    assert not plan["degrees"].any() and not shear[..., 0, :].any()
    along = (shear != 0).any(axis=-2)
    np.testing.assert_array_equal(along[:, 0], along[:, 1])  # of a pair, the same kind
    for kind in ([1, 0], [0, 1], [1, 1]):
        share = (along[:, 0] == kind).all(axis=-1).mean()
        assert share == pytest.approx(1 / 3, abs=0.045)  # five deviations
    assert 0.9 < np.abs(shear).max() <= 0.066 * (FRAMES - 1) + 1e-6


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_paths_of_any_reach_stay_in_the_clip(config, share):
    changed = config.copy_and_resolve_references()
    changed.reach, changed.smoothness, changed.points = (share, share), 0.01, 2
    plan = sample(changed, 50)
    boxes = plan["boxes"]
    assert boxes.min() >= 0 and boxes.max() <= SIZE
    assert (boxes[..., 2:] - boxes[..., :2]).min() >= 1
