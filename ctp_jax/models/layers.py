"""Convolution, batch normalisation, max-pooling: what video networks are made of.

Activations are (b, t, h, w, c), kernels (t, h, w, in, out). Parameters and statistics
are float32; `dtype` is what a layer computes in and returns.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from ctp_jax.errors import UserError
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
    devices, which PyTorch calls SyncBN. With several groups, each is normalised with
    its own statistics in training, as PyTorch does on as many devices without SyncBN;
    the running statistics are updated with the mean over the groups. Parameters:
    'scale', 'bias'; collection 'batch_stats': 'mean', 'var'; all (c,).

    Attributes:
        epsilon: added to the variance.
        momentum: share of its value that a running statistic keeps in a step, 1 minus
            PyTorch's momentum.
        dtype: of the output.
        groups: contiguous equal parts of the batch, the first axis.
    """

    epsilon: float = 1e-3
    momentum: float = 0.9
    dtype: Any = jnp.float32
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        """Normalises x, in training with the statistics of the batch.

        Raises:
            UserError: in training, if the batch does not divide into the groups.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        batch = x.shape
        if train:
            self._check_groups(len(x))
            mean, var = _statistics(x, self.groups)
            if not self.is_initializing():
                count = x.size // mean.size
                unbiased = var * (count / max(count - 1, 1))
                new = [each.reshape(-1, *shape).mean(0) for each in (mean, unbiased)]
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * new[0]
                running_var.value = keep * running_var.value + (1 - keep) * new[1]
            if self.groups > 1:
                x = x.reshape(self.groups, -1, *x.shape[1:])
        else:
            mean, var = running_mean.value, running_var.value
        x = (x - mean) * (lax.rsqrt(var + self.epsilon) * scale) + bias
        return x.reshape(batch).astype(self.dtype)

    def _check_groups(self, clips):
        if clips % self.groups:
            raise UserError(
                f"config.model.batch_norm_groups = {self.groups} does not divide the "
                f"{clips} clips that are computed together: choose a divisor of "
                f"{clips}, or another config.batch_size"
            )


def _statistics(x, groups):
    """Mean and biased variance of the groups of x (b, ..., c): (c,), or (g, 1, ..., c).

    Not E[x^2] - E[x]^2, which cancels where the mean is large. So the variance waits for
    the mean, and over several devices each would be a message of its own. Where a step
    names its mesh (`jax.sharding.use_abstract_mesh`), each device computes both of its own
    share; they travel together and are combined exactly (Chan, Golub and LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
    """
    mesh, channels = jax.sharding.get_abstract_mesh(), x.shape[-1]
    # No shares where one would reach into two groups, and none of a part of a clip.
    shares = 1 if mesh.empty or mesh.size % groups else mesh.size
    if shares <= groups or len(x) % shares:
        mean, var = _moments(x, groups)
    else:
        both = jnp.stack(_moments(x, shares)).reshape(2, shares, channels)
        everywhere = NamedSharding(mesh, PartitionSpec())
        both = lax.with_sharding_constraint(both, everywhere)
        means, vars = both.reshape(2, groups, -1, channels)
        mean = means.mean(1, keepdims=True)
        var = (vars + jnp.square(means - mean)).mean(1)
    shape = (groups, *(1,) * (x.ndim - 1), channels) if groups > 1 else (channels,)
    return mean.reshape(shape), var.reshape(shape)


def _moments(x, parts):
    """Mean and biased variance of contiguous parts."""
    if parts > 1:
        x = x.reshape(parts, -1, *x.shape[1:])
    axes = tuple(range(int(parts > 1), x.ndim - 1))
    mean = x.mean(axes, keepdims=True)
    return mean, jnp.square(x - mean).mean(axes, keepdims=True)


class Block(nn.Module):
    """Base class of the blocks of a network: what their layers have in common.

    Attributes:
        features: channels of the output.
        epsilon: of batch normalisation.
        batch_norm_groups: of batch normalisation, see `BatchNorm.groups`.
        dtype: that the layers compute in.
        impl: how convolutions are computed, see `ctp_jax.models.conv.conv3d`.
        relu: see `ctp_jax.models.base.Encoder`.
    """

    features: int
    epsilon: float
    batch_norm_groups: int
    dtype: Any
    impl: str
    relu: Callable[[Array], Array]

    def _conv(self, name, features, kernel_size, strides=(1, 1, 1), use_bias=False):
        """A convolution of odd size, padded: an axis of n becomes ceil(n / stride)."""
        padding = tuple(size // 2 for size in kernel_size)
        return Conv3D(
            features,
            kernel_size,
            strides,
            padding,
            use_bias,
            dtype=self.dtype,
            impl=self.impl,
            name=name,
        )

    def _norm(self, name):
        return BatchNorm(
            self.epsilon, dtype=self.dtype, groups=self.batch_norm_groups, name=name
        )


def block_options(module: Any) -> dict[str, Any]:
    """What a `Block` takes over from the network or the block that it is part of."""
    names = ("epsilon", "batch_norm_groups", "dtype", "impl", "relu")
    return {name: getattr(module, name) for name in names}


def max_pool(
    x: Float[Array, "b t h w c"], strides: Triple, window: Triple = (1, 1, 1)
) -> Float[Array, "b t_out h_out w_out c"]:
    """Max-pooling: an axis of n becomes ceil(n / stride). NaN is the largest number, and of
    equal maxima the first gets the gradient, as in PyTorch.

    Args:
        x: activations.
        strides: of time, height and width.
        window: along each axis at least the stride. As much as it is larger, it reaches
            beyond the edges: `torch.nn.MaxPool3d(3, 2, padding=1)`. Where it is not, the
            last one may be cut off, as with `ceil_mode=True`.

    Not `flax.linen.max_pool`, whose gradient takes five times as long on CPUs, and not
    `jnp.max`: its gradient asks which elements equal the maximum, and where XLA computes
    x a second time for that, rounded in another way, none does, and 0 / 0 is NaN.
    """
    # The last axis first, so that of equal ones the first in memory is taken.
    for axis in (3, 2, 1):
        stride = strides[axis - 1]
        size = max(stride, window[axis - 1])
        before, starts = (size - stride + 1) // 2, -(-x.shape[axis] // stride)
        after = (starts - 1) * stride + size - x.shape[axis] - before
        edges = [(0, 0, 0)] * x.ndim
        edges[axis] = (before, after, 0)
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
        stop = (starts - 1) * stride + 1
        parts = [
            lax.slice_in_dim(x, start, start + stop, stride, axis)
            for start in range(size)
        ]
        x = functools.reduce(
            lambda a, b: jnp.where((a >= b) | jnp.isnan(a), a, b), parts
        )
    return x
