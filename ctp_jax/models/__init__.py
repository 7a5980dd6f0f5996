"""Networks: encoders, which turn clips into features, and the heads on top of them.

base       the base class of encoders; read this first
resnet3d   R3D-18 and R(2+1)D-18
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

from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from ctp_jax import modules

if TYPE_CHECKING:
    from ctp_jax.models.base import Encoder

MODULES = {
    "r3d18": f"{__name__}.resnet3d",
    "r2plus1d18": f"{__name__}.resnet3d",
    "c3d": f"{__name__}.c3d",
}
"""Network -> module of this package."""


def create(model: ConfigDict) -> "Encoder":
    """The encoder that `config.model` describes.

    A name with a dot is the path of a module outside this package.

    Raises:
        UserError: for an unknown name, or fields that the network does not offer.
    """
    name = str(model.name)
    module = modules.load("config.model.name", "network", name, MODULES, "create")
    return module.create(model)
