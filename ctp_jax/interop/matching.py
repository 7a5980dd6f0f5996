"""Which encoder is in a state dict, told from its names."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from ctp_jax.errors import UserError
from ctp_jax.interop import names

# Which of several encoders in one file, e.g. not the momentum encoder.
_PREFERRED = ("backbone", "encoder_q", "encoder")


@dataclasses.dataclass(frozen=True)
class Match:
    """An encoder in a state dict.

    Attributes:
        family: whose names they are.
        variant: our name of the network.
        prefix: of the names.
        share: of its names that are there.
        entries: its arrays.
    """

    family: names.Family
    variant: str
    prefix: str
    share: float
    entries: list[names.Entry]

    def misfit(self, path: str, what: str) -> UserError:
        """The line for a state dict that is nearly this encoder."""
        kind = f"{self.family.name} {self.variant}"
        return UserError(f"{path}: does not fit {kind}: {what}")


def find(tensors: Mapping[str, np.ndarray], path: str, family: str = "auto") -> Match:
    """The encoder of which the largest share of names is there.

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
            f"{path}: not the names of an encoder that is known here (tried {tried}); "
            f"its first are {some(tensors)}"
        )
    return best


def prefixes_by_ending(keys: Iterable[str]) -> dict[str, list[str]]:
    """For every ending of a name (at a dot) what stands before it, in file order."""
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
    """Raises `UserError` unless the encoder is complete, and has no further layers."""
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
    """How many names there are, by their first part; counters of steps are not said."""
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
