"""R3D-18 and R(2+1)D-18 (Tran et al. 2018), as Catch-the-Patch uses them.

Four stages of two basic blocks, 64-128-256-512 channels, no max-pooling.

Symbols in shapes: b clips, t frames, h w pixels, c channels; t_out h_out w_out at the
output.
"""

from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.models.base import Encoder, attributes, scaled
from ctp_jax.models.conv.temporal import Triple
from ctp_jax.models.layers import Block

NAMES = R3D, R2PLUS1D = ("r3d18", "r2plus1d18")
CHANNELS = (64, 128, 256, 512)
BLOCKS = 2
STEM_MID_CHANNELS = 45


def create(model: ConfigDict) -> "ResNet3D":
    """See `ctp_jax.models.create`. R(2+1)D-18 alone has `mid_per_block`."""
    optional = ("mid_per_block",) if model.name == R2PLUS1D else ()
    return ResNet3D(**attributes(model, *optional))


def mid_channels(in_channels: int, out_channels: int) -> int:
    """Channels between the two halves of a factorised 3x3x3 convolution.

    Chosen so that both halves together have the parameters of the whole
    (Tran et al. 2018, section 3.5).
    """
    spatial, temporal = 9, 3
    return int(
        (temporal * in_channels * out_channels * spatial)
        / (in_channels * spatial + temporal * out_channels)
    )


class Conv2Plus1D(Block):
    """Spatial convolution, batch norm, relu, temporal convolution.

    Children: 'spatial' (1, kh, kw, in, mid), 'bn', 'temporal' (kt, 1, 1, mid, out).
    """

    mid_features: int
    kernel_size: Triple
    strides: Triple

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        (kt, kh, kw), (st, sh, sw) = self.kernel_size, self.strides
        x = self._conv("spatial", self.mid_features, (1, kh, kw), (1, sh, sw))(x)
        x = self.relu(self._norm("bn")(x, train))
        return self._conv("temporal", self.features, (kt, 1, 1), (st, 1, 1))(x)


class Factorisable(Block):
    """A block with convolutions that are factorised in R(2+1)D."""

    def _convolve(self, name, mid, kernel_size, strides, x, train):
        """Not factorised where there are 0 mid channels."""
        if not mid:
            return self._conv(name, self.features, kernel_size, strides)(x)
        return Conv2Plus1D(
            self.features,
            self.epsilon,
            self.batch_norm_groups,
            self.dtype,
            self.impl,
            self.relu,
            mid,
            kernel_size,
            strides,
            name=name,
        )(x, train)


class Stem(Factorisable):
    """3x7x7 convolution, bn, relu. Children: 'conv', 'bn'."""

    strides: Triple
    mid_features: int  # 0: not factorised

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        x = self._convolve("conv", self.mid_features, (3, 7, 7), self.strides, x, train)
        return self.relu(self._norm("bn")(x, train))


class BasicBlock(Factorisable):
    """conv-bn-relu-conv-bn, plus the input, relu.

    Children: 'conv1', 'bn1', 'conv2', 'bn2'; with `shortcut` also 'shortcut_conv',
    'shortcut_bn', a strided 1x1x1 convolution of the input.
    """

    strides: Triple
    shortcut: bool
    factorised: bool
    mid_per_block: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        mids = 0, 0
        if self.factorised:
            first = mid_channels(x.shape[-1], self.features)
            each = mid_channels(self.features, self.features)
            mids = first, first if self.mid_per_block else each
        y = self._convolve("conv1", mids[0], (3, 3, 3), self.strides, x, train)
        y = self.relu(self._norm("bn1")(y, train))
        y = self._convolve("conv2", mids[1], (3, 3, 3), (1, 1, 1), y, train)
        y = self._norm("bn2")(y, train)
        if self.shortcut:
            conv = self._conv("shortcut_conv", self.features, (1, 1, 1), self.strides)
            x = self._norm("shortcut_bn")(conv(x), train)
        return self.relu(x + y)


class ResNet3D(Encoder):
    """R3D-18 or R(2+1)D-18 without its classifier.

    Children: 'stem', then 'stage1_block1' to 'stage4_block2'.

    Attributes:
        mid_per_block: compute the mid channels of both factorised convolutions of a
            block from the block's input, as torchvision does; the authors' release
            computes them for each convolution.
    """

    mid_per_block: bool = False

    stage_channels = CHANNELS

    def _part(self, part, strides, x, train):
        common = {
            "epsilon": self.epsilon,
            "batch_norm_groups": self.batch_norm_groups,
            "dtype": self.dtype,
            "impl": self.impl,
            "relu": self.relu,
        }
        factorised = self.variant == R2PLUS1D
        if part == 0:
            mid = max(8, round(STEM_MID_CHANNELS * self.width)) if factorised else 0
            features = scaled(CHANNELS[0], self.width)
            stem = Stem(
                features, strides=strides, mid_features=mid, name="stem", **common
            )
            return stem(x, train)
        for block in range(BLOCKS):
            x = BasicBlock(
                scaled(CHANNELS[part - 1], self.width),
                strides=strides if block == 0 else (1, 1, 1),
                # By position and not by stride: the parameters of all stride choices
                # are the same.
                shortcut=block == 0 and part > 1,
                factorised=factorised,
                mid_per_block=self.mid_per_block,
                name=f"stage{part}_block{block + 1}",
                **common,
            )(x, train)
        return x
