"""The names of the layers in state dicts of PyTorch.

A family is a code base with names of its own: pyvrl, the authors' release of
Catch-the-Patch (github microsoft/CtP); torchvision's `models.video`; VCOP (github
xudejing/video-clip-order-prediction), whose C3D has the names of the network of 2015;
and, for reading only, torchvision's 2-D `resnet18`, whose kernels are inflated.
"""

import dataclasses
from typing import NamedTuple

from ctp_jax.models import resnet3d

R3D, R2PLUS1D, C3D = *resnet3d.NAMES, "c3d"


class Entry(NamedTuple):
    """An array here, and the tensor in PyTorch that corresponds to it.

    Attributes:
        collection: 'params' or 'batch_stats' of the encoder, or 'head'.
        path: of the array in the collection.
        name: of the tensor, without the prefix of the encoder or head.
        layout: see `ctp_jax.interop.layouts`.
    """

    collection: str
    path: tuple[str, ...]
    name: str
    layout: str


@dataclasses.dataclass(frozen=True)
class Family:
    """A code base: the names of its layers and the properties of its networks.

    Attributes:
        name: on the command line.
        epsilon: of its batch normalisation.
        variants: name of a network here -> layer here -> layer in the code base.
            'block/' stands for every block of a ResNet, '*' for the number of one of
            its two convolutions.
        prefix: of the encoder's names in a whole model.
        classifier: prefix of the names of its classifier; '' if it has none.
        ctp_head: prefix of the names of its Catch-the-Patch head; '' if it has none.
        mid_per_block: of its R(2+1)D, see `ResNet3D`.
        kernel: layout of its kernels, see `ctp_jax.interop.layouts`.
        note: what users of its published weights have to know.
    """

    name: str
    epsilon: float
    variants: dict[str, dict[str, str]]
    prefix: str = ""
    classifier: str = ""
    ctp_head: str = ""
    mid_per_block: bool = False
    kernel: str = "conv"
    note: str = ""


_R3D = (  # here, pyvrl, torchvision, imagenet
    ("stem/conv", "stem.conv", "stem.0", "conv1"),
    ("stem/bn", "stem.bn", "stem.1", "bn1"),
    ("block/conv*", "conv*.conv", "conv*.0", "conv*"),
    ("block/bn*", "bn*", "conv*.1", "bn*"),
    ("block/shortcut_conv", "downsample.conv", "downsample.0", "downsample.0"),
    ("block/shortcut_bn", "downsample_bn", "downsample.1", "downsample.1"),
)
_R2PLUS1D = (  # here, pyvrl, torchvision
    ("stem/conv/spatial", "stem.conv_s", "stem.0"),
    ("stem/conv/bn", "stem.bn_s", "stem.1"),
    ("stem/conv/temporal", "stem.conv_t", "stem.3"),
    ("stem/bn", "stem.bn_t", "stem.4"),
    ("block/conv*/spatial", "conv*.conv_s", "conv*.0.0"),
    ("block/conv*/bn", "conv*.bn_s", "conv*.0.1"),
    ("block/conv*/temporal", "conv*.conv_t", "conv*.0.3"),
    ("block/bn*", "bn*", "conv*.1"),
    ("block/shortcut_conv", "downsample.conv", "downsample.0"),
    ("block/shortcut_bn", "downsample_bn", "downsample.1"),
)
_C3D = (  # here, after 'conv' and 'bn' there
    ("stem", "1"),
    ("stage1_block1", "2"),
    ("stage2_block1", "3a"),
    ("stage2_block2", "3b"),
    ("stage3_block1", "4a"),
    ("stage3_block2", "4b"),
    ("stage4_block1", "5a"),
    ("stage4_block2", "5b"),
)


def _column(table, number):
    return {row[0]: row[number] for row in table}


PYVRL = Family(
    name="pyvrl",
    epsilon=1e-3,
    variants={R3D: _column(_R3D, 1), R2PLUS1D: _column(_R2PLUS1D, 1)},
    prefix="backbone.",
    classifier="cls_head.fc_cls.",
    ctp_head="head.",
)
TORCHVISION = Family(
    name="torchvision",
    epsilon=1e-5,
    variants={R3D: _column(_R3D, 2), R2PLUS1D: _column(_R2PLUS1D, 2)},
    classifier="fc.",
    mid_per_block=True,
    note="torchvision trained its weights on frames normalised with the mean and "
    "standard deviation of Kinetics; here those of ImageNet are used",
)
IMAGENET = Family(
    name="imagenet",
    epsilon=1e-5,
    variants={R3D: _column(_R3D, 3)},
    kernel="inflated",
)
VCOP = Family(
    name="vcop",
    epsilon=1e-5,
    variants={
        C3D: {
            f"{here}/{layer}": layer + there
            for here, there in _C3D
            for layer in ("conv", "bn")
        }
    },
    classifier="linear.",
    note="VCOP trained its weights on frames between 0 and 1, without mean and "
    "standard deviation; here those of ImageNet are used",
)

FAMILIES = {family.name: family for family in (PYVRL, TORCHVISION, IMAGENET, VCOP)}

CTP_HEAD = (
    Entry("head", ("temporal", "kernel"), "temporal_conv.weight", "conv"),
    Entry("head", ("temporal", "bias"), "temporal_conv.bias", "vector"),
    Entry("head", ("dense1", "kernel"), "fc1.weight", "pooled"),
    Entry("head", ("dense1", "bias"), "fc1.bias", "vector"),
    Entry("head", ("dense2", "kernel"), "pred_head.weight", "linear"),
    Entry("head", ("dense2", "bias"), "pred_head.bias", "vector"),
)
"""That of pyvrl; no other family has one."""

CLASSIFIER = (
    Entry("head", ("classifier", "kernel"), "weight", "linear"),
    Entry("head", ("classifier", "bias"), "bias", "vector"),
)

NOT_WEIGHTS = "num_batches_tracked"
"""End of the name of PyTorch's counters of steps in BatchNorm, which are not used."""

_NORM = (
    ("params", "scale", "weight"),
    ("params", "bias", "bias"),
    ("batch_stats", "mean", "running_mean"),
    ("batch_stats", "var", "running_var"),
)


def encoder_entries(
    family: Family, variant: str, batch_norm: bool = True
) -> list[Entry]:
    """Every array of an encoder, in the order of the network.

    Args:
        family: the code base that the names are of.
        variant: the name of the network here.
        batch_norm: False for a C3D without batch normalisation.
    """
    entries = []
    for path, name in _layers(family.variants[variant]):
        if "bn" in path[-1]:
            entries += [
                Entry(collection, (*path, ours), f"{name}.{theirs}", "vector")
                for collection, ours, theirs in _NORM
                if batch_norm
            ]
            continue
        kernel = Entry("params", (*path, "kernel"), f"{name}.weight", family.kernel)
        entries.append(kernel)
        if variant == C3D:
            entries.append(Entry("params", (*path, "bias"), f"{name}.bias", "vector"))
    return entries


def _layers(table: dict[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """(path here, name in the code base) of each layer."""
    found, block = [], {}
    for ours, theirs in table.items():
        if ours.startswith("block/"):
            block[ours.removeprefix("block/")] = theirs
        else:
            found.append((tuple(ours.split("/")), theirs))
    for stage in range(1, len(resnet3d.CHANNELS) + 1):
        for number in range(1, resnet3d.BLOCKS + 1):
            here, there = f"stage{stage}_block{number}", f"layer{stage}.{number - 1}"
            for half in "12":
                for ours, theirs in block.items():
                    if "*" in ours:
                        path = ours.replace("*", half).split("/")
                        name = theirs.replace("*", half)
                        found.append(((here, *path), f"{there}.{name}"))
            if number == 1 and stage > 1:
                found += [
                    ((here, ours), f"{there}.{theirs}")
                    for ours, theirs in block.items()
                    if "*" not in ours
                ]
    return found
