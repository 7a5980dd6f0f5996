"""C3D (Tran et al. 2015): eight 3x3x3 convolutions, with max-pooling between them.

The convolutional part, 64-128-256-256-512-512-512-512 channels:

    stem      conv1, pool1 (1x2x2)
    stage 1   conv2
    stage 2   pool2, conv3a, conv3b
    stage 3   pool3, conv4a, conv4b
    stage 4   pool4, conv5a, conv5b

The "C3D" of papers on pretext tasks (VCOP, and after it VCP, PRP and Pace) has batch
normalisation after every convolution, and global average pooling in place of pool5 and
the three dense layers. So has ours, unless `config.model.batch_norm` is False: then the
convolutions are those of 2015.

The max-pooling of a stage is as large as the stage's stride, so strides are not part of
the weights here either. Those of `configs/common.py` give the network above, with
features of 2x7x7 for 16 frames of 112x112; at spatial stride 8, pool4 is 2x1x1.
"""

from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.models.base import Encoder, attributes, scaled
from ctp_jax.models.layers import Block, block_options, max_pool

STEM_CHANNELS = 64
CHANNELS = (128, 256, 512, 512)
CONVOLUTIONS = (1, 2, 2, 2)


def create(model: ConfigDict) -> "C3D":
    """See `ctp_jax.models.create`."""
    return C3D(**attributes(model, "batch_norm"))


class ConvBlock(Block):
    """3x3x3 convolution with bias, bn, relu. Children: 'conv', and with norm 'bn'."""

    batch_norm: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t h w n"]:
        x = self._conv("conv", self.features, (3, 3, 3), use_bias=True)(x)
        if self.batch_norm:
            x = self._norm("bn")(x, train)
        return self.relu(x)


class C3D(Encoder):
    """C3D without pool5 and dense layers.

    Children: 'stem', then 'stage1_block1', 'stage2_block1', 'stage2_block2', ...,
    'stage4_block2', one for each convolution.

    Attributes:
        batch_norm: normalise after every convolution.
    """

    batch_norm: bool = True

    stage_channels = CHANNELS

    def _part(self, part, strides, x, train):
        if part == 0:
            return max_pool(self._block("stem", STEM_CHANNELS)(x, train), strides)
        x = max_pool(x, strides)
        for number in range(CONVOLUTIONS[part - 1]):
            name = f"stage{part}_block{number + 1}"
            x = self._block(name, CHANNELS[part - 1])(x, train)
        return x

    def _block(self, name, channels):
        channels = scaled(channels, self.width)
        options = block_options(self)
        return ConvBlock(channels, batch_norm=self.batch_norm, name=name, **options)
