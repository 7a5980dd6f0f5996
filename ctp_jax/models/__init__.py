"""Networks: encoders, which turn clips into features, and the heads on top of them.

base       the base class of encoders; read this first
resnet3d   R3D, R(2+1)D, R-2D3D, TSM
s3d        S3D and S3D-G
c3d        C3D
heads      the prediction heads of the tasks
decoder    PRP's heads: playback rates and decoded clips
cycle      CEP's heads: embeddings of time, and their predictions
future     the head of DPC and MemDPC, on the recurrent unit of conv_gru
saliency   what in a clip speaks for a class: guided Grad-CAM
layers     convolution, batch normalisation, max-pooling
conv/      how a convolution is computed

`config.model.name` is a name of `MODULES`, or a module of your own with a function
`create(config.model)` that returns a `base.Encoder`.
"""

from typing import TYPE_CHECKING, NamedTuple

from ml_collections import ConfigDict

from ctp_jax import modules

if TYPE_CHECKING:
    from ctp_jax.models.base import Encoder

MODULES = {
    "r3d18": f"{__name__}.resnet3d",
    "r2plus1d18": f"{__name__}.resnet3d",
    "r3d10": f"{__name__}.resnet3d",
    "r2plus1d10": f"{__name__}.resnet3d",
    "r2d3d18": f"{__name__}.resnet3d",
    "r2d3d34": f"{__name__}.resnet3d",
    "tsm18": f"{__name__}.resnet3d",
    "tsm50": f"{__name__}.resnet3d",
    "s3d": f"{__name__}.s3d",
    "s3dg": f"{__name__}.s3d",
    "c3d": f"{__name__}.c3d",
}
"""Network -> module of this package."""


class Published(NamedTuple):
    """What belongs to a network as its paper has it, beside the weights.

    Attributes:
        temporal_strides: of the four stages; None: those of the config.
        epsilon: of batch normalisation.
        stem_stride: pixels per step of the stem's output.
    """

    temporal_strides: tuple[int, ...] | None = None
    epsilon: float = 1e-3
    stem_stride: int = 2


PUBLISHED = {
    "r3d10": Published(epsilon=1e-5),
    "r2plus1d10": Published(epsilon=1e-5),
    "r2d3d18": Published((1, 1, 2, 2), 1e-5, 4),
    "r2d3d34": Published((1, 1, 2, 2), 1e-5, 4),
    "tsm18": Published((1, 1, 1, 1), 1e-5, 4),
    "tsm50": Published((1, 1, 1, 1), 1e-5, 4),
    "s3d": Published((1, 1, 2, 2), 1e-3, 4),
    "s3dg": Published((1, 1, 2, 2), 1e-3, 4),
}
"""Of the networks that differ in it from R3D-18 as Catch-the-Patch uses it."""


def create(model: ConfigDict) -> "Encoder":
    """The encoder that `config.model` describes.

    A name with a dot is the path of a module outside this package.

    Raises:
        UserError: for an unknown name, or fields that the network does not offer.
    """
    name = str(model.name)
    module = modules.load("config.model.name", "network", name, MODULES, "create")
    return module.create(model)
