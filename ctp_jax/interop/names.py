"""What the layers are called in PyTorch's state dicts.

A family is a code base with names of its own: pyvrl, the authors' release of
Catch-the-Patch (github microsoft/CtP); torchvision's `models.video`; and, to read only,
torchvision's 2-D `resnet18`, whose kernels are inflated.
"""

import dataclasses
from typing import NamedTuple

from ctp_jax.models import resnet3d

R3D, R2PLUS1D = resnet3d.NAMES


class Entry(NamedTuple):
    """One array here, one tensor there.

    Attributes:
        collection: 'params' or 'batch_stats' of the encoder, or 'head'.
        path: where it lies in there.
        name: of the tensor, without the prefix of the encoder or head.
        layout: see `ctp_jax.interop.layouts`.
    """

    collection: str
    path: tuple[str, ...]
    name: str
    layout: str


@dataclasses.dataclass(frozen=True)
class Family:
    """A code base, and what its networks take for granted.

    Attributes:
        name: as on the command line.
        prefix: of the encoder's names in a whole model.
        epsilon: of its batch normalisation.
        mid_per_block: see `ResNet3D`; of its R(2+1)D.
        variants: our name of a network -> layer here -> layer there; '*' stands for
            'conv1' and 'conv2' and for what they are called there.
    """

    name: str
    prefix: str
    epsilon: float
    mid_per_block: bool
    variants: dict[str, dict[str, str]]


PYVRL = Family(
    name="pyvrl",
    prefix="backbone.",
    epsilon=1e-3,
    mid_per_block=False,
    variants={
        R3D: {
            "stem/conv": "stem.conv",
            "stem/bn": "stem.bn",
            "block/conv*": "conv*.conv",
            "block/bn*": "bn*",
            "block/shortcut_conv": "downsample.conv",
            "block/shortcut_bn": "downsample_bn",
        },
        R2PLUS1D: {
            "stem/conv/spatial": "stem.conv_s",
            "stem/conv/bn": "stem.bn_s",
            "stem/conv/temporal": "stem.conv_t",
            "stem/bn": "stem.bn_t",
            "block/conv*/spatial": "conv*.conv_s",
            "block/conv*/bn": "conv*.bn_s",
            "block/conv*/temporal": "conv*.conv_t",
            "block/bn*": "bn*",
            "block/shortcut_conv": "downsample.conv",
            "block/shortcut_bn": "downsample_bn",
        },
    },
)

TORCHVISION = Family(
    name="torchvision",
    prefix="",
    epsilon=1e-5,
    mid_per_block=True,
    variants={
        R3D: {
            "stem/conv": "stem.0",
            "stem/bn": "stem.1",
            "block/conv*": "conv*.0",
            "block/bn*": "conv*.1",
            "block/shortcut_conv": "downsample.0",
            "block/shortcut_bn": "downsample.1",
        },
        R2PLUS1D: {
            "stem/conv/spatial": "stem.0",
            "stem/conv/bn": "stem.1",
            "stem/conv/temporal": "stem.3",
            "stem/bn": "stem.4",
            "block/conv*/spatial": "conv*.0.0",
            "block/conv*/bn": "conv*.0.1",
            "block/conv*/temporal": "conv*.0.3",
            "block/bn*": "conv*.1",
            "block/shortcut_conv": "downsample.0",
            "block/shortcut_bn": "downsample.1",
        },
    },
)

IMAGENET = Family(
    name="imagenet",
    prefix="",
    epsilon=1e-5,
    mid_per_block=False,
    variants={
        R3D: {
            "stem/conv": "conv1",
            "stem/bn": "bn1",
            "block/conv*": "conv*",
            "block/bn*": "bn*",
            "block/shortcut_conv": "downsample.0",
            "block/shortcut_bn": "downsample.1",
        },
    },
)

FAMILIES = {family.name: family for family in (PYVRL, TORCHVISION, IMAGENET)}

CTP_HEAD = (
    Entry("head", ("temporal", "kernel"), "temporal_conv.weight", "conv"),
    Entry("head", ("temporal", "bias"), "temporal_conv.bias", "vector"),
    Entry("head", ("dense1", "kernel"), "fc1.weight", "pooled"),
    Entry("head", ("dense1", "bias"), "fc1.bias", "vector"),
    Entry("head", ("dense2", "kernel"), "pred_head.weight", "linear"),
    Entry("head", ("dense2", "bias"), "pred_head.bias", "vector"),
)
"""pyvrl's, below 'head.'; torchvision has none."""

CLASSIFIER = (
    Entry("head", ("classifier", "kernel"), "weight", "linear"),
    Entry("head", ("classifier", "bias"), "bias", "vector"),
)

CTP_PREFIX = "head."
CLASSIFIER_PREFIX = {"pyvrl": "cls_head.fc_cls.", "torchvision": "fc."}

NOT_WEIGHTS = "num_batches_tracked"
"""Of each batch normalisation there; counts steps, and nothing here asks for it."""

_NORM = (
    ("params", "scale", "weight"),
    ("params", "bias", "bias"),
    ("batch_stats", "mean", "running_mean"),
    ("batch_stats", "var", "running_var"),
)


def encoder_entries(family: Family, variant: str) -> list[Entry]:
    """Every array of an encoder, in the order of the network.

    Args:
        family: whose names.
        variant: 'r3d18' or 'r2plus1d18'.
    """
    kernel = "inflated" if family is IMAGENET else "conv"
    entries = []
    for path, name in _layers(family.variants[variant]):
        if "bn" in path[-1]:
            entries += [
                Entry(collection, (*path, ours), f"{name}.{theirs}", "vector")
                for collection, ours, theirs in _NORM
            ]
        else:
            entries.append(Entry("params", (*path, "kernel"), f"{name}.weight", kernel))
    return entries


def _layers(table: dict[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """(path here, name there) of each layer."""
    stem = {k: v for k, v in table.items() if k.startswith("stem/")}
    block = {k.removeprefix("block/"): v for k, v in table.items() if k not in stem}
    found = [(tuple(ours.split("/")), theirs) for ours, theirs in stem.items()]
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
