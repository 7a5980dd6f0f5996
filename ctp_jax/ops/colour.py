"""Colour changes of clips in grey levels [0, 255], RGB, float32."""

import itertools
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

# ImageNet statistics, of RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LUMA = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in a grey picture (ITU-R BT.601)."""

ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)
"""(24, 4): in which order `jitter` changes brightness, contrast, saturation, hue."""


def rgb_to_hsv(
    rgb: Float[Array, "*b 3"],
) -> tuple[Float[Array, "*b"], Float[Array, "*b"], Float[Array, "*b"]]:
    """Hue in degrees [0, 360], saturation in [0, 1], value in the units of `rgb`.

    >>> [part.item() for part in rgb_to_hsv(jnp.array([0.0, 100.0, 200.0]))]
    [210.0, 1.0, 200.0]
    """
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sector = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(
            value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe
        ),
    )
    # Not %, which on CPUs calls the C library for every pixel.
    hue = 60.0 * sector
    hue = jnp.where(hue < 0.0, hue + 360.0, hue)
    hue = jnp.where(chroma > 0, hue, 0.0)
    saturation = jnp.where(value > 0, chroma / jnp.where(value > 0, value, 1.0), 0.0)
    return hue, saturation, value


def hsv_to_rgb(
    hue: Float[Array, "*b"], saturation: Float[Array, "*b"], value: Float[Array, "*b"]
) -> Float[Array, "*b 3"]:
    """The inverse of `rgb_to_hsv`; hues from 0 to 360.

    >>> hsv_to_rgb(*jnp.array([210.0, 1.0, 200.0])).tolist()
    [0.0, 100.0, 200.0]
    """
    # Channel n is value - value * saturation * max(0, min(k, 4 - k, 1)), k below 6.
    planes = []
    for first in (5.0, 3.0, 1.0):
        k = first + hue / 60.0
        k = jnp.where(k >= 6.0, k - 6.0, k)
        slope = jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)
        planes.append(value * (1.0 - saturation * slope))
    return jnp.stack(planes, axis=-1)


def adjust_hue_saturation(
    clip: Float[Array, "*b t h w 3"],
    degrees: Float[Array, "*b"],
    factor: Float[Array, "*b"],
    apply: Bool[Array, "*b"],
) -> Float[Array, "*b t h w 3"]:
    """Adds to the hue and multiplies the saturation, where `apply`.

    As in the authors' release, the hue does not wrap around: it is clipped to 0 to 358
    degrees, the range of OpenCV's 8-bit hue.

    >>> red = jnp.zeros((1, 1, 1, 3)).at[..., 0].set(200.0)  # one frame of one pixel
    >>> shift, same = jnp.array(60.0), jnp.array(1.0)
    >>> adjust_hue_saturation(red, shift, same, jnp.array(True)).ravel().tolist()
    [200.0, 200.0, 0.0]
    """
    hue, saturation, value = rgb_to_hsv(clip)
    # OpenCV's 8-bit hue has steps of 2 degrees, so hues of 359 or more round to 0.
    # Without this, rounding errors would give some pure reds a hue near 360, not 0.
    hue = jnp.where(hue >= 359.0, hue - 360.0, hue)
    hue = jnp.clip(hue + degrees[..., None, None, None], 0.0, 358.0)
    saturation = jnp.clip(saturation * factor[..., None, None, None], 0.0, 1.0)
    changed = hsv_to_rgb(hue, saturation, value)
    return jnp.where(apply[..., None, None, None, None], changed, clip)


def adjust_brightness_contrast(
    clip: Float[Array, "*b t h w 3"],
    brightness: Float[Array, "*b t"],
    contrast: Float[Array, "*b t"],
) -> Float[Array, "*b t h w 3"]:
    """Adds `brightness` grey levels, then multiplies by `contrast`, frame by frame.

    Each of the two steps clips to [0, 255]. Brightness 0 and contrast 1 do not change a
    clip in that range.

    >>> clip = jnp.full((2, 1, 1, 3), 100.0)  # two frames of one pixel
    >>> brightness, contrast = jnp.array([0.0, -40.0]), jnp.array([1.0, 1.5])
    >>> adjust_brightness_contrast(clip, brightness, contrast)[:, 0, 0, 0].tolist()
    [100.0, 90.0]
    """
    clip = jnp.clip(clip + brightness[..., None, None, None], 0.0, 255.0)
    return jnp.clip(clip * contrast[..., None, None, None], 0.0, 255.0)


def jitter(
    clip: Float[Array, "*b t h w 3"], plan: Mapping[str, Array]
) -> Float[Array, "*b t h w 3"]:
    """Changes the colours of each frame as torchvision's `ColorJitter` does.

    Brightness, contrast and saturation mix the frame with black, with its mean grey and
    with its grey picture, and clip to [0, 255]; the hue turns, and wraps around.

    Args:
        clip: in [0, 255].
        plan: of `ctp_jax.data.plans.colour.sample_jitter`, each entry (*b, t).

    >>> clip = jnp.array([[[[80.0, 40.0, 40.0]]]])  # one frame of one pixel
    >>> plan = dict(jittered=[True], grey=[False], order=[0], brightness=[1.5])
    >>> plan |= dict(offset=[-10.0], contrast=[1.0], saturation=[1.0], hue=[120.0])
    >>> plan = {name: jnp.array(values) for name, values in plan.items()}
    >>> jitter(clip, plan).round().ravel().tolist()
    [50.0, 110.0, 50.0]
    """
    each = {name: value[..., None, None, None] for name, value in plan.items()}
    orders = jnp.asarray(ORDERS)[each["order"]]

    def grey(frames):
        return (frames * jnp.asarray(LUMA)).sum(-1, keepdims=True)

    changed = clip
    for step in range(ORDERS.shape[1]):
        which = orders[..., step]
        luma = grey(changed)
        # All that a step may do is computed; what it does is chosen, for each frame.
        options = [
            each["brightness"] * changed + each["offset"],
            _mix(changed, luma.mean((-3, -2), keepdims=True), each["contrast"]),
            _mix(changed, luma, each["saturation"]),
            _turn_hue(changed, each["hue"][..., 0]),
        ]
        chosen = jnp.select([which == i for i in range(4)], options)
        changed = jnp.clip(chosen, 0.0, 255.0)
    clip = jnp.where(each["jittered"], changed, clip)
    return jnp.where(each["grey"], grey(clip), clip)


def _mix(frames, other, share):
    return share * frames + (1.0 - share) * other


def _turn_hue(
    clip: Float[Array, "*b 3"], degrees: Float[Array, "*#b"]
) -> Float[Array, "*b 3"]:
    """Adds -360 to 360 degrees to the hue, around the circle."""
    hue, saturation, value = rgb_to_hsv(clip)
    hue = hue + degrees
    hue = jnp.where(hue < 0.0, hue + 360.0, hue)
    hue = jnp.where(hue >= 360.0, hue - 360.0, hue)
    return hsv_to_rgb(hue, saturation, value)


def normalize(clip: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Grey levels to zero mean and unit variance with the ImageNet statistics.

    >>> normalize(255.0 * jnp.array(MEAN)).tolist()
    [0.0, 0.0, 0.0]
    """
    mean, std = 255.0 * jnp.asarray(MEAN), 255.0 * jnp.asarray(STD)
    return (clip - mean) / std


def to_uint8(clip: Float[Array, "*b 3"]) -> UInt8[Array, "*b 3"]:
    """Grey levels rounded to 8-bit integers, for pictures.

    >>> to_uint8(jnp.array([-3.0, 99.6, 300.0])).tolist()
    [0, 100, 255]
    """
    return jnp.clip(jnp.round(clip), 0.0, 255.0).astype(jnp.uint8)
