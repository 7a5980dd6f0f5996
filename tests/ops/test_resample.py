import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.ops import resample


@pytest.mark.parametrize(
    ("in_size", "out_size"), [((48, 64), (30, 30)), ((33, 47), (60, 60))]
)
def test_resizing_equals_opencv(in_size, out_size):
    image = np.random.default_rng(0).uniform(0, 255, (*in_size, 3)).astype(np.float32)
    rows, columns = (
        resample.window_weights(
            jnp.zeros(()), jnp.float32(size), jnp.float32(size), size, out
        )
        for size, out in zip(in_size, out_size, strict=True)
    )
    ours = jax.jit(resample.sample)(image, rows, columns)
    theirs = cv2.resize(image, out_size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_a_window_is_a_crop_of_the_resized_image():
    image = np.random.default_rng(1).uniform(0, 255, (72, 96, 3)).astype(np.float32)
    scaled = cv2.resize(image, (128, 96), interpolation=cv2.INTER_LINEAR)
    top, left, size = 13, 40, 56
    ratio = 72 / 96
    ours = resample.crop_resize_flip(
        jnp.asarray(image)[None],
        jnp.array([top, left, size, size]) * ratio,
        jnp.array([72.0, 96.0]),
        jnp.array(False),
        size,
    )[0]
    theirs = scaled[top : top + size, left : left + size]
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_padding_is_never_read():
    image = np.full((20, 20, 1), 7.0, np.float32)
    image[12:] = image[:, 15:] = 1e6
    ours = resample.crop_resize_flip(
        jnp.asarray(image)[None],
        jnp.array([0.0, 0.0, 12.0, 15.0]),
        jnp.array([12.0, 15.0]),
        jnp.array(True),
        31,
    )
    np.testing.assert_allclose(ours, 7.0, rtol=1e-6)


def test_identity_and_mirror():
    clip = np.random.default_rng(2).integers(0, 256, (2, 3, 16, 16, 3))
    clip = jnp.asarray(clip, jnp.uint8)
    window = jnp.tile(jnp.array([0.0, 0.0, 16.0, 16.0]), (2, 1))
    extent = jnp.full((2, 2), 16.0)
    ours = resample.crop_resize_flip(clip, window, extent, jnp.array([False, True]), 16)
    np.testing.assert_array_equal(ours[0], clip[0])
    np.testing.assert_array_equal(ours[1], clip[1, :, :, ::-1])


def test_sampling_over_time_equals_sampling_each_frame():
    rng = np.random.default_rng(3)
    image, rows, columns = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in [(2, 9, 8, 3), (2, 4, 5, 9), (2, 4, 6, 8)]
    )
    ours = resample.sample_over_time(jnp.moveaxis(image, -1, -2), rows, columns)
    ours = jnp.moveaxis(ours, -2, -1)
    for frame in range(4):
        alone = resample.sample(image, rows[:, frame], columns[:, frame])
        np.testing.assert_allclose(ours[:, frame], alone, atol=1e-5)
