"""3-D convolutions of clips with fewer frames than temporal taps, or with one frame left.

Networks that halve the number of frames stage by stage end there: two frames, three
taps. Along time nothing is then left to slide over, and frames can be channels: each pair
of an input frame and an output frame meets at one tap, or at none. With two frames, three
taps, and padding 1,

    y[0] = g_1 * x[0] + g_2 * x[1]
    y[1] = g_0 * x[0] + g_1 * x[1]

is one 2-D convolution of twice the channels. It takes four products; over padded frames
there are six. And XLA recognises its kernel's gradient on GPUs: that of a 3-D
convolution whose output is shorter than its kernel becomes a forward convolution with
the output as its kernel, for which cuDNN has no fast algorithm.

Symbols as in `ctp_jax.models.conv.temporal`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ctp_jax.models.conv import frames as frames_lib
from ctp_jax.models.conv.frames import Triple


def applies(frames: int, taps: int, stride: int, padding: int) -> bool:
    """Whether it takes no more products than a convolution over padded frames does.

    Args:
        frames: of the input.
        taps: of the kernel, along time.
        stride: along time.
        padding: zero frames on both sides.
    """
    one = padding < taps and _length(frames, taps, stride, padding) == 1
    return frames < taps or one


def _length(frames, taps, stride, padding):
    """Frames of the output."""
    return (frames + 2 * padding - taps) // stride + 1


def convolve(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    strides: Triple,
    padding: Triple,
) -> Float[Array, "b t_out h_out w_out n"]:
    """3-D cross-correlation, computed as a 2-D one.

    Args:
        x: clips.
        kernel: weights, of the dtype of the clips.
        strides: of time, height and width.
        padding: zeros added on both sides of time, height and width.
    """
    taps, features = kernel.shape[0], kernel.shape[-1]
    stride, pad = strides[0], padding[0]
    clips, frames, height, width, _ = x.shape
    out = _length(frames, taps, stride, pad)
    none = jnp.zeros_like(kernel[0])

    def tap(number):
        return kernel[number] if 0 <= number < taps else none

    read = min(frames, stride * (out - 1) + taps - pad)  # a stride may leave some out
    rows = [
        jnp.concatenate([tap(i - stride * o + pad) for o in range(out)], axis=-1)
        for i in range(read)
    ]
    matrix = jnp.concatenate(rows, axis=-2)
    x = jnp.moveaxis(x[:, :read], 1, 3).reshape(clips, 1, height, width, -1)
    y = frames_lib.convolve(x, matrix, strides[1:], padding[1:])
    y = y.reshape(clips, *y.shape[2:4], out, features)
    return jnp.moveaxis(y, 3, 1)
