"""Pasting patches along their trajectories (paper section 3.3, pyvrl's PatchMask).

A patch is cut from one frame of the original clip, its source frame, at the
trajectory's box in that frame. In every frame t it is stretched over the trajectory's box
of frame t and blended with an opacity mask, which is stretched in the same way.

Symbols: n trajectories, t frames, s side of the clip. Boxes are x1, y1, x2, y2 and
hold whole numbers: box [x1, x2) covers the pixels x1 .. x2 - 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctp_jax.ops import resample

RECTANGLE, ELLIPSE, RHOMBUS = range(3)


class Patches(NamedTuple):
    """What to paste, leading dimensions (*b, n).

    Attributes:
        boxes: float32 (*b, n, t, 4), whole numbers.
        source: int32 (*b, n), the frame that the patch is cut from.
        shape: int32 (*b, n), RECTANGLE, ELLIPSE or RHOMBUS.
        edge: float32 (*b, n), distance from the centre (in box sizes) where a soft
            edge begins to fade; 0.5 or more: a hard edge.
        opacity: float32 (*b, n, t).
        visible: bool (*b, n, t), False where MRM hides the patch.
        order: int32 (*b, n), trajectory numbers in the order of pasting.
    """

    boxes: Float[Array, "*b n t 4"]
    source: Int[Array, "*b n"]
    shape: Int[Array, "*b n"]
    edge: Float[Array, "*b n"]
    opacity: Float[Array, "*b n t"]
    visible: Bool[Array, "*b n t"]
    order: Int[Array, "*b n"]


def _axis_offsets(
    low: Float[Array, "*b"], high: Float[Array, "*b"], size: int
) -> tuple[Float[Array, "*b size"], Bool[Array, "*b size"]]:
    """Distance of each pixel to the box's centre in whole pixels; whether inside."""
    pixels = jnp.arange(size, dtype=jnp.float32)
    centre = low + jnp.floor((high - low - 1.0) / 2.0)
    inside = (pixels >= low[..., None]) & (pixels < high[..., None])
    return jnp.abs(pixels - centre[..., None]), inside


def opacity_mask(
    box: Float[Array, "*b 4"],
    shape: Int[Array, "*b"],
    edge: Float[Array, "*b"],
    size: int,
) -> Float[Array, "*b size size"]:
    """The mask of a patch on the pixels of its source frame, 0 outside its box.

    >>> box = jnp.array([1.0, 0.0, 4.0, 3.0])
    >>> rhombus, hard = jnp.array(RHOMBUS), jnp.array(1.0)
    >>> print(opacity_mask(box, rhombus, hard, size=4))
    [[0. 0. 1. 0.]
     [0. 1. 1. 1.]
     [0. 0. 1. 0.]
     [0. 0. 0. 0.]]
    """
    x, inside_x = _axis_offsets(box[..., 0], box[..., 2], size)
    y, inside_y = _axis_offsets(box[..., 1], box[..., 3], size)
    width, height = jnp.moveaxis(jnp.maximum(box[..., 2:] - box[..., :2], 1.0), -1, 0)
    # Multiplied by 2 and by the box's area, all lengths are whole numbers. So pixels
    # exactly on the outline, at distance 0.5, are always outside, without rounding.
    area = (width * height)[..., None, None]
    x = 2.0 * x[..., None, :] * height[..., None, None]
    y = 2.0 * y[..., :, None] * width[..., None, None]
    shape, edge = shape[..., None, None], edge[..., None, None]
    outside = jnp.where(
        shape == RECTANGLE,
        False,
        jnp.where(shape == ELLIPSE, x**2 + y**2 >= area**2, x + y >= area),
    )
    distance = jnp.where(
        shape == RECTANGLE,
        jnp.maximum(x, y),
        jnp.where(shape == ELLIPSE, jnp.sqrt(x**2 + y**2), x + y),
    ) / (2.0 * area)
    soft = edge < 0.5
    fade = (0.5 - distance) / jnp.where(soft, 0.5 - edge, 1.0)
    mask = jnp.where(soft, jnp.clip(fade, 0.0, 1.0), 1.0)
    inside = inside_x[..., None, :] & inside_y[..., :, None] & ~outside
    return jnp.where(inside, mask, 0.0)


def paste(
    clip: Float[Array, "*b t s s 3"], patches: Patches, way: str = ""
) -> Float[Array, "*b t s s 3"]:
    """Pastes all patches on a clip, in their order.

    Every patch is cut from the given clip, which has no patches pasted on it yet.

    Args:
        clip: grey levels, any range; the result is float32.
        patches: see `Patches`.
        way: one of `resample.WAYS`; empty: `resample.chosen_way`.

    Raises:
        UserError: for an unknown way.

    Example: the pixel in the first column of two equal frames of 3 x 3 pixels is cut
    from the first frame and moves one column to the right in the second.

    >>> clip = jnp.zeros((2, 3, 3, 3)).at[:, 0, 0].set(100.0)
    >>> patches = Patches(
    ...     boxes=jnp.array([[[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]]]),
    ...     source=jnp.array([0]),
    ...     shape=jnp.array([RECTANGLE]),
    ...     edge=jnp.array([1.0]),
    ...     opacity=jnp.array([[1.0, 0.5]]),
    ...     visible=jnp.array([[True, True]]),
    ...     order=jnp.array([0]),
    ... )
    >>> print(paste(clip, patches)[1, :, :, 0])
    [[100.  50.   0.]
     [  0.   0.   0.]
     [  0.   0.   0.]]
    """
    size = clip.shape[-2]
    clip = jnp.asarray(clip, jnp.float32)

    def paste_one(out, chosen):
        boxes, shape, edge, opacity, visible, source = (
            take(values, chosen)
            for values in (
                patches.boxes,
                patches.shape,
                patches.edge,
                patches.opacity,
                patches.visible,
                patches.source,
            )
        )
        box = take(boxes, source)
        columns, rows = (
            resample.stretch_points(
                box[..., i, None],
                box[..., i + 2, None],
                boxes[..., i],
                boxes[..., i + 2],
                size,
            )
            for i in range(2)
        )
        # The mask is read as the patch is: it is a fourth channel.
        mask = opacity_mask(box, shape, edge, size)[..., None]
        patch = jnp.concatenate([take(clip, source), mask], axis=-1)
        patch = resample.sample_over_time(patch, rows, columns, way)
        alpha = patch[..., 3:] * (opacity * visible)[..., None, None, None]
        return out + (patch[..., :3] - out) * alpha, None

    # A loop in XLA, so that the result of each iteration is written to memory once. If
    # it were unrolled, XLA would fuse the gathers into each operation that reads them
    # and compute them again for each of its channels.
    out, _ = jax.lax.scan(paste_one, clip, jnp.moveaxis(patches.order, -1, 0))
    return out


def take(values: Array, index: Int[Array, "*b"]) -> Array:
    """values[..., index, ...] along the first axis after the leading dimensions.

    >>> take(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 0])).tolist()
    [2.0, 3.0]
    """
    axis = index.ndim
    index = index.reshape(index.shape + (1,) * (values.ndim - axis))
    return jnp.take_along_axis(values, index, axis=axis).squeeze(axis)
