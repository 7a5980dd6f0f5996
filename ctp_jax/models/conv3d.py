"""3-D convolution and batch normalisation: the layers that video networks are made of.

Activations are (b, t, h, w, c), kernels (t, h, w, in, out). Parameters and statistics
are float32; `dtype` is what a layer computes in and returns.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from ctp_jax.errors import UserError

Triple = tuple[int, int, int]

IMPLEMENTATIONS = ("auto", "direct", "taps")


def conv3d(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    strides: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    impl: str = "auto",
) -> Float[Array, "b t_out h_out w_out n"]:
    """Cross-correlation over time, height and width, as in `torch.nn.Conv3d`.

    Args:
        x: input, of the dtype of the kernel.
        kernel: weights.
        strides: of time, height and width.
        padding: zeros added on both sides of time, height and width.
        impl: 'direct', XLA's 3-D convolution; 'taps', the sum over temporal taps of
            2-D convolutions; 'auto', taps where the default backend is a CPU (XLA's
            3-D convolution is slow there, and the input gradient of a strided one
            a hundred times so), direct elsewhere. 'taps' has no forward-mode
            derivative.

    Returns:
        Output of size (size + 2 padding - kernel) // stride + 1 along each axis.

    Raises:
        UserError: for an unknown `impl`.
    """
    if impl not in IMPLEMENTATIONS:
        raise UserError(
            f"config.model.conv = {impl!r}: choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    if impl == "auto":
        impl = "taps" if jax.default_backend() == "cpu" else "direct"
    if impl == "taps":
        return _taps(x, kernel, strides, padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision=_precision(x),
    )


def _precision(x):
    """float32 means float32: without this it is TF32 on GPUs and bfloat16 on TPUs."""
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


def _sum_of_taps(x, kernel, strides, padding):
    """The convolution as 2-D convolutions of shifted frames, one per temporal tap.

    Where a 2-D convolution would be thin (few channels), or a sum of rounded terms
    would lose precision (bfloat16), the taps become channels of a single one.
    Faster, for all layers of R3D-18 and R(2+1)D-18, than one product of all gathered
    taps, than a product per tap, and than space to depth for strides: see
    benchmarks/conv3d.py.
    """
    taps, channels = kernel.shape[0], x.shape[-1]
    x = jnp.pad(x, [(0, 0), (padding[0],) * 2, (0, 0), (0, 0), (0, 0)])
    frames = (x.shape[1] - taps) // strides[0] + 1
    stop = (frames - 1) * strides[0] + 1
    shifted = [x[:, i : i + stop : strides[0]] for i in range(taps)]
    kernels = list(kernel)
    if taps > 1 and (channels < 16 or x.dtype.itemsize < 4):
        shifted = [jnp.concatenate(shifted, axis=-1)]
        kernels = [jnp.concatenate(kernels, axis=-2)]
    terms = [_frames(s, k, strides[1:], padding[1:]) for s, k in zip(shifted, kernels)]
    return sum(terms[1:], start=terms[0])


def _taps_forward(x, kernel, strides, padding):
    return _sum_of_taps(x, kernel, strides, padding), (x, kernel)


def _taps_backward(strides, padding, saved, cotangent):
    x, kernel = saved
    plain = functools.partial(_sum_of_taps, strides=strides, padding=padding)
    taps = kernel.shape[0]
    if strides[0] > 1 or padding[0] >= taps or kernel.shape[:3] == (1, 1, 1):
        return jax.vjp(plain, x, kernel)[1](cotangent)
    _, pullback = jax.vjp(lambda x: plain(x, kernel), x)
    (x_gradient,) = pullback(cotangent)
    return x_gradient, _kernel_gradient(x, kernel, cotangent, strides, padding)


def _kernel_gradient(x, kernel, cotangent, strides, padding):
    """Gradient of the kernel, temporal stride 1: one matrix product per time step.

    The spatial taps of a frame, gathered, times the cotangents of all frames that it
    contributed to. One step's operands fit the cache: twice as fast as XLA's gradient.
    """
    taps, *size, channels, features = kernel.shape
    height, width = cotangent.shape[2:4]
    x = jnp.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding[1:]], (0, 0)])
    margin = taps - 1 - padding[0]
    cotangent = jnp.pad(cotangent, [(0, 0), (margin, margin), *[(0, 0)] * 3])

    def add_frame(total, time):
        frame = lax.dynamic_index_in_dim(x, time, 1, keepdims=False)
        gathered = [
            frame[
                :,
                i : i + (height - 1) * strides[1] + 1 : strides[1],
                j : j + (width - 1) * strides[2] + 1 : strides[2],
            ]
            for i in range(size[0])
            for j in range(size[1])
        ]
        reached = [
            lax.dynamic_index_in_dim(cotangent, time + taps - 1 - i, 1, keepdims=False)
            for i in range(taps)
        ]
        product = jnp.einsum(
            "bhwp,bhwq->pq",
            jnp.concatenate(gathered, axis=-1),
            jnp.concatenate(reached, axis=-1),
            preferred_element_type=jnp.float32,
            precision=_precision(x),
        )
        return total + product, None

    total = jnp.zeros((size[0] * size[1] * channels, taps * features), jnp.float32)
    total, _ = lax.scan(add_frame, total, jnp.arange(x.shape[1]))
    total = total.reshape(*size, channels, taps, features)
    return jnp.moveaxis(total, 3, 0).astype(kernel.dtype)


_taps = jax.custom_vjp(_sum_of_taps, nondiff_argnums=(2, 3))
_taps.defvjp(_taps_forward, _taps_backward)


def _frames(x, kernel, strides, padding):
    """The same 2-D convolution of every frame: kernel (h, w, in, out)."""
    if kernel.shape[:2] == (1, 1) and padding == (0, 0):
        x = x[:, :, :: strides[0], :: strides[1]]
        return jnp.matmul(x, kernel[0, 0], precision=_precision(x))
    frames = x.reshape(-1, *x.shape[2:])
    frames = lax.conv_general_dilated(
        frames,
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=_precision(x),
    )
    return frames.reshape(*x.shape[:2], *frames.shape[1:])


class Conv3D(nn.Module):
    """3-D convolution, initialised Kaiming-normal over the fan-out (He et al. 2015).

    The standard deviation is sqrt(2 / (features * kt * kh * kw)). Parameters: 'kernel'
    (t, h, w, in, out) and, with `use_bias`, 'bias' (out,), zero at first.
    """

    features: int
    kernel_size: Triple
    strides: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    use_bias: bool = False
    dtype: Any = jnp.float32
    impl: str = "auto"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"]
    ) -> Float[Array, "b t_out h_out w_out n"]:
        kernel = self.param(
            "kernel",
            nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            (*self.kernel_size, x.shape[-1], self.features),
        )
        x = conv3d(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            self.strides,
            self.padding,
            self.impl,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(self.dtype)
        return x


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, exactly as PyTorch's.

    `flax.linen.BatchNorm` keeps the biased variance in its running statistics, PyTorch
    the unbiased one; with batches of a few positions they differ, so this is our own.
    Statistics are float32 over the whole batch: under jit that is the batch of all
    devices, which PyTorch calls SyncBN. Parameters: 'scale', 'bias'; collection
    'batch_stats': 'mean', 'var'; all (c,).

    Attributes:
        epsilon: added to the variance.
        momentum: what a running statistic keeps in a step (1 - PyTorch's momentum).
        dtype: of the output.
    """

    epsilon: float = 1e-3
    momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        x = x.astype(jnp.float32)
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            # Not E[x^2] - E[x]^2, which cancels where the mean is large.
            var = jnp.square(x - mean).mean(axes)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        x = (x - mean) * (lax.rsqrt(var + self.epsilon) * scale) + bias
        return x.astype(self.dtype)
