"""3-D convolution and batch normalisation: the layers that video networks are made of.

Activations are (b, t, h, w, c), kernels (t, h, w, in, out). Parameters and statistics
are float32; `dtype` is what a layer computes in and returns.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from ctp_jax.models.conv.conv3d import conv3d
from ctp_jax.models.conv.temporal import Triple


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
