import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.ops import colour

pytestmark = pytest.mark.usefixtures("optimized")


def random_clip(seed=0, shape=(2, 3, 8, 9, 3)):
    clip = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    clip[0, 0, 0] = 0.0  # black and grey have no hue
    clip[0, 0, 1] = 128.0
    return jnp.asarray(clip)


def test_hsv_equals_opencv():
    image = np.asarray(random_clip()[0, 0])
    hue, saturation, value = jax.jit(colour.rgb_to_hsv)(image)
    theirs = cv2.cvtColor(image / 255, cv2.COLOR_RGB2HSV)
    np.testing.assert_allclose(hue, theirs[..., 0], atol=1e-3)
    np.testing.assert_allclose(saturation, theirs[..., 1], atol=1e-5)
    np.testing.assert_allclose(value / 255, theirs[..., 2], atol=1e-6)
    back = colour.hsv_to_rgb(hue, saturation, value)
    np.testing.assert_allclose(back, image, atol=1e-3)


def test_hue_and_saturation_equal_opencv():
    clip = random_clip(1)
    ours = colour.adjust_hue_saturation(
        clip, jnp.array([-20.0, 15.0]), jnp.array([1.3, 0.7]), jnp.array([True, True])
    )
    for video, (degrees, factor) in enumerate([(-20, 1.3), (15, 0.7)]):
        for frame in range(3):
            hsv = cv2.cvtColor(np.asarray(clip[video, frame]) / 255, cv2.COLOR_RGB2HSV)
            hsv[..., 0] -= 360 * (hsv[..., 0] >= 359)
            hsv[..., 0] = np.clip(hsv[..., 0] + degrees, 0, 358)
            hsv[..., 1] = np.clip(hsv[..., 1] * factor, 0, 1)
            theirs = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
            np.testing.assert_allclose(ours[video, frame], theirs, atol=0.01)


def test_what_is_not_applied_changes_nothing():
    clip = random_clip(2)
    same = colour.adjust_hue_saturation(
        clip, jnp.full(2, 9.0), jnp.full(2, 1.1), jnp.zeros(2, bool)
    )
    same = colour.adjust_brightness_contrast(same, jnp.zeros((2, 3)), jnp.ones((2, 3)))
    np.testing.assert_array_equal(same, clip)


def test_brightness_and_contrast_clip_in_order():
    clip = jnp.full((1, 2, 1, 1, 3), 200.0)
    out = colour.adjust_brightness_contrast(
        clip, jnp.array([[100.0, -250.0]]), jnp.array([[0.5, 2.0]])
    )
    np.testing.assert_allclose(out[0, :, 0, 0, 0], [127.5, 0.0])


def test_normalisation_inverts():
    clip = random_clip(3)
    normal = colour.normalize(clip)
    expected = (np.asarray(clip) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normal, expected, atol=1e-5)
    np.testing.assert_allclose(colour.denormalize(normal), clip, atol=1e-3)
