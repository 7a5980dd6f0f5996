"""Space-to-depth: a strided convolution of few channels as one of many channels.

The stem of R3D-18 has 3 input channels and stride 2, while matrix units, and the memory
layouts made for them, need 8 channels or more. Here the frames that an output frame
depends on, and the phases of the spatial strides, become channels of a 2-D convolution
of stride 1. For the stem these are 36 channels, and its kernel of 3x7x7 becomes 4x4, of
which a quarter is zeros.

Symbols as in `ctp_jax.models.conv.temporal`.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ctp_jax.models.conv import frames as frames_lib
from ctp_jax.models.conv import temporal


def convolve(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    strides: temporal.Triple,
    padding: temporal.Triple,
) -> Float[Array, "b t_out h_out w_out n"]:
    """3-D cross-correlation, computed as a 2-D one without strides.

    Args:
        x: clips.
        kernel: weights, of the dtype of the clips.
        strides: of time, height and width.
        padding: zeros added on both sides of time, height and width.
    """
    x = temporal.see(x, kernel.shape[0], strides[0], padding[0])
    kernel = jnp.concatenate(list(kernel), axis=-2)
    axes = []
    for size, seen, stride, pad in zip(
        x.shape[2:4], kernel.shape[:2], strides[1:], padding[1:], strict=True
    ):
        out = (size + 2 * pad - seen) // stride + 1
        before = -pad % stride  # Windows then begin at whole blocks of the stride.
        blocks = -(-(before + seen) // stride)
        low = pad + before
        high = stride * (out - 1 + blocks) - size - low
        after = stride * blocks - seen - before
        axes.append(((low, high, 0), (before, after, 0)))
    (x_rows, k_rows), (x_columns, k_columns) = axes
    zero, none = jnp.zeros((), x.dtype), (0, 0, 0)
    x = _blocks(lax.pad(x, zero, [none, none, x_rows, x_columns, none]), strides[1:])
    kernel = lax.pad(kernel, zero, [k_rows, k_columns, none, none])
    # The kernel is regrouped like a frame, with its features as the clips.
    kernel = _blocks(jnp.moveaxis(kernel, -1, 0)[:, None], strides[1:])
    kernel = jnp.moveaxis(kernel[:, 0], 0, -1)
    return frames_lib.convolve(x, kernel, (1, 1), (0, 0))


def _blocks(x, strides):
    """(b, t, h, w, c) to (b, t, h / s, w / s, s s c)."""
    clips, frames, height, width, channels = x.shape
    rows, columns = strides
    x = x.reshape(clips, frames, height // rows, rows, -1, columns, channels)
    return x.swapaxes(3, 4).reshape(clips, frames, height // rows, width // columns, -1)
