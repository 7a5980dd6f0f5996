"""Bilinear sampling of axis-aligned windows, as a weight matrix per axis.

Resizing, cropping, pasting a patch and RoIAlign all read an image at the points of a
grid whose rows and columns are independent. Bilinear interpolation then factorises:
`out[y, x] = sum_h sum_w rows[y, h] columns[x, w] image[h, w]`, two matrix products and
no gather. This module makes the matrices and applies them.

Conventions: pixel i of an axis covers [i, i + 1) and its centre is i + 0.5, so a
coordinate used here, `i`, addresses a *centre*. Axes are (..., h, w, channels).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

# float32 products default to TF32 or bfloat16 on accelerators: off by a grey level.
_PRECISION = jax.lax.Precision.HIGHEST


def hat_weights(
    coordinates: Float[Array, "*b out"], size: int
) -> Float[Array, "*b out in"]:
    """Linear interpolation weights of `size` pixels at each coordinate.

    Args:
        coordinates: pixel-centre coordinates, in pixels. A row outside
            [0, size - 1] loses the share of weight that falls outside.
        size: number of input pixels.

    Returns:
        float32 (*b, out, size). Rows of coordinates inside sum to 1.
    """
    pixels = jnp.arange(size, dtype=jnp.float32)
    return jnp.maximum(0.0, 1.0 - jnp.abs(coordinates[..., None] - pixels))


def window_weights(
    start: Float[Array, "*b"],
    length: Float[Array, "*b"],
    extent: Float[Array, "*b"],
    in_size: int,
    out_size: int,
) -> Float[Array, "*b out in"]:
    """Weights that stretch the window [start, start + length) over `out_size` pixels.

    Half-pixel centres, clamped to the image's edge, no antialiasing: what
    `cv2.resize` with INTER_LINEAR and torch's `interpolate(align_corners=False)` do.

    Args:
        start: where the window begins, in input pixels.
        length: its length, in input pixels.
        extent: how many of the `in_size` pixels are image (the rest is padding).
        in_size: input pixels.
        out_size: output pixels.
    """
    steps = (jnp.arange(out_size, dtype=jnp.float32) + 0.5) / out_size
    coordinates = start[..., None] + length[..., None] * steps - 0.5
    coordinates = jnp.clip(coordinates, 0.0, extent[..., None] - 1.0)
    return hat_weights(coordinates, in_size)


def sample(
    image: Num[Array, "*b h w k"],
    rows: Float[Array, "*b y h"],
    columns: Float[Array, "*b x w"],
) -> Float[Array, "*b y x k"]:
    """Reads an image on the grid of two weight matrices."""
    return sample_frames(image[..., None, :, :, :], rows, columns)[..., 0, :, :, :]


def sample_frames(
    frames: Num[Array, "*b t h w k"],
    rows: Float[Array, "*b y h"],
    columns: Float[Array, "*b x w"],
) -> Float[Array, "*b t y x k"]:
    """`sample` of every frame of a clip with the same two matrices."""
    frames = jnp.asarray(frames, jnp.float32)
    for weights, equation in (
        (rows, "...yh,...thwk->...tywk"),
        (columns, "...xw,...tywk->...tyxk"),
    ):
        frames = jnp.einsum(equation, weights, frames, precision=_PRECISION)
    return frames


def sample_over_time(
    image: Float[Array, "*b h k w"],
    rows: Float[Array, "*b t y h"],
    columns: Float[Array, "*b t x w"],
) -> Float[Array, "*b t y k x"]:
    """`sample` of one image with other matrices in every frame.

    Channels lie between the axes here. So both products, (t y) h by h (k w) and in each
    frame (y k) w by w x, are of whole matrices, and nothing is transposed for them.
    """
    out = jnp.einsum("...tyh,...hkw->...tykw", rows, image, precision=_PRECISION)
    return jnp.einsum("...tykw,...txw->...tykx", out, columns, precision=_PRECISION)


def crop_resize_flip(
    frames: Num[Array, "*b t h w k"],
    window: Float[Array, "*b 4"],
    extent: Float[Array, "*b 2"],
    flip: Array,
    size: int,
) -> Float[Array, "*b t size size k"]:
    """Cuts a window out of every frame, resizes it to a square and may mirror it.

    Args:
        frames: frames, zero-padded at the bottom and right.
        window: y, x, height, width in pixels; may be fractional.
        extent: height and width of what is image.
        flip: bool (*b): mirror left-right.
        size: side of the result, in pixels.
    """
    height, width = frames.shape[-3:-1]
    rows = window_weights(window[..., 0], window[..., 2], extent[..., 0], height, size)
    columns = window_weights(
        window[..., 1], window[..., 3], extent[..., 1], width, size
    )
    # Mirroring the output is reversing the rows of the column matrix.
    columns = jnp.where(flip[..., None, None], columns[..., ::-1, :], columns)
    return sample_frames(frames, rows, columns)
