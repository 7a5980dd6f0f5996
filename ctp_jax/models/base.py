"""The base class of encoders: networks of a stem and four stages.

A network's module has a function `create(config.model)` that returns an `Encoder`. The
strides of the stages are arguments, not architecture: every choice has the same
parameters, so that an encoder pretrained at spatial stride 8 is finetuned at 16 (paper,
appendix D).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import ranges
from ctp_jax.errors import UserError
from ctp_jax.models.conv.temporal import Triple

STEM_STRIDES = (1, 2, 2)
STAGES = 4

OPTIONAL = {"mid_per_block": False, "batch_norm": True}
"""Fields of `config.model` that not every network has, and their defaults.

They change the weights. For a network without the field, only the default is accepted.
"""


class Encoder(nn.Module):
    """Turns clips into features. Subclasses compute the parts.

    Children: names that begin with 'stem', or with 'stage1_' to 'stage4_'.

    Attributes:
        variant: the name of the network, `config.model.name`.
        width: multiplies the channels, for small runs.
        spatial_strides: of the four stages, height and width alike.
        temporal_strides: of the four stages.
        epsilon: of batch normalisation.
        batch_norm_groups: of batch normalisation, see `layers.BatchNorm.groups`; not
            part of the weights.
        dtype: of convolutions and activations; parameters are float32.
        impl: how convolutions are computed, see `ctp_jax.models.conv.conv3d`.
        relu: what every part of the network calls for a relu;
            `ctp_jax.models.saliency` puts another one in its place.
    """

    variant: str
    width: float
    spatial_strides: tuple[int, ...]
    temporal_strides: tuple[int, ...]
    epsilon: float
    batch_norm_groups: int
    dtype: Any
    impl: str
    relu: Callable[[Array], Array]

    stage_channels: ClassVar[tuple[int, ...]]
    """Of the outputs of the stages, at width 1; for the usual `channels`."""

    freeze_options: ClassVar = ("", "stem", "stem+1", "stem+2", "stem+3", "stem+4")
    """Values of `config.freeze`; the index is the number of parts that it freezes."""

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
            x: clips: b clips, t frames, h w pixels.
            train: normalise with the statistics of the batch and update the running
                ones (collection 'batch_stats').
            all_stages: return a tuple, the output of the stem and of the four stages.
            frozen: how many of the five parts (stem, stages) neither update their
                statistics, nor use those of the batch, nor get a gradient.
        """
        pairs = zip(self.temporal_strides, self.spatial_strides, strict=True)
        strides = [self.stem_strides, *((t, s, s) for t, s in pairs)]
        outputs = []
        for part in range(1 + STAGES):
            x = self._part(part, strides[part], x, train and part >= frozen)
            if frozen == part + 1:
                x = jax.lax.stop_gradient(x)
            outputs.append(x)
        return tuple(outputs) if all_stages else x

    def _part(
        self, part: int, strides: Triple, x: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b t_out h_out w_out n"]:
        """The stem (part 0) or a stage (1 to 4). Axes shrink to ceil(n / stride)."""
        raise NotImplementedError

    @property
    def stem_strides(self) -> Triple:
        """Of the stem as a whole, its max-pooling included."""
        return STEM_STRIDES

    def channels(self) -> list[int]:
        """Of the outputs of the stages."""
        return [scaled(c, self.width) for c in self.stage_channels]

    def architecture(self) -> dict[str, Any]:
        """What is exported with the weights to build the network again, as JSON."""
        return {
            "name": self.variant,
            "width": self.width,
            "channels": self.channels(),
            "spatial_strides": list(self.spatial_strides),
            "temporal_strides": list(self.temporal_strides),
            "epsilon": self.epsilon,
            **{name: getattr(self, name) for name in OPTIONAL if hasattr(self, name)},
        }

    def check_same_weights(self, stored: Mapping[str, Any]) -> None:
        """Raises `UserError` if the weights of another encoder do not fit this one.

        Strides may differ: they are not part of the weights.

        Args:
            stored: the `architecture` that was exported with the weights.
        """
        here = self.architecture()
        for name in ("name", "width", "epsilon", *OPTIONAL):
            there = stored.get(name, "not said")
            if name in here and there != here[name]:
                raise UserError(
                    f"the encoder's {name} is {there}, config.model.{name} is "
                    f"{here[name]}; with --config.model.{name}={there} it fits"
                    + " (encoders of configs/small.py: finetune_small.py, "
                    "retrieval.py:small)" * (name == "width")
                )

    def total_stride(self) -> tuple[int, int]:
        """Frames and pixels of a clip per step of the features: (temporal, spatial)."""
        return (
            self.stem_strides[0] * math.prod(self.temporal_strides),
            self.stem_strides[1] * math.prod(self.spatial_strides),
        )

    @staticmethod
    def frozen_parameters(params: Mapping[str, Any], parts: int) -> dict[str, Any]:
        """True for the parameters of the first parts, in the tree of all.

        Args:
            params: of the encoder.
            parts: how many of stem, stage 1, ..., stage 4.
        """
        names = ("stem", *(f"stage{stage}_" for stage in range(1, 1 + STAGES)))
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[0].key.startswith(names[:parts]), params
        )


def apply(
    module: nn.Module, variables: Mapping[str, Any], *args: Any, **options: Any
) -> Array:
    """`module.apply` where the module returns one array and updates no variables.

    Flax's own signature also allows for a tuple with the updated variables.
    """
    return cast(Array, module.apply(variables, *args, **options))


def scaled(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8, at least 8."""
    return max(8, 8 * round(channels * width / 8))


def attributes(model: ConfigDict, *optional: str) -> dict[str, Any]:
    """The attributes of an `Encoder`, from `config.model`.

    Args:
        model: `config.model`.
        *optional: the fields of `OPTIONAL` that the network has.

    Raises:
        UserError: for values out of range, and for fields that the network does not
            have.
    """
    ranges.check(model, "model.")
    for name, default in OPTIONAL.items():
        if name not in optional and model.get(name, default) != default:
            raise UserError(
                f"config.model.{name} = {model[name]}: {model.name} has no such "
                f"choice; leave it at {default}"
            )
    dtype = model.dtype
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return {
        "variant": model.name,
        "width": float(model.width),
        "spatial_strides": tuple(model.spatial_strides),
        "temporal_strides": tuple(model.temporal_strides),
        "epsilon": float(model.epsilon),
        # Configs and encoders of before there was a choice have no such field.
        "batch_norm_groups": model.get("batch_norm_groups", 1),
        "dtype": jnp.dtype(dtype),
        "impl": model.conv,
        "relu": nn.relu,
        **{name: bool(model.get(name, OPTIONAL[name])) for name in optional},
    }
