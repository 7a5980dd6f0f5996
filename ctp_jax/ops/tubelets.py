"""Pasting patches that also rotate and shear, on several clips at once.

As `ctp_jax.ops.paste`, whose patches, outlines and edges these are; but a patch is turned
and sheared about the centre of its box, and reaches beyond the box where it has to. What
leaves the clip is cut off.

A pixel of a turned patch reads a point whose row depends on its column, so that the axes
cannot be sampled one after the other as in `ctp_jax.ops.resample`. The patch and its mask
are read together, once for all clips, frame by frame: by one gather per pixel, of its
four neighbours, or by products.

Symbols: c clips, n patches, t frames, s side of the clip. Offsets are x before y, in
pixels, from the centre of a box.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from ctp_jax.ops import paste, resample

_PRECISION = jax.lax.Precision.HIGHEST  # as in `resample`


def inverse_map(
    degrees: Float[Array, "*b"], shear: Float[Array, "*b 2"]
) -> Float[Array, "*b 2 2"]:
    """The matrix that takes offsets in a frame to offsets in the patch as it was cut.

    The patch is sheared along x, x + shear[0] y, then along y, y + shear[1] x, then
    turned clockwise. The areas stay the same.

    What a quarter turn brings to the right of the centre was above it:

    >>> inverse = inverse_map(jnp.array(90.0), jnp.zeros(2))
    >>> print((inverse @ jnp.array([1.0, 0.0])).round())
    [-0. -1.]
    """
    radians = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    along_x, along_y = shear[..., 0], shear[..., 1]
    row_y = jnp.stack([-sin - along_y * cos, cos - along_y * sin], axis=-1)
    row_x = jnp.stack([cos, sin], axis=-1) - along_x[..., None] * row_y
    return jnp.stack([row_x, row_y], axis=-2)


def bounding_boxes(
    boxes: Float[Array, "*b 4"], inverse: Float[Array, "*b 2 2"]
) -> Float[Array, "*b 4"]:
    """The boxes that hold boxes which were turned and sheared about their centres.

    >>> boxes, quarter = jnp.array([0.0, 0.0, 4.0, 2.0]), jnp.array(90.0)
    >>> bounding_boxes(boxes, inverse_map(quarter, jnp.zeros(2))).round().tolist()
    [1.0, -1.0, 3.0, 3.0]
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    x, y = jnp.moveaxis((high - low) / 2.0, -1, 0)
    # The determinant is 1: the matrix itself has the same entries, with a and d swapped.
    a, b, c, d = (jnp.abs(inverse[..., i, j]) for i in (0, 1) for j in (0, 1))
    reach = jnp.stack([d * x + b * y, c * x + a * y], axis=-1)
    centre = (low + high) / 2.0
    return jnp.concatenate([centre - reach, centre + reach], axis=-1)


def sample_points(
    image: Num[Array, "*b h w k"],
    rows: Float[Array, "*b y x"],
    columns: Float[Array, "*b y x"],
    way: str = "",
) -> Float[Array, "*b y x k"]:
    """Reads an image bilinearly, at any points.

    Args:
        image: of any type of numbers.
        rows: pixel-centre coordinates in [0, h - 1], see `resample`.
        columns: likewise in [0, w - 1].
        way: one of `resample.WAYS`; empty: `resample.chosen_way`.

    Raises:
        UserError: for an unknown way.

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> rows, columns = jnp.array([[0.5]]), jnp.array([[1.25]])
    >>> sample_points(image, rows, columns).tolist()
    [[[2.75]]]
    """
    image = jnp.asarray(image, jnp.float32)
    height, width, channels = image.shape[-3:]
    if not resample.gathers(way):
        weights = resample.hat_weights(columns, width)
        lines = jnp.einsum(
            "...yxw,...hwk->...yxhk", weights, image, precision=_PRECISION
        )
        weights = resample.hat_weights(rows, height)
        return jnp.einsum(
            "...yxh,...yxhk->...yxk", weights, lines, precision=_PRECISION
        )
    # Beside every pixel, its neighbours to the right, below, and both. At the last ones
    # the shares are 0, and any finite neighbour will do.
    pair = jnp.concatenate([image, jnp.roll(image, -1, axis=-2)], axis=-1)
    four = jnp.concatenate([pair, jnp.roll(pair, -1, axis=-3)], axis=-1)
    four = four.reshape(*image.shape[:-3], height * width, 4 * channels)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]

    def lookup(values, index):
        return values.at[index].get(
            mode="promise_in_bounds", wrap_negative_indices=False
        )

    for _ in range(image.ndim - 3):
        lookup = jax.vmap(lookup)
    four = lookup(four, (top * width + left).astype(jnp.int32))
    here, beside, below, across = jnp.split(four, 4, axis=-1)
    upper = here * (1.0 - right) + beside * right
    return upper * (1.0 - down) + (below * (1.0 - right) + across * right) * down


def _read_points(
    box: Float[Array, "*#b 4"],
    target: Float[Array, "*b 4"],
    inverse: Float[Array, "*b 2 2"],
    size: int,
) -> tuple[Float[Array, "*b s s"], Float[Array, "*b s s"], Float[Array, "*b s s"]]:
    """Where the pixels of a frame read the frame that a patch is cut from.

    Args:
        box: of the patch where it is cut.
        target: the box that it is stretched over, before it is turned and sheared.
        inverse: see `inverse_map`.
        size: s.

    Returns:
        Columns and rows; and how much of every pixel is covered: 1 up to the outermost
        pixel centres of the patch, and from there down to 0 within a pixel, as in an image
        with a border of zeros.
    """

    def spread(values):
        return values[..., None, None]

    pixels, read, cover = jnp.arange(size, dtype=jnp.float32) + 0.5, [], 1.0
    centre = (target[..., :2] + target[..., 2:]) / 2.0
    x = (pixels - centre[..., :1])[..., None, :]
    y = (pixels - centre[..., 1:])[..., :, None]
    for i in (0, 1):
        offset = spread(inverse[..., i, 0]) * x + spread(inverse[..., i, 1]) * y
        extent = spread(jnp.maximum(target[..., i + 2] - target[..., i], 1.0))
        low, high = spread(box[..., i]), spread(box[..., i + 2])
        at = low + (offset / extent + 0.5) * (high - low) - 0.5
        read.append(jnp.clip(at, low, high - 1.0))
        cover = cover * jnp.clip(extent / 2.0 + 0.5 - jnp.abs(offset), 0.0, 1.0)
    return *read, cover


def paste_tubelets(
    clips: Float[Array, "*b c t s s 3"],
    source: Float[Array, "*b t s s 3"],
    patches: paste.Patches,
    inverse: Float[Array, "*b n t 2 2"],
    way: str = "",
) -> Float[Array, "*b c t s s 3"]:
    """Pastes the same patches, cut from one clip, on several.

    Args:
        clips: to paste on, grey levels, any range.
        source: to cut from, without patches.
        patches: see `paste.Patches`; their boxes are those before turning and shearing.
        inverse: of every patch and frame, see `inverse_map`.
        way: one of `resample.WAYS`; empty: `resample.chosen_way`.

    Raises:
        UserError: for an unknown way.

    Example: the top left one of the four pixels of a patch is at the top right after a
    quarter turn.

    >>> source = jnp.zeros((1, 3, 3, 3)).at[0, 1, 0].set(100.0)
    >>> patches = paste.Patches(
    ...     boxes=jnp.array([[[0.0, 1.0, 2.0, 3.0]]]),
    ...     source=jnp.array([0]),
    ...     shape=jnp.array([paste.RECTANGLE]),
    ...     edge=jnp.array([1.0]),
    ...     opacity=jnp.ones((1, 1)),
    ...     visible=jnp.array([[True]]),
    ...     order=jnp.array([0]),
    ... )
    >>> turn = inverse_map(jnp.array([[90.0]]), jnp.zeros((1, 1, 2)))
    >>> black = jnp.zeros((1, 1, 3, 3, 3))
    >>> print(paste_tubelets(black, source, patches, turn)[0, 0, :, :, 0].round())
    [[  0.   0.   0.]
     [  0. 100.   0.]
     [  0.   0.   0.]]
    """
    size = source.shape[-2]
    clips, source = (jnp.asarray(each, jnp.float32) for each in (clips, source))
    axis = source.ndim - 4  # of the patches, and of the frames of one

    def paste_one(out, chosen):
        boxes, shape, edge, shown, start, turn = (
            paste.take(values, chosen)
            for values in (
                patches.boxes,
                patches.shape,
                patches.edge,
                patches.opacity * patches.visible,
                patches.source,
                inverse,
            )
        )
        box = paste.take(boxes, start)
        mask = paste.opacity_mask(box, shape, edge, size)[..., None]
        image = jnp.concatenate([paste.take(source, start), mask], axis=-1)

        columns, rows, cover = _read_points(box[..., None, :], boxes, turn, size)
        # Frame by frame, and without what XLA would fuse into the gather and compute
        # again for each of its channels.
        read = jax.lax.map(
            lambda points: sample_points(image, points[0], points[1], way),
            (jnp.moveaxis(rows, axis, 0), jnp.moveaxis(columns, axis, 0)),
        )
        read = jnp.moveaxis(read, 0, axis)
        alpha = read[..., 3] * cover * shown[..., None, None]
        patch, alpha = (
            jnp.expand_dims(each, axis) for each in (read[..., :3], alpha[..., None])
        )
        return out + (patch - out) * alpha, None

    out, _ = jax.lax.scan(paste_one, clips, jnp.moveaxis(patches.order, -1, 0))
    return out
