"""Finds out from the names in a state dict which encoder it contains."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from ctp_jax.errors import UserError
from ctp_jax.interop import names

# Prefixes to prefer if a file has several encoders, e.g. a momentum encoder as well.
_PREFERRED = ("backbone", "encoder_q", "encoder")


@dataclasses.dataclass(frozen=True)
class Match:
    """An encoder in a state dict.

    Attributes:
        family: the code base that the names are of.
        variant: the name of the network here.
        prefix: of the names.
        share: of the encoder's names that the state dict has.
        entries: the arrays of the encoder.
    """

    family: names.Family
    variant: str
    prefix: str
    share: float
    entries: list[names.Entry]

    def misfit(self, path: str, what: str) -> UserError:
        """The error for a state dict that does not fit this encoder."""
        kind = f"{self.family.name} {self.variant}"
        return UserError(f"{path}: does not fit {kind}: {what}")


def find(tensors: Mapping[str, np.ndarray], path: str, family: str = "auto") -> Match:
    """The encoder with the largest share of its names in the state dict.

    Args:
        tensors: by name.
        path: for messages.
        family: a name of `names.FAMILIES`, or 'auto' for any of them.

    Raises:
        UserError: there is none.
    """
    places = prefixes_by_ending(tensors)
    matches = []
    for candidate in names.FAMILIES.values():
        if family not in ("auto", candidate.name):
            continue
        for variant in candidate.variants:
            for batch_norm in (True, False) if variant == names.C3D else (True,):
                entries = names.encoder_entries(candidate, variant, batch_norm)
                found = Counter(
                    prefix for entry in entries for prefix in places.get(entry.name, ())
                )
                matches += [
                    Match(candidate, variant, prefix, number / len(entries), entries)
                    for prefix, number in found.items()
                ]
    best = min(
        matches,
        key=lambda m: (-m.share, _rank(m.prefix), -len(m.entries)),
        default=None,
    )
    if best is None or (family == "auto" and best.share < 0.5):
        tried = ", ".join(names.FAMILIES) if family == "auto" else family
        raise UserError(
            f"{path}: no known encoder has these names: {some(tensors)} "
            f"(tried {tried}): docs/checkpoints.md lists the encoders to convert"
        )
    return best


def prefixes_by_ending(keys: Iterable[str]) -> dict[str, list[str]]:
    """For every ending of a name, the prefixes before it, in the order of the file."""
    places = {}
    for key in keys:
        parts = key.split(".")
        for i in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:i])
            places.setdefault(".".join(parts[i:]), []).append(prefix)
    return places


def _rank(prefix: str) -> int:
    last = prefix.rstrip(".").rpartition(".")[2]
    return _PREFERRED.index(last) if last in _PREFERRED else len(_PREFERRED)


def check_names(tensors: Mapping[str, np.ndarray], match: Match, path: str) -> None:
    """Raises `UserError` unless the encoder is complete and has no other layers."""
    wanted = dict.fromkeys(match.prefix + entry.name for entry in match.entries)
    roots = {entry.name.partition(".")[0] for entry in match.entries}
    missing = [name for name in wanted if name not in tensors]
    unexpected = [
        name
        for name in tensors
        if name.startswith(match.prefix)
        and name.removeprefix(match.prefix).partition(".")[0] in roots
        and not name.endswith(names.NOT_WEIGHTS)
        and name not in wanted
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({some(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({some(unexpected)})")
    if parts:
        raise match.misfit(path, "; ".join(parts))


def groups(left: Iterable[str]) -> dict[str, int]:
    """How many names there are, by their first part; counters of steps are left out."""
    found = Counter(
        ".".join(name.split(".")[: 2 if name.startswith("module.") else 1])
        for name in left
        if not name.endswith(names.NOT_WEIGHTS)
    )
    return dict(found)


def some(many: Iterable[str], number: int = 3) -> str:
    """The first of many, for a message."""
    many = list(many)
    return ", ".join(many[:number]) + (", ..." if len(many) > number else "")
