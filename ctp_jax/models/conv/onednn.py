"""3-D convolutions by oneDNN, for CPUs and an XLA that has it.

XLA's own 3-D convolution is slow on CPUs. From jaxlib 0.12 on, it can be told to call
oneDNN for it (`ctp_jax.devices.prepare`), which is fast forwards, and for the input's
gradient where there are no strides. The others are taken from elsewhere:

- the input's gradient of strided convolutions, which XLA expresses with holes between the
  numbers of the output, as oneDNN has no convolution of;
- the kernel's gradient of wide layers, which XLA expresses as a convolution whose kernel is
  the output.

Symbols as in `ctp_jax.models.conv.temporal`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ctp_jax.models.conv import temporal
from ctp_jax.models.conv.frames import Triple

_WIDE = 32
"""Features from which on the kernel's gradient is ours (`benchmarks.conv3d`)."""


@functools.cache
def is_there() -> bool:
    """Whether XLA calls oneDNN for convolutions in this process."""
    if jax.default_backend() != "cpu":
        return False
    shapes = [
        jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 8, 8, 8, 8), (3, 3, 3, 8, 8))
    ]
    one = functools.partial(direct, strides=(1, 1, 1), padding=(1, 1, 1))
    return "__onednn$" in (jax.jit(one).lower(*shapes).compile().as_text() or "")


def direct(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    strides: Triple,
    padding: Triple,
) -> Float[Array, "b t_out h_out w_out n"]:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision=lax.Precision.HIGHEST if x.dtype == jnp.float32 else None,
    )


def convolve(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    strides: Triple,
    padding: Triple,
) -> Float[Array, "b t_out h_out w_out n"]:
    """3-D cross-correlation. It has no forward-mode derivative.

    Args:
        x: clips, float32.
        kernel: weights.
        strides: of time, height and width.
        padding: zeros added on both sides of time, height and width.
    """
    return _convolve(x, kernel, strides, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, strides, padding):
    return direct(x, kernel, strides, padding)


def _save(x, kernel, strides, padding):
    return direct(x, kernel, strides, padding), (x, kernel)


def _gradients(strides, padding, saved, cotangent):
    x, kernel = saved
    at = {"strides": strides, "padding": padding}
    ours = functools.partial(temporal.convolve, winograd=True, **at)
    theirs = functools.partial(direct, **at)
    to_x = theirs if strides == (1, 1, 1) else ours
    to_kernel = ours if kernel.shape[-1] > _WIDE else theirs
    _, x_gradient = jax.vjp(lambda x: to_x(x, kernel), x)
    _, kernel_gradient = jax.vjp(lambda kernel: to_kernel(x, kernel), kernel)
    return *x_gradient(cotangent), *kernel_gradient(cotangent)


_convolve.defvjp(_save, _gradients)
