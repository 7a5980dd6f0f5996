"""R3D-18 and R(2+1)D-18 (Tran et al. 2018), as Catch-the-Patch uses them.

Four stages of two basic blocks, 64-128-256-512 channels, no max-pooling. The strides of
the stages are arguments, not architecture: every choice has the same parameters, so
that an encoder pretrained at spatial stride 8 is finetuned at 16 (paper, appendix D).

Symbols in shapes: b clips, t frames, h w pixels, c channels; t_out h_out w_out at the
output.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.errors import UserError
from ctp_jax.models.conv.conv3d import IMPLEMENTATIONS
from ctp_jax.models.conv.temporal import Triple
from ctp_jax.models.layers import BatchNorm, Conv3D

NAMES = ("r3d18", "r2plus1d18")
CHANNELS = (64, 128, 256, 512)
BLOCKS = 2
EPSILON = 1e-3  # the authors' release; torchvision's checkpoints have 1e-5
STEM_STRIDES = (1, 2, 2)
STEM_MID_CHANNELS = 45
DTYPES = ("auto", "float32", "bfloat16")


def scaled(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8, at least 8."""
    return max(8, 8 * round(channels * width / 8))


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


class Conv2Plus1D(nn.Module):
    """Spatial convolution, batch norm, relu, temporal convolution.

    Children: 'spatial' (1, kh, kw, in, mid), 'bn', 'temporal' (kt, 1, 1, mid, out).
    """

    features: int
    mid_features: int
    kernel_size: Triple
    strides: Triple
    padding: Triple
    epsilon: float
    dtype: Any
    impl: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        (kt, kh, kw), (st, sh, sw), (pt, ph, pw) = (
            self.kernel_size,
            self.strides,
            self.padding,
        )
        common = {"dtype": self.dtype, "impl": self.impl}
        x = Conv3D(
            self.mid_features,
            (1, kh, kw),
            (1, sh, sw),
            (0, ph, pw),
            name="spatial",
            **common,
        )(x)
        x = BatchNorm(self.epsilon, dtype=self.dtype, name="bn")(x, train)
        x = nn.relu(x)
        return Conv3D(
            self.features,
            (kt, 1, 1),
            (st, 1, 1),
            (pt, 0, 0),
            name="temporal",
            **common,
        )(x)


class BasicBlock(nn.Module):
    """conv-bn-relu-conv-bn, plus the input, relu.

    Children: 'conv1', 'bn1', 'conv2', 'bn2'; with `shortcut` also 'shortcut_conv',
    'shortcut_bn', a strided 1x1x1 convolution of the input.
    """

    features: int
    strides: Triple
    shortcut: bool
    factorised: bool
    mid_per_block: bool
    epsilon: float
    dtype: Any
    impl: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        mid = mid_channels(x.shape[-1], self.features)
        y = self._conv(x, self.strides, mid, train, "conv1")
        y = nn.relu(self._norm("bn1")(y, train))
        if not self.mid_per_block:
            mid = mid_channels(self.features, self.features)
        y = self._conv(y, (1, 1, 1), mid, train, "conv2")
        y = self._norm("bn2")(y, train)
        if self.shortcut:
            x = Conv3D(
                self.features,
                (1, 1, 1),
                self.strides,
                dtype=self.dtype,
                impl=self.impl,
                name="shortcut_conv",
            )(x)
            x = self._norm("shortcut_bn")(x, train)
        return nn.relu(x + y)

    def _norm(self, name):
        return BatchNorm(self.epsilon, dtype=self.dtype, name=name)

    def _conv(self, x, strides, mid, train, name):
        size, padding = (3, 3, 3), (1, 1, 1)
        common = {"dtype": self.dtype, "impl": self.impl, "name": name}
        if not self.factorised:
            return Conv3D(self.features, size, strides, padding, **common)(x)
        return Conv2Plus1D(
            self.features, mid, size, strides, padding, self.epsilon, **common
        )(x, train)


class Stem(nn.Module):
    """3x7x7 convolution of stride (1, 2, 2), bn, relu. Children: 'conv', 'bn'."""

    features: int
    mid_features: int  # 0: not factorised
    epsilon: float
    dtype: Any
    impl: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        size, padding = (3, 7, 7), (1, 3, 3)
        common = {"dtype": self.dtype, "impl": self.impl, "name": "conv"}
        if self.mid_features:
            x = Conv2Plus1D(
                self.features,
                self.mid_features,
                size,
                STEM_STRIDES,
                padding,
                self.epsilon,
                **common,
            )(x, train)
        else:
            x = Conv3D(self.features, size, STEM_STRIDES, padding, **common)(x)
        return nn.relu(BatchNorm(self.epsilon, dtype=self.dtype, name="bn")(x, train))


class ResNet3D(nn.Module):
    """R3D-18 or R(2+1)D-18 without its classifier.

    Children: 'stem', then 'stage1_block1' to 'stage4_block2'.

    Attributes:
        variant: 'r3d18' or 'r2plus1d18'.
        width: multiplies the channels, for small runs.
        spatial_strides: of the first block of each stage, height and width alike.
        temporal_strides: of the first block of each stage.
        epsilon: of batch normalisation.
        mid_per_block: compute the mid channels of both factorised convolutions of a
            block from the block's input, as torchvision does; the authors' release
            computes them for each convolution.
        dtype: of convolutions and activations; parameters are float32.
        impl: how convolutions are computed, see `ctp_jax.models.conv.conv3d`.
    """

    variant: str = "r3d18"
    width: float = 1.0
    spatial_strides: tuple[int, ...] = (1, 2, 2, 1)
    temporal_strides: tuple[int, ...] = (1, 2, 2, 2)
    epsilon: float = EPSILON
    mid_per_block: bool = False
    dtype: Any = jnp.float32
    impl: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w 3"],
        train: bool,
        all_stages: bool = False,
        frozen: int = 0,
    ) -> (
        Float[Array, "b t_out h_out w_out c"]
        | tuple[Float[Array, "b _t _h _w _c"], ...]
    ):
        """Features of normalised RGB clips, of dtype `self.dtype`.

        Args:
            x: clips.
            train: normalise with the statistics of the batch and update the running
                ones (collection 'batch_stats').
            all_stages: return a tuple, the output of the stem and of the four stages.
            frozen: so many of the five parts (stem, stages) neither update their
                statistics, nor use those of the batch, nor get a gradient.
        """
        factorised = self.variant == "r2plus1d18"
        stem_mid = max(8, round(STEM_MID_CHANNELS * self.width))
        common = {"epsilon": self.epsilon, "dtype": self.dtype, "impl": self.impl}
        x = Stem(
            scaled(CHANNELS[0], self.width),
            stem_mid if factorised else 0,
            name="stem",
            **common,
        )(x, train and frozen < 1)
        if frozen == 1:
            x = jax.lax.stop_gradient(x)
        outputs = [x]
        strides = zip(self.temporal_strides, self.spatial_strides, strict=True)
        for stage, (temporal, spatial) in enumerate(strides):
            for block in range(BLOCKS):
                first = block == 0
                x = BasicBlock(
                    scaled(CHANNELS[stage], self.width),
                    (temporal, spatial, spatial) if first else (1, 1, 1),
                    # By position and not by stride: the parameters of all stride
                    # choices are the same.
                    shortcut=first and stage > 0,
                    factorised=factorised,
                    mid_per_block=self.mid_per_block,
                    name=f"stage{stage + 1}_block{block + 1}",
                    **common,
                )(x, train and frozen < stage + 2)
            if frozen == stage + 2:
                x = jax.lax.stop_gradient(x)
            outputs.append(x)
        return tuple(outputs) if all_stages else x


def create(model: ConfigDict) -> ResNet3D:
    """The encoder that `config.model` describes.

    Raises:
        UserError: for a name, width, strides, dtype or convolution that is not offered.
    """
    _one_of("name", model.name, NAMES)
    _one_of("dtype", model.dtype, DTYPES)
    _one_of("conv", model.conv, IMPLEMENTATIONS)
    if not model.width > 0:
        raise UserError(f"config.model.width = {model.width}: must be above 0")
    for name in ("spatial_strides", "temporal_strides"):
        strides = tuple(model[name])
        good = len(strides) == len(CHANNELS) and all(
            isinstance(s, int) and s >= 1 for s in strides
        )
        if not good or strides[0] != 1:
            raise UserError(
                f"config.model.{name} = {strides}: needs {len(CHANNELS)} strides, "
                "whole numbers from 1, the first of them 1"
            )
    dtype = model.dtype
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return ResNet3D(
        variant=model.name,
        width=float(model.width),
        spatial_strides=tuple(model.spatial_strides),
        temporal_strides=tuple(model.temporal_strides),
        epsilon=float(model.get("epsilon", EPSILON)),
        mid_per_block=bool(model.get("mid_per_block", False)),
        dtype=jnp.dtype(dtype),
        impl=model.conv,
    )


def architecture(model: ConfigDict) -> dict[str, Any]:
    """What an exported encoder says about itself: plain JSON values."""
    encoder = create(model)
    return {
        "name": encoder.variant,
        "width": encoder.width,
        "channels": [scaled(c, encoder.width) for c in CHANNELS],
        "spatial_strides": list(encoder.spatial_strides),
        "temporal_strides": list(encoder.temporal_strides),
        "epsilon": encoder.epsilon,
        "mid_per_block": encoder.mid_per_block,
    }


def check_same_weights(model: ConfigDict, stored: Mapping[str, Any]) -> None:
    """Raises `UserError` if an encoder's weights do not fit `config.model`.

    Strides may differ: they are no part of the weights.

    Args:
        model: `config.model`.
        stored: the `architecture` that was exported with the weights.
    """
    here = architecture(model)
    names = ["name", "width", "epsilon"]
    if model.name == "r2plus1d18":
        names.append("mid_per_block")
    for name in names:
        # Encoders exported before there was a choice.
        there = stored.get(name, False if name == "mid_per_block" else "not said")
        if there != here[name]:
            raise UserError(
                f"the encoder's {name} is {there}, config.model.{name} is {here[name]}; "
                f"with --config.model.{name}={there} it fits"
                + " (encoders of configs/small.py: finetune_small.py, retrieval.py:small)"
                * (name == "width")
            )


FREEZE = ("", "stem", "stem+1", "stem+2", "stem+3", "stem+4")
"""What can be frozen, by how many of the five parts that is; the last is everything."""


def frozen_parameters(params: Mapping[str, Any], parts: int) -> dict[str, Any]:
    """True for the parameters of the first parts of an encoder, in the tree of all.

    Args:
        params: of a `ResNet3D`.
        parts: how many of stem, stage 1, ..., stage 4.
    """
    prefixes = ("stem", *(f"stage{stage + 1}_" for stage in range(len(CHANNELS))))
    frozen = jax.tree.map(lambda _: True, params)
    free = jax.tree.map(lambda _: False, params)
    return {
        name: (frozen if name.startswith(prefixes[:parts]) else free)[name]
        for name in params
    }


def total_stride(model: ConfigDict) -> tuple[int, int]:
    """Frames and pixels of the input per step of the features: (temporal, spatial)."""
    return (
        STEM_STRIDES[0] * math.prod(model.temporal_strides),
        STEM_STRIDES[1] * math.prod(model.spatial_strides),
    )


def _one_of(field: str, value: Any, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(
            f"config.model.{field} = {value!r}: choose one of {', '.join(valid)}"
        )
