"""A strided convolution of few channels as one of many, for matrix units.

The stem sees 3 channels at stride 2: matrix units, and layouts made for them, want 8 or
more. What an output pixel sees of time, and the phases of the strides in space (known as
space-to-depth), become channels of a 2-D convolution of stride 1: 36 of them for the
stem, whose kernel of 3x7x7 becomes 4x4, a quarter of it zeros.

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
    """3-D cross-correlation, by a 2-D one without strides.

    Args:
        x: clips.
        kernel: weights, of the dtype of the clips.
        strides: of time, height and width.
        padding: zeros on both sides of time, height and width.
    """
    x = temporal.see(x, kernel.shape[0], strides[0], padding[0])
    kernel = jnp.concatenate(list(kernel), axis=-2)
    axes = []
    for size, seen, stride, pad in zip(
        x.shape[2:4], kernel.shape[:2], strides[1:], padding[1:], strict=True
    ):
        out = (size + 2 * pad - seen) // stride + 1
        before = -pad % stride  # So that windows begin at whole blocks of the stride.
        blocks = -(-(before + seen) // stride)
        low = pad + before
        high = stride * (out - 1 + blocks) - size - low
        after = stride * blocks - seen - before
        axes.append(((low, high, 0), (before, after, 0)))
    (x_rows, k_rows), (x_columns, k_columns) = axes
    zero, none = jnp.zeros((), x.dtype), (0, 0, 0)
    x = _blocks(lax.pad(x, zero, [none, none, x_rows, x_columns, none]), strides[1:])
    kernel = lax.pad(kernel, zero, [k_rows, k_columns, none, none])
    # The kernel's features are like frames' pixels seen from its channels.
    kernel = _blocks(jnp.moveaxis(kernel, -1, 0)[:, None], strides[1:])
    kernel = jnp.moveaxis(kernel[:, 0], 0, -1)
    return frames_lib.convolve(x, kernel, (1, 1), (0, 0))


def _blocks(x, strides):
    """(b, t, h, w, c) to (b, t, h / s, w / s, s s c)."""
    clips, frames, height, width, channels = x.shape
    rows, columns = strides
    x = x.reshape(clips, frames, height // rows, rows, -1, columns, channels)
    return x.swapaxes(3, 4).reshape(clips, frames, height // rows, width // columns, -1)
