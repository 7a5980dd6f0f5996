import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.ops import boxes

pytestmark = pytest.mark.usefixtures("optimized")

SCALE = (0.8, 0.8, 0.04, 0.04)


def random_boxes(shape, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 80, (*shape, 2))
    size = rng.uniform(0.2, 32, (*shape, 2))
    return np.concatenate([low, low + size], -1).astype(np.float32)


def brute_force_targets(trajectory, scale):
    first = trajectory[0].astype(np.float64)
    targets = []
    for x1, y1, x2, y2 in trajectory.astype(np.float64):
        w, h = max(x2 - x1, 1), max(y2 - y1, 1)
        w1, h1 = max(first[2] - first[0], 1), max(first[3] - first[1], 1)
        targets.append(
            [
                ((x1 + x2) / 2 - (first[0] + first[2]) / 2) / scale[0],
                ((y1 + y2) / 2 - (first[1] + first[3]) / 2) / scale[1],
                np.log(w / w1) / scale[2],
                np.log(h / h1) / scale[3],
            ]
        )
    return targets


def test_targets_equal_brute_force():
    trajectories = random_boxes((2, 3, 16))
    targets = jax.jit(boxes.encode_trajectory_xyxy, static_argnums=2)(
        trajectories, trajectories[:, :, 0], SCALE
    )
    for b in range(2):
        for n in range(3):
            expected = brute_force_targets(trajectories[b, n], SCALE)
            np.testing.assert_allclose(targets[b, n], expected, rtol=1e-5, atol=1e-4)


def test_decoding_inverts_encoding():
    low = random_boxes((5, 16))[..., :2]
    trajectory = jnp.concatenate([low, low + 1 + random_boxes((5, 16), 1)[..., :2]], -1)
    query = trajectory[:, 0]
    targets = boxes.encode_trajectory_xyxy(trajectory, query, SCALE)
    decoded = boxes.decode_trajectory_xyxy(targets, query, SCALE)
    np.testing.assert_allclose(decoded, trajectory, atol=1e-3)


def test_iou_equals_counting_pixels():
    rng = np.random.default_rng(2)
    corners = np.sort(rng.integers(0, 40, (50, 2, 2, 2)), axis=2)  # pair, which, corner
    pairs = np.concatenate([corners[:, :, 0], corners[:, :, 1]], -1)
    for a, b in pairs:
        grids = np.zeros((2, 40, 40), bool)
        for grid, (x1, y1, x2, y2) in zip(grids, (a, b), strict=True):
            grid[y1:y2, x1:x2] = True
        union = (grids[0] | grids[1]).sum()
        expected = (grids[0] & grids[1]).sum() / union if union else 0.0
        iou = boxes.iou_xyxy(jnp.float32(a), jnp.float32(b))
        assert float(iou) == pytest.approx(expected, abs=1e-6)
        # NumPy's boxes are compared by NumPy, in their precision.
        (iou,) = boxes.iou_xyxy(np.float64(a[None]), np.float64(b[None]))
        assert iou == pytest.approx(expected, abs=1e-14)


def test_iou_broadcasts():
    a, b = random_boxes((3, 1)).astype(np.float64), random_boxes((4,), 1)
    b = b.astype(np.float64)
    pairs = [[boxes.iou_xyxy(x, y[None])[0] for y in b] for x in a]
    np.testing.assert_array_equal(boxes.iou_xyxy(a, b[None]), pairs)


def test_share_inside_counts_the_pixels_of_visible_frames():
    """Against a loop over pixels; boxes overlap, leave the frame, and are absent."""
    rng = np.random.default_rng(0)
    maps = rng.uniform(size=(4, 6, 7))
    corners = rng.uniform(-2, 8, (2, 4, 4))
    corners[..., 2:] += 2
    corners[0, 1] = corners[:, 3] = np.nan
    inside = total = 0.0
    for t in range(3):  # not in the last frame
        for y in range(6):
            for x in range(7):
                total += maps[t, y, x]
                inside += maps[t, y, x] * any(
                    x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2
                    for x1, y1, x2, y2 in corners[:, t]
                )
    assert 0.2 < inside / total < 0.8
    share = boxes.share_inside(maps, corners)
    np.testing.assert_allclose(share, inside / total, rtol=1e-12)
    assert np.isnan(boxes.share_inside(maps, corners[:0]))
    assert np.isnan(boxes.share_inside(maps * 0, corners))
