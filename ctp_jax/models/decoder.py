"""Classification and reconstruction of clips from their features (Yao et al., PRP).

Symbols in shapes: b clips, t h w positions and c channels of the features, k classes.
"""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ctp_jax.errors import UserError
from ctp_jax.models.conv.temporal import Triple
from ctp_jax.models.heads import pooled
from ctp_jax.models.layers import Block, block_options


class Upsampling(nn.Module):
    """Transposed convolution whose kernel is as large as its strides, with bias.

    As `torch.nn.ConvTranspose3d(c, features, strides, strides)`: windows of the output do
    not overlap, so it is one product per position. Parameters: 'kernel'
    (t, h, w, in, out), 'bias' (out,), zero at first.
    """

    features: int
    strides: Triple
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"]
    ) -> Float[Array, "b t_out h_out w_out n"]:
        channels = x.shape[-1]
        # Every output has one tap: the fan-in is c, not c times the kernel's size.
        kernel = self.param(
            "kernel",
            nn.initializers.normal(channels**-0.5),
            (*self.strides, channels, self.features),
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = jnp.moveaxis(kernel, 3, 0).reshape(channels, -1)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        y = y.reshape(*x.shape[:4], *self.strides, self.features)
        y = y.transpose(0, 1, 4, 2, 5, 3, 6, 7)
        sizes = (
            n * stride for n, stride in zip(x.shape[1:4], self.strides, strict=True)
        )
        return y.reshape(len(x), *sizes, self.features) + bias.astype(self.dtype)


class ConvBlock(Block):
    """3x3x3 convolution, bn, relu. Children: 'conv', 'bn'."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t h w n"]:
        x = self._conv("conv", self.features, (3, 3, 3))(x)
        return self.relu(self._norm("bn")(x, train))


class PlaybackHead(Block):
    """The playback rate of clips, and the clips themselves at another rate.

    Children: 'classify' (`ConvBlock`) and 'classifier' (linear); 'decode' (`ConvBlock`),
    and for every doubling, from 1, 'up<i>' (`Upsampling`, as wide as its input) and
    'conv<i>' (`ConvBlock`, half as wide; the last: 3 channels).

    Attributes:
        features: channels of 'classify' and 'decode'.
        num_classes: k.
        doublings: factors of time, height and width, see `doublings`.
        init_std: standard deviation of the classifier's initial weights.
    """

    num_classes: int
    doublings: Sequence[Triple]
    init_std: float

    @nn.compact
    def __call__(
        self, features: Float[Array, "b t h w c"], train: bool, decode: bool = False
    ) -> (
        Float[Array, "b k"]
        | tuple[Float[Array, "b k"], Float[Array, "b t_out h_out w_out 3"]]
    ):
        """Logits; with `decode`, also the clips that are decoded from the features."""
        x = pooled(self._block("classify", self.features)(features, train))
        logits = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal(self.init_std),
            precision=jax.lax.Precision.HIGHEST,
            name="classifier",
        )(x)
        if not decode:
            return logits
        x = self._block("decode", self.features)(features, train)
        for i, strides in enumerate(self.doublings, 1):
            x = Upsampling(x.shape[-1], strides, self.dtype, name=f"up{i}")(x)
            is_last = i == len(self.doublings)
            width = 3 if is_last else max(3, self.features >> i)
            x = self._block(f"conv{i}", width)(x, train)
        return logits, x

    def _block(self, name: str, features: int) -> ConvBlock:
        return ConvBlock(features, name=name, **block_options(self))


def doublings(factors: Sequence[int]) -> list[Triple]:
    """Steps of upsampling by 2 that come to these factors of time, height and width.

    An axis with fewer steps than another is doubled in the first ones.

    Raises:
        UserError: for a factor that is no power of 2.

    >>> doublings((4, 2, 2))
    [(2, 2, 2), (2, 1, 1)]
    """
    steps = [factor.bit_length() - 1 for factor in factors]
    if any(2**count != factor for count, factor in zip(steps, factors, strict=True)):
        raise UserError(
            f"config.model: its decoder would enlarge time, height and width of the "
            f"features by {tuple(factors)}, doubling them: choose strides that are powers "
            "of 2"
        )
    return [
        cast(Triple, tuple(2 if step < count else 1 for count in steps))
        for step in range(max(steps))
    ]
