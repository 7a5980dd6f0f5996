"""Converts a state dict of PyTorch to an encoder of ctp_jax.

The family is found from the names of the tensors, width and mid channels from their
shapes. The state dict must have every array of the encoder, in the right shape. Tensors
that are not used are listed.
"""

import bisect
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ctp_jax import formatting, models
from ctp_jax.interop import clip_fields, heads, layouts, matching, names
from ctp_jax.models import base, resnet3d
from ctp_jax.storage import untrusted
from ctp_jax.train.checkpoints.export import Encoder

STRIDES = (1, 2, 2, 2)
CTP_STRIDES = (1, 2, 2, 1)  # spatial, of models with a Catch-the-Patch head

_STORED = {"width": float, "epsilon": float}
_STORED |= {"spatial_strides": [int], "temporal_strides": [int]}


@dataclasses.dataclass(frozen=True)
class Imported:
    """The result of converting a state dict.

    Attributes:
        encoder: with its head, if it has one that a task here has as well.
        family: the code base that the names are of.
        prefix: of the names of the encoder's tensors.
        others: prefixes of other encoders in the state dict.
        unused: how many tensors were not used, by the first part of their names.
    """

    encoder: Encoder
    family: names.Family
    prefix: str
    others: list[str]
    unused: dict[str, int]


def convert(
    tensors: Mapping[str, np.ndarray],
    about: Mapping[str, str],
    path: str,
    family: str = "auto",
    provenance: Mapping[str, Any] | None = None,
    network: str = "",
) -> Imported:
    """Finds the encoder and its head in a state dict.

    Args:
        tensors: by name.
        about: text stored in the file, see `ctp_jax.interop.to_torch.about`.
        path: for messages.
        family: a name of `names.FAMILIES`, or 'auto' to find it.
        provenance: stored with the encoder; the family is added.
        network: see `matching.find`.

    Raises:
        UserError: there is no such encoder, it is incomplete, or shapes do not fit.
    """
    match = matching.find(tensors, path, family, network)
    matching.check_names(tensors, match, path)
    stored = _stored(about)
    here = _network(tensors, match, stored, path)
    collections = _arrays(tensors, match, here, path)
    head = heads.find(tensors, match, here.channels()[-1])
    if head.task == heads.CTP and not stored:
        here = here.clone(spatial_strides=CTP_STRIDES)
    encoder = Encoder(
        params=collections["params"],
        batch_stats=collections.get("batch_stats", {}),
        architecture=here.architecture(),
        head=head.params,
        head_task=head.task,
        provenance={
            **(provenance or {}),
            "family": match.family.name,
            "clips": clip_fields.parse(about.get("clips", "")),
        },
        path=path,
    )
    taken = {match.prefix + entry.name for entry in match.entries} | head.names
    left = (name for name in tensors if name not in taken)
    unused = matching.groups(left, match.prefix)
    return Imported(encoder, match.family, match.prefix, match.others, unused)


def _arrays(
    tensors: Mapping[str, np.ndarray],
    match: matching.Match,
    network: base.Encoder,
    path: str,
) -> dict[str, dict[str, Any]]:
    """The collections 'params' and, if there is any, 'batch_stats'."""
    shapes = _shapes(network)
    collections, wrong = {}, []
    for entry in match.entries:
        tensor = tensors[match.prefix + entry.name]
        shape = shapes[entry.collection, *entry.path]
        there = layouts.shape_there(shape, entry.layout)
        if tensor.shape != there or tensor.dtype != layouts.FLOAT:
            kind = "" if tensor.dtype == layouts.FLOAT else f"{tensor.dtype} "
            wrong.append(f"{entry.name} is {kind}{tensor.shape}, not {there}")
            continue
        tree = collections.setdefault(entry.collection, {})
        for part in entry.path[:-1]:
            tree = tree.setdefault(part, {})
        tree[entry.path[-1]] = layouts.to_ours(tensor, entry.layout, shape)
    if wrong:
        what = f"{len(wrong)} of the wrong shape ({formatting.some(wrong)})"
        raise match.misfit(path, what)
    return collections


def _shapes(network: base.Encoder) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of the arrays of an encoder here, by collection and path."""
    clip = jax.ShapeDtypeStruct((1, 2, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x, train=False), clip
    )
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {tuple(key.key for key in path): leaf.shape for path, leaf in leaves}


def _network(
    tensors: Mapping[str, np.ndarray],
    match: matching.Match,
    stored: Mapping[str, Any],
    path: str,
) -> base.Encoder:
    """The network that the tensors belong to."""
    published = models.PUBLISHED.get(match.variant, models.Published())
    temporal = published.temporal_strides or STRIDES
    model = ConfigDict(
        {
            "name": match.variant,
            "width": stored.get("width", 1.0),
            "spatial_strides": stored.get("spatial_strides", STRIDES),
            "temporal_strides": stored.get("temporal_strides", temporal),
            "epsilon": stored.get("epsilon", match.family.epsilon),
            "batch_norm": any(e.collection == "batch_stats" for e in match.entries),
            "dtype": "float32",
            "conv": "direct",
        }
    )
    if match.variant == names.S3D:  # whose tensors must have the shapes of that width
        return models.create(model)
    # The length of these vectors is the number of channels of their layers. Not always
    # those of normalisation, which a C3D may lack.
    vector = "bias" if match.variant == names.C3D else "scale"
    sizes = {
        entry.path[:-1]: tensors[match.prefix + entry.name].size
        for entry in match.entries
        if entry.path[-1] == vector
    }
    stages = [f"stage{stage}_block1" for stage in range(1, 1 + base.STAGES)]
    layers = ("bn3", "bn1", "conv")  # the first that there is has as many as the stage
    channels = [
        next(sizes[stage, layer] for layer in layers if (stage, layer) in sizes)
        for stage in stages
    ]
    mid = sizes.get((stages[1], "conv2", "bn"))
    if match.variant == names.R2PLUS1D:
        model.mid_per_block = _mid_per_block(channels, mid, match.family)
    stem_mid = sizes.get(("stem", "conv", "bn"), 0)
    network = models.create(model)
    width = find_width(network, channels, stem_mid)
    if width is None:
        of_stem = f" and {stem_mid} within the stem" if stem_mid else ""
        raise match.misfit(path, f"no width gives the channels {channels}{of_stem}")
    return network.clone(width=width)


def _mid_per_block(channels: list[int], mid: int | None, family: names.Family) -> bool:
    """Which rule gives the mid channels of stage 2; the family's if both rules do."""
    if mid is None:
        return False
    before, here = channels[:2]
    rules = {
        True: resnet3d.mid_channels(before, here),
        False: resnet3d.mid_channels(here, here),
    }
    fits = [rule for rule, channels in rules.items() if channels == mid]
    return fits[0] if len(fits) == 1 else family.mid_per_block


def _stored(about: Mapping[str, str]) -> dict[str, Any]:
    """Fields of `config.model` in a file that ctp_jax wrote; empty for other files."""
    try:
        stored = untrusted.parse_json(about["architecture"], _STORED)
    except (KeyError, ValueError):
        return {}
    if not (0 < stored["width"] <= 64 and 0 < stored["epsilon"] < 1):
        return {}
    return {name: stored[name] for name in _STORED}


def find_width(
    network: base.Encoder, channels: list[int], stem_mid: int = 0
) -> float | None:
    """A `config.model.width` that gives these channels, a round number if possible.

    Args:
        network: whose width is tried first.
        channels: of the four stages.
        stem_mid: between the halves of a factorised stem; 0 for other stems.

    Returns:
        None if no width up to 4 gives these channels.
    """
    denominators = (1, 2, 4, 8, 10, 100, 1000)
    fractions = [network.width, *(k / n for n in denominators for k in range(1, 4 * n))]

    def sizes(width: float) -> list[int]:
        here = network.clone(width=width)
        return [getattr(here, "stem_mid", 0), *here.channels()]

    # None of the sizes shrinks as the width grows, so the widths that fit are neighbours.
    widths, wanted = sorted(set(fractions)), [stem_mid, *channels]
    first = bisect.bisect_left(widths, wanted, key=sizes)
    last = bisect.bisect_right(widths, wanted, key=sizes)
    return min(widths[first:last], key=fractions.index, default=None)
