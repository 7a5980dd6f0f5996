"""S3D and S3D-G (Xie et al., ECCV 2018): Inception blocks of separable convolutions.

A separable convolution is 1xkxk, then kx1x1, each with batch norm and relu. Names after
the layers of the paper:

    stem      Conv_1a (7x7x7, strides 2), MaxPool_2a (1x3x3)
    stage 1   Conv_2b (1x1x1), Conv_2c (3x3x3)
    stage 2   MaxPool_3a (1x3x3), Mixed_3b, 3c
    stage 3   MaxPool_4a (3x3x3), Mixed_4b to 4f
    stage 4   MaxPool_5a (2x2x2), Mixed_5b, 5c

The strides of the stages are those of their max-pooling, in windows that are at least as
large. Those of the paper are (1, 2, 2, 2) in space, (1, 1, 2, 2) in time: a stride of 32
and 8, the stem's included.

In S3D-G every branch of a Mixed block is multiplied by a gate, a sigmoid of a dense layer
of the branch's mean over place and time. That is the S3D-G of CoCLR; TensorFlow's, and
after it Pace's, have one more gate after Conv_2c.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.models.base import Encoder, attributes, scaled
from ctp_jax.models.conv.temporal import Triple
from ctp_jax.models.layers import Block, block_options, max_pool

NAMES = S3D, S3DG = ("s3d", "s3dg")

POINTWISE, SEPARABLE = 64, 192  # channels of Conv_2b and Conv_2c

# Channels of a block's branches: a 1x1x1 convolution; two of 1x1x1 and separable; one after
# max-pooling.
MIXED = {
    2: ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    3: (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    4: ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
}
"""By stage."""

WINDOWS = {2: (1, 3, 3), 3: (3, 3, 3), 4: (1, 1, 1)}
"""Of the stages' max-pooling; a stride that is larger widens them."""


def create(model: ConfigDict) -> "S3DEncoder":
    """See `ctp_jax.models.create`."""
    return S3DEncoder(**attributes(model))


class Branch(Block):
    """A 1x1x1 convolution if there is a number for it, then one of `size`, separable.

    Children: 'reduce_conv', 'reduce_bn'; then 'spatial_conv', 'spatial_bn',
    'temporal_conv', 'temporal_bn', or if the size is 1 'conv', 'bn'.
    """

    reduced: int = 0
    size: int = 1
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        def layer(name, features, size, strides, x):
            x = self._conv(f"{name}conv", features, size, strides)(x)
            return self.relu(self._norm(f"{name}bn")(x, train))

        k, s, one = self.size, self.stride, (1, 1, 1)
        if self.reduced:
            x = layer("reduce_", self.reduced, one, one, x)
        if k == 1:
            return layer("", self.features, one, one, x)
        x = layer("spatial_", self.features, (1, k, k), (1, s, s), x)
        return layer("temporal_", self.features, (k, 1, 1), (s, 1, 1), x)


class Gate(nn.Module):
    """Multiplies channels with sigmoid(dense(mean over place and time)). Child: 'dense'.

    The mean and the dense layer are in float32.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        precise = jnp.promote_types(x.dtype, jnp.float32)
        mean = x.astype(precise).mean((1, 2, 3), keepdims=True)
        # As PyTorch begins: U(+-1 / sqrt(fan_in)).
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        dense = nn.Dense(
            x.shape[-1],
            kernel_init=init,
            precision=jax.lax.Precision.HIGHEST,
            name="dense",
        )
        return x * nn.sigmoid(dense(mean)).astype(x.dtype)


class S3DEncoder(Encoder):
    """S3D or S3D-G without its classifier.

    Children: 'stem', 'stage1_block1', 'stage1_block2', each a `Branch`; then for every
    Mixed block four of them, 'stage2_block1_branch0' to 'stage4_block2_branch3', and in
    S3D-G as many gates, 'stage2_block1_gate0', ....
    """

    @property
    def stem_strides(self) -> Triple:
        return (2, 4, 4)

    def channels(self) -> list[int]:
        outputs = [scaled(SEPARABLE, self.width)]
        for blocks in MIXED.values():
            a, _, c, _, e, f = blocks[-1]
            outputs.append(sum(scaled(each, self.width) for each in (a, c, e, f)))
        return outputs

    def _part(self, part, strides, x, train):
        if part == 0:
            x = self._branch("stem", POINTWISE, size=7, stride=2)(x, train)
            return max_pool(x, (1, 2, 2), (1, 3, 3))
        if part == 1:
            x = self._branch("stage1_block1", POINTWISE)(x, train)
            return self._branch("stage1_block2", SEPARABLE, size=3)(x, train)
        x = max_pool(x, strides, WINDOWS[part])
        for number, branches in enumerate(MIXED[part], 1):
            x = self._mixed(f"stage{part}_block{number}", branches, x, train)
        return x

    def _mixed(self, name, branches, x, train):
        a, b, c, d, e, f = branches
        outputs = [
            self._branch(f"{name}_branch0", a)(x, train),
            self._branch(f"{name}_branch1", c, b, 3)(x, train),
            self._branch(f"{name}_branch2", e, d, 3)(x, train),
            self._branch(f"{name}_branch3", f)(
                max_pool(x, (1, 1, 1), (3, 3, 3)), train
            ),
        ]
        if self.variant == S3DG:
            outputs = [
                Gate(name=f"{name}_gate{number}")(output)
                for number, output in enumerate(outputs)
            ]
        return jnp.concatenate(outputs, axis=-1)

    def _branch(self, name, channels, reduced=0, size=1, stride=1):
        return Branch(
            scaled(channels, self.width),
            reduced=scaled(reduced, self.width) if reduced else 0,
            size=size,
            stride=stride,
            name=name,
            **block_options(self),
        )
