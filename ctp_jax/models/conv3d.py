"""3-D convolution and batch normalisation: the layers that video networks are made of.

Activations are (b, t, h, w, c), kernels (t, h, w, in, out). Parameters and statistics
are float32; `dtype` is what a layer computes in and returns.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from ctp_jax.errors import UserError
from ctp_jax.models import conv2d, fold, taps
from ctp_jax.models.taps import Triple

IMPLEMENTATIONS = ("auto", "direct", "folded", "taps", "winograd")


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
        impl: 'direct', XLA's 3-D convolution; 'folded', the same, but for few channels
            (`ctp_jax.models.fold`); 'taps', the sum over temporal taps of 2-D
            convolutions; 'winograd', the same with fewer products where the
            temporal stride is 1 (`ctp_jax.models.taps`); 'auto', winograd where the
            default backend is a CPU (XLA's 3-D convolution is slow there, gradients of
            strided ones most: benchmarks/conv3d.py), direct elsewhere.
            On CPUs only 'direct' has a forward-mode derivative.

    Returns:
        Output of size (size + 2 padding - kernel) // stride + 1 along each axis.

    Raises:
        UserError: for an unknown `impl`, and where clips are smaller than the kernel.
    """
    if impl not in IMPLEMENTATIONS:
        raise UserError(
            f"config.model.conv = {impl!r}: choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    sizes = zip(x.shape[1:4], kernel.shape[:3], padding, strict=True)
    if any(size + 2 * pad < width for size, width, pad in sizes):
        raise UserError(
            f"clips of {x.shape[1]} frames of {x.shape[3]}x{x.shape[2]} pixels are "
            f"smaller than a kernel of {kernel.shape[:3]} (time, height, width): larger "
            "ones in config.clip, or smaller strides in config.model"
        )
    if impl == "auto":
        impl = "winograd" if jax.default_backend() == "cpu" else "direct"
    if impl == "folded" and x.shape[-1] >= taps.FEW_CHANNELS:
        impl = "direct"
    if impl != "direct":
        dtype = x.dtype
        if jax.default_backend() == "cpu" and dtype.itemsize < 4:
            # CPUs compute in float32 anyway; so results are rounded once.
            x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
        if impl == "folded":
            y = fold.convolve(x, kernel, strides, padding)
        else:
            y = taps.convolve(x, kernel, strides, padding, impl == "winograd")
        return y.astype(dtype)
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision=conv2d.precision(x),
    )


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
