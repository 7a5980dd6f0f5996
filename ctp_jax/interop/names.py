"""The names of the layers in state dicts of PyTorch.

A family is a code base with names of its own: pyvrl, the authors' release of
Catch-the-Patch (github microsoft/CtP); torchvision's `models.video`; VCOP (github
xudejing/video-clip-order-prediction), whose C3D has the names of the network of 2015,
and whose networks of ten layers those of PRP and Pace have taken over;
and, for reading only, torchvision's 2-D `resnet18` and `resnet50`, whose kernels are
inflated.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from ctp_jax.models import resnet3d, s3d

R3D, R2PLUS1D, C3D, S3D = *resnet3d.NAMES, "c3d", s3d.S3D


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
            its convolutions.
        others: name of a network here -> the fields of this class that are others for it.
        prefix: of the encoder's names in a whole model.
        classifier: prefix of the names of its classifier; '' if it has none.
        ctp_head: prefix of the names of its Catch-the-Patch head; '' if it has none.
        mid_per_block: of its R(2+1)D, see `ResNet3D`.
        kernel: layout of its kernels, see `ctp_jax.interop.layouts`.
        pointwise: its classifier is a 1x1x1 convolution.
        note: what users of its published weights have to know.
    """

    name: str
    epsilon: float
    variants: dict[str, dict[str, str]]
    others: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    prefix: str = ""
    classifier: str = ""
    ctp_head: str = ""
    mid_per_block: bool = False
    kernel: str = "conv"
    pointwise: bool = False
    note: str = ""

    def of(self, variant: str) -> "Family":
        """The family as it is for one of its networks."""
        changes = self.others.get(variant)
        return dataclasses.replace(self, **changes) if changes else self


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


def _s3d_layers():
    """torchvision's `s3d`: the layers are numbered, and the poolings among them."""
    unit = {"conv": "0", "bn": "1"}
    separable = {
        f"{half}_{ours}": f"{number}.{theirs}"
        for number, half in enumerate(("spatial", "temporal"))
        for ours, theirs in unit.items()
    }
    after = {f"reduce_{ours}": f"0.{theirs}" for ours, theirs in unit.items()}
    after |= {ours: f"1.{theirs}" for ours, theirs in separable.items()}
    pooled = {ours: f"1.{theirs}" for ours, theirs in unit.items()}
    places = {"stem": (0, separable)}
    places |= {"stage1_block1": (2, unit), "stage1_block2": (3, separable)}
    found = {
        f"{block}/{ours}": f"features.{place}.{theirs}"
        for block, (place, layers) in places.items()
        for ours, theirs in layers.items()
    }
    place = 4
    for stage, blocks in s3d.MIXED.items():
        for block in range(1, len(blocks) + 1):
            for branch, layers in enumerate((unit, after, after, pooled)):
                found |= {
                    f"stage{stage}_block{block}_branch{branch}/{ours}": (
                        f"features.{place + block}.branch{branch}.{theirs}"
                    )
                    for ours, theirs in layers.items()
                }
        place += len(blocks) + 1
    return found


def _vcop_layers(factorised):
    """VCOP's networks of ten layers: a block per stage, 'conv2' to 'conv5'."""
    halves = {"/spatial": "spatial_conv", "/bn": "bn", "/temporal": "temporal_conv"}
    layers = halves if factorised else {"": "temporal_spatial_conv"}

    def unit(here, conv, norm, there, conv_there, norm_there):
        found = {
            f"{here}/{conv}{ours}": f"{there}{conv_there}.{theirs}"
            for ours, theirs in layers.items()
        }
        return found | {f"{here}/{norm}": f"{there}{norm_there}"}

    found = unit("stem", "conv", "bn", "", "conv1", "bn1")
    for stage in range(1, 5):
        block = f"stage{stage}_block1", f"conv{stage + 1}.block1."
        units = [(f"conv{half}", f"bn{half}") * 2 for half in "12"]
        if stage > 1:
            shortcut = "shortcut_conv", "shortcut_bn", "downsampleconv", "downsamplebn"
            units.insert(0, shortcut)
        for conv, norm, *names_there in units:
            found |= unit(block[0], conv, norm, block[1], *names_there)
    return found


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
    variants={
        R3D: _column(_R3D, 2),
        R2PLUS1D: _column(_R2PLUS1D, 2),
        S3D: _s3d_layers(),
    },
    others={S3D: {"epsilon": 1e-3, "classifier": "classifier.1.", "pointwise": True}},
    classifier="fc.",
    mid_per_block=True,
    note="torchvision trained its weights on frames normalised with the mean and "
    "standard deviation of Kinetics; here those of ImageNet are used",
)
IMAGENET = Family(
    name="imagenet",
    epsilon=1e-5,
    variants=dict.fromkeys((R3D, "tsm18", "tsm50"), _column(_R3D, 3)),
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
        },
        "r3d10": _vcop_layers(False),
        "r2plus1d10": _vcop_layers(True),
    },
    classifier="linear.",
    note="VCOP trained its weights on frames between 0 and 1, without mean and "
    "standard deviation; here those of ImageNet are used",
)

FAMILIES = {family.name: family for family in (PYVRL, TORCHVISION, IMAGENET, VCOP)}


def writable(network: str) -> list[Family]:
    """The families that have a network and can be written: inflated kernels cannot."""
    having = (family for family in FAMILIES.values() if network in family.variants)
    return [family for family in having if family.kernel != "inflated"]


CTP_HEAD = (
    Entry("head", ("temporal", "kernel"), "temporal_conv.weight", "conv"),
    Entry("head", ("temporal", "bias"), "temporal_conv.bias", "vector"),
    Entry("head", ("dense1", "kernel"), "fc1.weight", "pooled"),
    Entry("head", ("dense1", "bias"), "fc1.bias", "vector"),
    Entry("head", ("dense2", "kernel"), "pred_head.weight", "linear"),
    Entry("head", ("dense2", "bias"), "pred_head.bias", "vector"),
)
"""That of pyvrl; no other family has one."""


def classifier(family: Family) -> tuple[Entry, Entry]:
    """The arrays of a linear classifier."""
    layout = "pointwise" if family.pointwise else "linear"
    return (
        Entry("head", ("classifier", "kernel"), "weight", layout),
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
    for path, name in _layers(family.variants[variant], variant):
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


def _layers(table: dict[str, str], variant: str) -> list[tuple[tuple[str, ...], str]]:
    """(path here, name in the code base) of each layer."""
    found, block = [], {}
    for ours, theirs in table.items():
        if ours.startswith("block/"):
            block[ours.removeprefix("block/")] = theirs
        else:
            found.append((tuple(ours.split("/")), theirs))
    network = resnet3d.NETWORKS[variant] if block else resnet3d.Network(blocks=())
    for stage, blocks in enumerate(network.blocks, 1):
        for number in range(1, blocks + 1):
            here, there = f"stage{stage}_block{number}", f"layer{stage}.{number - 1}"
            for convolution in "123" if network.expansion else "12":
                for ours, theirs in block.items():
                    if "*" in ours:
                        path = ours.replace("*", convolution).split("/")
                        name = theirs.replace("*", convolution)
                        found.append(((here, *path), f"{there}.{name}"))
            if network.has_shortcut(stage, number):
                found += [
                    ((here, ours), f"{there}.{theirs}")
                    for ours, theirs in block.items()
                    if "*" not in ours
                ]
    return found
