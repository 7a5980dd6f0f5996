import colorsys
import itertools

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


def test_normalisation():
    clip = random_clip(3)
    normal = colour.normalize(clip)
    expected = (np.asarray(clip) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normal, expected, atol=1e-5)


def jitter_plan(rng, shape):
    """Everything that a frame may be told to do, at random."""
    factors = ("brightness", "contrast", "saturation")
    return {
        "jittered": rng.random(shape) < 0.8,
        "grey": rng.random(shape) < 0.3,
        "order": rng.permutation(24)[: np.prod(shape)].reshape(shape),
        "offset": rng.uniform(-40, 40, shape),
        "hue": rng.uniform(-180, 180, shape),
        **{name: rng.uniform(0.2, 1.8, shape) for name in factors},
    }


def grey(frame):
    return np.repeat((frame @ [0.2989, 0.587, 0.114])[..., None], 3, axis=-1)


def turned(frame, degrees):
    def turn(red, green, blue):
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        return colorsys.hsv_to_rgb((hue + degrees / 360) % 1, saturation, value)

    return 255 * np.stack(np.vectorize(turn)(*np.moveaxis(frame / 255, -1, 0)), axis=-1)


def jittered(frame, plan):
    """One frame in float64, as the documentation of torchvision's ColorJitter has it."""
    changes = {
        "brightness": lambda x: plan["brightness"] * x + plan["offset"],
        "contrast": lambda x: grey(x).mean() + plan["contrast"] * (x - grey(x).mean()),
        "saturation": lambda x: grey(x) + plan["saturation"] * (x - grey(x)),
        "hue": lambda x: turned(x, plan["hue"]),
    }
    if plan["jittered"]:
        for name in list(itertools.permutations(changes))[plan["order"]]:
            frame = np.clip(changes[name](frame), 0, 255)
    return grey(frame) if plan["grey"] else frame


def test_jitter_equals_colorsys_frame_by_frame():
    clip = random_clip(4, (2, 12, 6, 7, 3))
    plan = jitter_plan(np.random.default_rng(5), (2, 12))
    ours = jax.jit(colour.jitter)(clip, {k: jnp.asarray(v) for k, v in plan.items()})
    for at in np.ndindex(2, 12):
        one = {name: value[at] for name, value in plan.items()}
        # 1e-2 of 255 levels: a contrast of 0.2 and hues of nearly grey pixels lose digits.
        wanted = jittered(np.float64(clip[at]), one)
        np.testing.assert_allclose(ours[at], wanted, atol=1e-2)


def test_jitter_of_nothing_changes_nothing():
    clip = random_clip(6)
    plan = jitter_plan(np.random.default_rng(7), (2, 3))
    plan |= {"jittered": np.zeros((2, 3), bool), "grey": np.zeros((2, 3), bool)}
    same = colour.jitter(clip, {k: jnp.asarray(v) for k, v in plan.items()})
    np.testing.assert_array_equal(same, clip)
