"""Residual networks over space and time, as papers on pretext tasks use them.

    r3d18, r2plus1d18        those of Catch-the-Patch (after Tran et al. 2018): two blocks
                             per stage, no max-pooling
    r3d10, r2plus1d10        "R3D" and "R(2+1)D" of VCOP, VCP, PRP and Pace: one block per
                             stage
    r2d3d18, r2d3d34         R-2D3D of DPC and MemDPC: stages 1 and 2 without time, a last
                             stage of 256 channels that ends without a relu
    tsm18, tsm50             temporal shift (Lin et al., ICCV 2019): the 2-D ResNet, in
                             whose blocks an eighth of the channels comes from the next
                             frame, and an eighth from the one before

The stem of the last two lines ends in max-pooling. `NETWORKS` has what they differ in.

Symbols in shapes: b clips, t frames, h w pixels, c channels, *_out at the output.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.models.base import STEM_STRIDES, Encoder, attributes, scaled
from ctp_jax.models.conv.temporal import Triple
from ctp_jax.models.layers import Block, block_options, max_pool

NAMES = R3D, R2PLUS1D = ("r3d18", "r2plus1d18")
CHANNELS = (64, 128, 256, 512)
SHIFTED = 8  # one in so many channels, either way


@dataclasses.dataclass(frozen=True)
class Network:
    """What the networks of this module differ in.

    Attributes:
        blocks: of each stage.
        channels: of each stage; within the blocks if they are bottlenecks.
        taps: temporal size of the kernels of the stem and the stages.
        stem_mid: channels between the halves of the stem's convolution, where all of them
            are factorised; 0 where none is.
        factorised_shortcut: the shortcuts are, too.
        pooled_stem: the stem ends in max-pooling, 1x3x3 with strides (1, 2, 2).
        expansion: bottleneck blocks, of so many times the channels; 0: basic blocks.
        shift: blocks see channels of the frames before and after.
        final_relu: after the last block.
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    channels: tuple[int, ...] = CHANNELS
    taps: tuple[int, ...] = (3, 3, 3, 3, 3)
    stem_mid: int = 0
    factorised_shortcut: bool = False
    pooled_stem: bool = False
    expansion: int = 0
    shift: bool = False
    final_relu: bool = True

    def has_shortcut(self, stage: int, block: int) -> bool:
        """Whether a block's input is convolved before it is added.

        By position and not by stride: the parameters of all stride choices are the same.

        Args:
            stage: from 1.
            block: of the stage, from 1.
        """
        return block == 1 and (stage > 1 or self.expansion > 0)


_R2D3D = Network(
    channels=(64, 128, 256, 256),
    taps=(1, 1, 1, 3, 3),
    pooled_stem=True,
    final_relu=False,
)
_TSM = Network(taps=(1, 1, 1, 1, 1), pooled_stem=True, shift=True)
_DEEP = (3, 4, 6, 3)

NETWORKS = {
    R3D: Network(),
    R2PLUS1D: Network(stem_mid=45),
    "r3d10": Network(blocks=(1, 1, 1, 1)),
    "r2plus1d10": Network(blocks=(1, 1, 1, 1), stem_mid=83, factorised_shortcut=True),
    "r2d3d18": _R2D3D,
    "r2d3d34": dataclasses.replace(_R2D3D, blocks=_DEEP),
    "tsm18": _TSM,
    "tsm50": dataclasses.replace(_TSM, blocks=_DEEP, expansion=4),
}


def create(model: ConfigDict) -> "ResNet3D":
    """See `ctp_jax.models.create`. R(2+1)D-18 alone has `mid_per_block`."""
    optional = ("mid_per_block",) if model.name == R2PLUS1D else ()
    return ResNet3D(**attributes(model, *optional))


def mid_channels(in_channels: int, out_channels: int, size: Triple = (3, 3, 3)) -> int:
    """Channels between the two halves of a factorised convolution.

    Chosen so that both halves together have the parameters of the whole
    (Tran et al. 2018, section 3.5).
    """
    temporal, spatial = size[0], size[1] * size[2]
    return int(
        (temporal * in_channels * out_channels * spatial)
        / (in_channels * spatial + temporal * out_channels)
    )


def shift(x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
    """Takes the first eighth of the channels from the next frame, the second from the one
    before, and zeros where there is none."""
    share = x.shape[-1] // SHIFTED
    later, earlier, rest = jnp.split(x, [share, 2 * share], axis=-1)
    edge = [(0, 0)] * 5
    later = jnp.pad(later[:, 1:], [(0, 0), (0, 1), *edge[2:]])
    earlier = jnp.pad(earlier[:, :-1], [(0, 0), (1, 0), *edge[2:]])
    return jnp.concatenate([later, earlier, rest], axis=-1)


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

    def _convolve(self, name, features, mid, kernel_size, strides, x, train):
        """Not factorised where there are 0 mid channels."""
        if not mid:
            return self._conv(name, features, kernel_size, strides)(x)
        return Conv2Plus1D(
            features,
            mid_features=mid,
            kernel_size=kernel_size,
            strides=strides,
            name=name,
            **block_options(self),
        )(x, train)


class Stem(Factorisable):
    """A convolution of 7x7 pixels, bn, relu. Children: 'conv', 'bn'."""

    taps: int
    mid_features: int  # 0: not factorised

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        size, mid = (self.taps, 7, 7), self.mid_features
        x = self._convolve("conv", self.features, mid, size, STEM_STRIDES, x, train)
        return self.relu(self._norm("bn")(x, train))


class BasicBlock(Factorisable):
    """conv-bn-relu-conv-bn, plus the input, relu; a bottleneck has three convolutions.

    Children: 'conv1', 'bn1', 'conv2', 'bn2', ...; with `shortcut` also 'shortcut_conv',
    'shortcut_bn', a strided 1x1x1 convolution of the input.

    Attributes:
        network: which it is of.
        stage: which it is in, from 1.
        strides: of the block.
        shortcut: convolve the input.
        mid_per_block: see `ResNet3D`.
        final_relu: after the sum.
    """

    network: Network
    stage: int
    strides: Triple
    shortcut: bool
    mid_per_block: bool
    final_relu: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        layers = self._layers()
        y = shift(x) if self.network.shift else x
        for number, (features, size, strides) in enumerate(layers, 1):
            mid = self._mid(x if self.mid_per_block else y, features, size)
            y = self._convolve(f"conv{number}", features, mid, size, strides, y, train)
            y = self._norm(f"bn{number}")(y, train)
            if number < len(layers):
                y = self.relu(y)
        if self.shortcut:
            features, size, strides = self.features, (1, 1, 1), self.strides
            mid = self._mid(x, features, size) * self.network.factorised_shortcut
            x = self._convolve("shortcut_conv", features, mid, size, strides, x, train)
            x = self._norm("shortcut_bn")(x, train)
        return self.relu(x + y) if self.final_relu else x + y

    def _layers(self) -> list[tuple[int, Triple, Triple]]:
        """Channels, kernel and strides of each convolution."""
        size, one = (self.network.taps[self.stage], 3, 3), (1, 1, 1)
        if not self.network.expansion:
            return [(self.features, size, self.strides), (self.features, size, one)]
        inner = self.features // self.network.expansion
        middle = inner, size, self.strides
        return [(inner, one, one), middle, (self.features, one, one)]

    def _mid(self, x, features, size) -> int:
        return mid_channels(x.shape[-1], features, size) if self.network.stem_mid else 0


class ResNet3D(Encoder):
    """A network of `NETWORKS` without its classifier.

    Children: 'stem', then 'stage1_block1' to the last block of stage 4.

    Attributes:
        mid_per_block: compute the mid channels of both factorised convolutions of a
            block from the block's input, as torchvision does; the authors' release
            computes them for each convolution.
    """

    mid_per_block: bool = False

    @property
    def network(self) -> Network:
        return NETWORKS[self.variant]

    @property
    def stem_strides(self) -> Triple:
        return (1, 4, 4) if self.network.pooled_stem else STEM_STRIDES

    @property
    def stem_mid(self) -> int:
        """Channels between the halves of the stem's convolution; 0: not factorised."""
        mid = self.network.stem_mid
        return max(8, round(mid * self.width)) if mid else 0

    def channels(self) -> list[int]:
        expansion = self.network.expansion or 1
        return [expansion * scaled(c, self.width) for c in self.network.channels]

    def _part(self, part, strides, x, train):
        network = self.network
        options = block_options(self)
        if part == 0:
            features, mid = scaled(network.channels[0], self.width), self.stem_mid
            stem = Stem(
                features, taps=network.taps[0], mid_features=mid, name="stem", **options
            )
            x = stem(x, train)
            return max_pool(x, (1, 2, 2), (1, 3, 3)) if network.pooled_stem else x
        if network.shift and strides[0] > 1:
            # No kernel looks over time, so a stride would drop frames.
            x = max_pool(x, (strides[0], 1, 1), (3, 1, 1))
            strides = (1, *strides[1:])
        count = network.blocks[part - 1]
        for number in range(1, count + 1):
            x = BasicBlock(
                self.channels()[part - 1],
                network=network,
                stage=part,
                strides=strides if number == 1 else (1, 1, 1),
                shortcut=network.has_shortcut(part, number),
                mid_per_block=self.mid_per_block,
                final_relu=network.final_relu or (part, number) != (4, count),
                name=f"stage{part}_block{number}",
                **options,
            )(x, train)
        return x
