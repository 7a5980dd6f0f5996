import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.ops.roi_align import roi_align

pytestmark = pytest.mark.usefixtures("optimized")


def bilinear(image, y, x):
    """One sample in float64, as torchvision's and mmcv's kernels define it."""
    height, width, _ = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(image.shape[-1])
    y, x = (min(max(v, 0.0), size - 1.0) for v, size in ((y, height), (x, width)))
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = y - y0, x - x0
    top = (1 - dx) * image[y0, x0] + dx * image[y0, x1]
    bottom = (1 - dx) * image[y1, x0] + dx * image[y1, x1]
    return (1 - dy) * top + dy * bottom


def brute_force(image, box, out, scale, ratio):
    image = image.astype(np.float64)
    x1, y1, x2, y2 = (float(v) * scale - 0.5 for v in box)
    height, width = (y2 - y1) / out, (x2 - x1) / out
    result = np.zeros((out, out, image.shape[-1]))
    for row, column in itertools.product(range(out), repeat=2):
        for i, j in itertools.product(range(ratio), repeat=2):
            y = y1 + (row + (i + 0.5) / ratio) * height
            x = x1 + (column + (j + 0.5) / ratio) * width
            result[row, column] += bilinear(image, y, x) / ratio**2
    return result


BOXES = {
    "inside": [30.0, 21.0, 77.0, 60.0],
    "smaller than a bin": [50.2, 50.1, 51.3, 50.9],
    "whole": [0.0, 0.0, 112.0, 96.0],
    "across the left and top": [-40.0, -17.3, 30.0, 25.0],
    "across the right and bottom": [90.0, 80.0, 140.0, 133.0],
    "barely outside": [112.5, 10.0, 124.0, 40.0],
    "far outside": [300.0, 300.0, 400.0, 420.0],
    "turned inside out": [60.0, 60.0, 40.0, 30.0],
}


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_equals_brute_force(ratio):
    features = np.random.default_rng(0).normal(size=(1, 12, 14, 5)).astype(np.float32)
    boxes = np.array(list(BOXES.values()), np.float32)
    ours = jax.jit(roi_align, static_argnums=(2, 3, 4))(
        features, boxes[None], 5, 1 / 8, ratio
    )
    for name, box, result in zip(BOXES, boxes, np.asarray(ours)[0], strict=True):
        expected = brute_force(features[0], box, 5, 1 / 8, ratio)
        np.testing.assert_allclose(result, expected, atol=1e-5, err_msg=name)


def test_random_boxes_equal_brute_force():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(14, 14, 3)).astype(np.float32)
    corners = rng.uniform(-30, 140, (60, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], -1).astype(np.float32)
    ours = jax.jit(lambda *a: roi_align(*a, 5, 1 / 8))(features, boxes)
    expected = [brute_force(features, box, 5, 1 / 8, 2) for box in boxes]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_gradient_reaches_the_features_under_the_box_alone():
    features = jnp.ones((14, 14, 1))
    box = jnp.array([[16.0, 16.0, 48.0, 48.0]])
    slope = jax.jit(jax.grad(lambda f: roi_align(f, box, 5, 1 / 8).sum()))
    gradient = np.array(slope(features))[..., 0]
    assert gradient[2:6, 2:6].min() > 0
    assert float(gradient.sum()) == pytest.approx(25, rel=1e-5)
    gradient[1:7, 1:7] = 0
    assert not gradient.any()
