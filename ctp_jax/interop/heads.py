"""Heads in state dicts: pyvrl's Catch-the-Patch head, and classifiers."""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ctp_jax.errors import UserError
from ctp_jax.interop import layouts, matching, names

CTP, RECOGNITION = "ctp", "recognition"  # names of tasks here

_DIMENSIONS = 5, 1, 2, 1, 2, 1  # of the tensors, in the order of names.CTP_HEAD


class Head(NamedTuple):
    """A head that was found in a state dict.

    Attributes:
        task: the task here that has such a head; '' if none was found.
        params: of the head; None if none was found.
        names: of the tensors that it was made of.
    """

    task: str
    params: Any
    names: frozenset[str]


NONE = Head("", None, frozenset())


def find(
    tensors: Mapping[str, np.ndarray], match: matching.Match, channels: int
) -> Head:
    """The head that belongs to an encoder; `NONE` if no task here has such a head.

    Args:
        tensors: by name.
        match: the encoder.
        channels: of the encoder's features.
    """
    places = matching.prefixes_by_ending(tensors)

    def nearest(name: str) -> list[str]:
        """Prefixes of a tensor; first those that have most in common with the encoder."""
        return sorted(
            places.get(name, ()),
            key=lambda prefix: -len(os.path.commonprefix([prefix, match.prefix])),
        )

    if match.family.ctp_head:
        for prefix in nearest(names.CTP_HEAD[0].name):
            there = [tensors.get(prefix + entry.name) for entry in names.CTP_HEAD]
            if _is_ctp_head(there, channels):
                return _take(tensors, CTP, prefix, names.CTP_HEAD)
    name = match.family.classifier
    if not name:
        return NONE
    for prefix in nearest(f"{name}weight"):
        # In pyvrl, the classifier is next to the encoder as a whole; in the other
        # families, it is next to the parts of the encoder, with the same prefix.
        if match.family is not names.PYVRL and prefix != match.prefix:
            continue
        weight = tensors[f"{prefix}{name}weight"]
        bias = tensors.get(f"{prefix}{name}bias")
        shape = (*(bias.shape if bias is not None else ()), channels)
        if match.family.pointwise:
            shape = (*shape, 1, 1, 1)
        if bias is not None and weight.shape == shape:
            entries = names.classifier(match.family)
            return _take(tensors, RECOGNITION, prefix + name, entries)
    return NONE


def _is_ctp_head(there: list[np.ndarray | None], channels: int) -> bool:
    shapes = [tensor.shape for tensor in there if tensor is not None]
    if tuple(len(shape) for shape in shapes) != _DIMENSIONS:
        return False
    hidden, taps, outputs = shapes[0][0], shapes[0][2], shapes[4][0]
    side = math.isqrt(shapes[2][1] // hidden)
    want = [(hidden, channels, taps, 1, 1), (hidden,), (hidden, hidden * side**2)]
    want += [(hidden,), (outputs, hidden), (outputs,)]
    return shapes == want and outputs % 4 == 0


def _take(tensors, task, prefix, entries) -> Head:
    params = {}
    for entry in entries:
        array = tensors[prefix + entry.name]
        shape = layouts.shape_here(array.shape, entry.layout)
        layer, name = entry.path
        array = layouts.to_ours(array, entry.layout, shape)
        params.setdefault(layer, {})[name] = array
    return Head(task, params, frozenset(prefix + entry.name for entry in entries))


def to_torch(
    params: Mapping[str, Any], family: names.Family, squeeze: bool, path: str
) -> dict[str, np.ndarray]:
    """The tensors of a head, by name.

    Args:
        params: of the head.
        family: the code base that the names are for.
        squeeze: of a CtP head, see `ctp_jax.models.heads.CtPHead`.
        path: for messages.

    Raises:
        UserError: the family has no such head.
    """
    layers, prefix, entries = set(params), "", ()
    if layers == {"classifier"}:
        prefix, entries = family.classifier, names.classifier(family)
    elif layers == {entry.path[0] for entry in names.CTP_HEAD} and squeeze:
        prefix, entries = family.ctp_head, names.CTP_HEAD
    if not prefix:
        raise UserError(
            f"{path}: {family.name} has no head of {', '.join(sorted(layers))}"
            + " with config.head.squeeze=False" * (not squeeze)
            + ": add --encoder_only to leave the head out"
        )
    return {
        prefix + entry.name: layouts.to_torch(params[layer][name], entry.layout)
        for entry in entries
        for layer, name in [entry.path]
    }
