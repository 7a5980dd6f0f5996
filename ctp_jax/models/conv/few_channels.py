"""The gradient of the kernel of layers with few channels and large frames, for CPUs.

It is a sum over clips, frames and pixels of products of a few numbers, so what takes time is
not the products but gathering what they multiply: the input as each tap sees it. Half of the
taps' shifts are made of the input, here, and half of the cotangent, of one frame of all clips
at a time, so that both stay in the caches:

    python -m benchmarks.conv3d --layers thin1 --batch 16 --impls direct winograd onednn

Symbols as in `ctp_jax.models.conv.temporal`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ctp_jax.models.conv.frames import AT_ONCE, LARGE, Triple

_CHANNELS = range(8, 33)
"""With fewer there is less to gather the usual way, and with more, products take most of
the time."""


def applies(x: tuple[int, ...], kernel: tuple[int, ...], strides: Triple) -> bool:
    """Whether a layer's kernel gets its gradient here.

    Args:
        x: shape of the input, (b, t, h, w, c).
        kernel: shape, (kt, kh, kw, c, n).
        strides: of time, height and width.
    """
    clips, _, height, width, channels = x
    taps, rows, columns, _, features = kernel
    gathered = clips * height * width * (rows * channels + taps * columns * features)
    return (
        strides == (1, 1, 1)
        and (rows, columns) != (1, 1)
        and channels in _CHANNELS
        and height * width >= LARGE
        # More would leave the caches, and be slower than the usual way.
        and gathered <= AT_ONCE
    )


def convolve(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    padding: Triple,
    other: Callable[[Array, Array], Array],
) -> Float[Array, "b t_out h_out w_out n"]:
    """3-D cross-correlation without strides. It has no forward-mode derivative.

    Args:
        x: clips, float32.
        kernel: weights.
        padding: zeros added on both sides of time, height and width.
        other: computes the same of clips and kernel, and its gradient is the input's.
    """
    return _convolve(x, kernel, padding, other)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, padding, other):
    return other(x, kernel)


def _save(x, kernel, padding, other):
    return other(x, kernel), (x, kernel)


def _gradients(padding, other, saved, cotangent):
    x, kernel = saved
    _, x_gradient = jax.vjp(lambda x: other(x, kernel), x)
    return *x_gradient(cotangent), _kernel_gradient(x, kernel, cotangent, padding)


_convolve.defvjp(_save, _gradients)


def _kernel_gradient(x, kernel, cotangent, padding):
    *size, channels, features = kernel.shape
    taps, rows, columns = size
    # Frame t of the input meets frames t + padding - tap of the cotangent.
    margin = taps - 1 - padding[0]
    cotangent = _moved(cotangent, 1, margin, x.shape[1] + taps - 1)

    def add(total, frame):
        seen = lax.dynamic_index_in_dim(x, frame, 1, keepdims=False)
        height = cotangent.shape[2]
        seen = [_moved(seen, 1, padding[1] - i, height) for i in range(rows)]
        met = lax.dynamic_slice_in_dim(cotangent, frame, taps, 1)
        met = [
            _moved(met[:, taps - 1 - tap], 2, j - padding[2], x.shape[3])
            for tap in range(taps)
            for j in range(columns)
        ]
        # Without the barrier, XLA would gather inside of the product, number by number.
        seen, met = lax.optimization_barrier(
            (jnp.concatenate(seen, -1), jnp.concatenate(met, -1))
        )
        products = jnp.einsum(
            "bhwp,bhwq->bpq", seen, met, precision=lax.Precision.HIGHEST
        )
        return total + products.sum(0), None

    total = jnp.zeros((rows * channels, taps * columns * features), x.dtype)
    total, _ = lax.scan(add, total, jnp.arange(x.shape[1]))
    total = total.reshape(rows, channels, taps, columns, features)
    return total.transpose(2, 0, 3, 1, 4)


def _moved(x, axis, by, size):
    """An axis moved by so many places towards its end, and cut or filled up to a size."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (by, size - x.shape[axis] - by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)
