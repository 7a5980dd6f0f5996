"""3-D convolutions by oneDNN, for CPUs and an XLA that calls it.

XLA's own 3-D convolution (`ctp_jax.models.conv.direct`) is slow on CPUs. That of jaxlib 0.12
can be told to call oneDNN for it (`ctp_jax.devices.use_onednn`), which is fast forwards, and
for the input's gradient where there are no strides. These gradients are ours instead
(`ctp_jax.models.conv.temporal`):

- that of the input of strided convolutions, which XLA expresses with zeros between the
  numbers of the output, and does not give to oneDNN;
- that of the kernel of wide layers, which XLA expresses as a convolution whose kernel is as
  large as a clip.

    python -m benchmarks.conv3d --impls direct winograd onednn --batch 16 --layers thin1
    python -m benchmarks.conv3d --impls direct winograd onednn --layers stage1 to_stage3

compares them, where 'direct' is oneDNN for everything. Symbols as in `temporal`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ctp_jax.models.conv import direct, temporal
from ctp_jax.models.conv.frames import Triple

_WIDE = 32
"""With more features than these, the kernel's gradient is ours."""


@functools.cache
def is_called() -> bool:
    """Whether XLA calls oneDNN for convolutions on the CPUs of this process."""
    one = functools.partial(direct.convolve, strides=(1, 1, 1), padding=(1, 1, 1))
    x = jax.ShapeDtypeStruct((1, 8, 8, 8, 8), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 8, 8), jnp.float32)
    return "__onednn$" in (jax.jit(one).lower(x, kernel).compile().as_text() or "")


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
    return direct.convolve(x, kernel, strides, padding)


def _save(x, kernel, strides, padding):
    return _convolve(x, kernel, strides, padding), (x, kernel)


def _gradients(strides, padding, saved, cotangent):
    x, kernel = saved
    at = {"strides": strides, "padding": padding}
    theirs = functools.partial(direct.convolve, **at)
    ours = functools.partial(temporal.convolve, winograd=True, **at)
    if strides == (1, 1, 1):
        x_gradient = _input_gradient(kernel, cotangent, padding)
    else:
        _, pullback = jax.vjp(lambda x: ours(x, kernel), x)
        (x_gradient,) = pullback(cotangent)
    by_kernel = ours if kernel.shape[-1] > _WIDE else theirs
    _, pullback = jax.vjp(lambda kernel: by_kernel(x, kernel), kernel)
    return x_gradient, *pullback(cotangent)


def _input_gradient(kernel, cotangent, padding):
    """Of a convolution without strides: that with the flipped and transposed kernel."""
    margin = tuple(k - 1 - p for k, p in zip(kernel.shape[:3], padding, strict=True))
    # Without the barrier, XLA flips and transposes at once, which takes three times as long.
    flipped = lax.optimization_barrier(lax.rev(kernel, (0, 1, 2)))
    return direct.convolve(cotangent, flipped.swapaxes(3, 4), (1, 1, 1), margin)


_convolve.defvjp(_save, _gradients)
