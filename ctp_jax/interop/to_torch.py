"""Converts an exported encoder to a state dict of PyTorch."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctp_jax.errors import UserError
from ctp_jax.interop import clip_fields, heads, layouts, names
from ctp_jax.train.checkpoints.export import Encoder


def convert(
    encoder: Encoder, family: names.Family, with_head: bool = True
) -> dict[str, np.ndarray]:
    """The state dict of an encoder, and of its head.

    Args:
        encoder: as exported by a run or made by `from_torch`.
        family: the code base that the names are for; not 'imagenet', as inflated
            kernels cannot be converted back.
        with_head: convert the head as well.

    Returns:
        Tensors by name, in the order of the network.

    Raises:
        UserError: the family has no such network, or no such head.
    """
    architecture = encoder.architecture
    _check(architecture, family, encoder.path)
    family = family.of(architecture["name"])
    tensors = {}
    here = {"params": encoder.params, "batch_stats": encoder.batch_stats}
    batch_norm = architecture.get("batch_norm", True)
    for entry in names.encoder_entries(family, architecture["name"], batch_norm):
        array = _get(here[entry.collection], entry.path, encoder.path)
        name = family.prefix + entry.name
        tensors[name] = layouts.to_torch(array, entry.layout)
        if entry.path[-1] == "var":
            # After the running variance, as in torch.
            counter = name.replace("running_var", names.NOT_WEIGHTS)
            tensors[counter] = np.zeros((), np.int64)
    if with_head and encoder.head is not None:
        config = encoder.provenance.get("config", {})
        squeeze = config.get("head", {}).get("squeeze", True)
        tensors |= heads.to_torch(encoder.head, family, squeeze, encoder.path)
    return tensors


def about(encoder: Encoder, family: names.Family) -> dict[str, str]:
    """Text to write with the tensors, for `from_torch` and for people."""
    architecture = encoder.architecture
    return {
        "family": family.name,
        "epsilon": repr(architecture["epsilon"]),
        "architecture": json.dumps(architecture),
        "clips": json.dumps(clip_fields.of(encoder.provenance)),
    }


def _check(architecture: Mapping[str, Any], family: names.Family, path: str) -> None:
    name = architecture.get("name")
    if name not in family.variants:
        others = [other.name for other in names.writable(str(name))]
        raise UserError(
            f"{path}: {family.name} has no encoder like {name!r}, but "
            f"{', '.join(family.variants)}"
            + (f": use --to={others[0]}" if others else "")
        )
    rule = architecture.get("mid_per_block", False)
    if name == names.R2PLUS1D and rule != family.mid_per_block:
        other = "torchvision" if rule else "pyvrl"
        raise UserError(
            f"{path}: {name} has other mid channels in {family.name} "
            f"(config.model.mid_per_block is {rule} in the encoder, {not rule} in "
            f"{family.name}): use --to={other}"
        )


def _get(tree: Any, keys: tuple[str, ...], path: str) -> np.ndarray:
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            raise UserError(f"{path}: the encoder has no {'/'.join(keys)}")
        tree = tree[key]
    return np.asarray(tree)
