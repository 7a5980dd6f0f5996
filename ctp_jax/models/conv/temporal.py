"""3-D convolutions as sums of 2-D ones, for CPUs.

Each temporal tap g_i of the kernel is a convolution of frames
(`ctp_jax.models.conv.frames`). The results are shifted in time and summed:

    y[t] = sum_i g_i * x[stride t + i - padding]

With three taps and stride 1, Winograd's minimal filtering algorithm F(2, 3) (Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1)
computes two outputs with four convolutions instead of six:

    m_0 = g_0 * (x[t-1] - x[t+1])                        y[t]   = m_0 + m_1 + m_2
    m_1 = (g_0 + g_1 + g_2) / 2 * (x[t] + x[t+1])        y[t+1] = m_1 - m_2 - m_3
    m_2 = (g_0 - g_1 + g_2) / 2 * (x[t+1] - x[t])
    m_3 = g_2 * (x[t] - x[t+2])

It is applied along time only, where it costs no more than sums of whole frames. The
gradients are those of this formula, so they take four products instead of six as well.

Symbols in shapes: b clips, t frames, h w pixels, c channels in, n features out.
Kernels are (kt, kh, kw, c, n); strides and paddings of time, height and width.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ctp_jax.models.conv import few_frames, frames
from ctp_jax.models.conv.frames import Triple

FEW_CHANNELS = 16


def convolve(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    strides: Triple,
    padding: Triple,
    winograd: bool = False,
) -> Float[Array, "b t_out h_out w_out n"]:
    """3-D cross-correlation as a sum over temporal taps.

    On CPUs it has no forward-mode derivative.

    Args:
        x: clips.
        kernel: weights, of the dtype of the clips.
        strides: of time, height and width.
        padding: zeros added on both sides of time, height and width.
        winograd: use F(2, 3) along time where it applies: to kernels of three taps with
            temporal stride and padding 1, over several frames of at least
            `FEW_CHANNELS` channels, and in float32 (in bfloat16, sums of rounded frames
            lose precision).
    """
    taps, count, channels = kernel.shape[0], x.shape[1], x.shape[-1]
    points = kernel.shape[1:3] == (1, 1) and padding[1:] == (0, 0)
    if (
        winograd
        and not points  # matrix products, which sums of frames would slow down
        and count > 1
        and (taps, strides[0], padding[0]) == (3, 1, 1)
        and channels >= FEW_CHANNELS
        and x.dtype == jnp.float32
    ):
        return _winograd(x, kernel, strides[1:], padding[1:])
    if few_frames.applies(count, taps, strides[0], padding[0]):
        return few_frames.convolve(x, kernel, strides, padding)
    if points and strides == (1, 1, 1) and jax.default_backend() == "cpu":
        return _pointwise(x, kernel[:, 0, 0], padding[0])
    return _sum_of_taps(x, kernel, strides, padding)


def _over_time(x, before, after):
    """Adds zero frames at both ends; negative numbers cut frames off."""
    edges = [(0, 0, 0), (before, after, 0), *[(0, 0, 0)] * (x.ndim - 2)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _shifted(x, taps, stride, padding):
    """The input as each tap sees it: one array of t_out frames per tap."""
    x = _over_time(x, padding, padding)
    count = (x.shape[1] - taps) // stride + 1
    stop = (count - 1) * stride + 1
    return [x[:, i : i + stop : stride] for i in range(taps)]


def see(
    x: Float[Array, "b t h w c"], taps: int, stride: int, padding: int
) -> Float[Array, "b t_out h w _"]:
    """The input frames that each output frame depends on, concatenated as channels."""
    return jnp.concatenate(_shifted(x, taps, stride, padding), axis=-1)


def _sum_of_taps(x, kernel, strides, padding):
    """One 2-D convolution per tap.

    With few channels each of them would be inefficient, and in bfloat16 the sum of
    rounded terms would lose precision. There the taps become channels of a single
    convolution.
    """
    taps, channels = kernel.shape[0], x.shape[-1]
    shifted = _shifted(x, taps, strides[0], padding[0])
    kernels = list(kernel)
    if taps > 1 and (channels < FEW_CHANNELS or x.dtype.itemsize < 4):
        shifted = [jnp.concatenate(shifted, axis=-1)]
        kernels = [jnp.concatenate(kernels, axis=-2)]
    terms = [
        frames.convolve(s, k, strides[1:], padding[1:])
        for s, k in zip(shifted, kernels)
    ]
    return sum(terms[1:], start=terms[0])


def _winograd(x, kernel, strides, padding):
    """F(2, 3), see the docstring of this module."""
    count = x.shape[1]

    def filtered(x, kernel):
        return frames.convolve(x, kernel, strides, padding)

    first, middle, last = kernel
    if count == 2:  # The frames before and after are zero: three products are enough.
        both = filtered(x[:, :1] + x[:, 1:], middle)
        y = [
            both + filtered(x[:, 1:], last - middle),
            both + filtered(x[:, :1], first - middle),
        ]
        return jnp.concatenate(y, axis=1)
    pairs = -(-count // 2)
    x = _over_time(x, 0, 2 * pairs - count)
    x = x.reshape(len(x), pairs, 2, *x.shape[2:])
    even, odd = x[:, :, 0], x[:, :, 1]  # t and t + 1
    before, after = _over_time(odd, 1, -1), _over_time(even, -1, 1)  # t - 1, t + 2
    m0 = filtered(before - odd, first)
    m1 = filtered(even + odd, (first + middle + last) / 2)
    m2 = filtered(odd - even, (first - middle + last) / 2)
    m3 = filtered(even - after, last)
    y = jnp.stack([m0 + m1 + m2, m1 - m2 - m3], axis=2)
    return y.reshape(len(y), 2 * pairs, *y.shape[3:])[:, :count]


# Kernels of one pixel are matrix products over all pixels. They are limited by memory
# bandwidth, so the shifted copies are made of the side that has fewer channels.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pointwise(x, kernel, padding):
    """A convolution over time alone, for CPUs: kernel (kt, c, n), stride 1."""
    taps, channels, features = kernel.shape
    precision = frames.precision(x)
    if features > channels:
        x = see(x, taps, 1, padding)
        return jnp.matmul(x, kernel.reshape(-1, features), precision=precision)
    products = [jnp.matmul(x, tap, precision=precision) for tap in kernel]
    return _shifted_sum(products, padding, padding)


def _shifted_sum(products, before, after):
    """Sums the products of the taps, each shifted to its output frame."""
    last = len(products) - 1
    terms = [
        _over_time(product, before - i, after - (last - i))
        for i, product in enumerate(products)
    ]
    return sum(terms[1:], start=terms[0])


def _pointwise_save(x, kernel, padding):
    return _pointwise(x, kernel, padding), (x, kernel)


def _pointwise_gradients(padding, saved, cotangent):
    x, kernel = saved
    taps, channels, features = kernel.shape
    precision, margin = frames.precision(x), taps - 1 - padding
    # The input's gradient is a convolution with the flipped, transposed kernel.
    backward = kernel[::-1].swapaxes(1, 2)
    if features > channels:
        products = [jnp.matmul(cotangent, tap, precision=precision) for tap in backward]
        x_gradient = _shifted_sum(products, margin, margin)
        seen = see(x, taps, 1, padding)
        gradient = frames.sum_of_products(seen, cotangent).reshape(kernel.shape)
    else:
        seen = see(cotangent, taps, 1, margin)
        matrix = backward.reshape(-1, channels)
        x_gradient = jnp.matmul(seen, matrix, precision=precision)
        gradient = frames.sum_of_products(x, seen).reshape(channels, taps, features)
        gradient = gradient[:, ::-1].swapaxes(0, 1)
    return x_gradient, gradient


_pointwise.defvjp(_pointwise_save, _pointwise_gradients)
