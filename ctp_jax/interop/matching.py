"""Finds out from the names in a state dict which encoder it contains."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from ctp_jax import formatting
from ctp_jax.errors import UserError
from ctp_jax.interop import layouts, names

# Words in prefixes: of several encoders that fit equally well, the one that learns by
# gradients is taken, not a moving average of it.
_AVERAGES = {"averaged", "ema", "k", "key", "momentum", "shadow", "swa", "target"}
_AVERAGES |= {"teacher"}
_LEARNERS = {"backbone", "encoder", "model", "net", "online", "q", "query", "student"}


@dataclasses.dataclass(frozen=True)
class Match:
    """An encoder in a state dict.

    Attributes:
        family: the code base that the names are of.
        variant: the name of the network here.
        prefix: of the names.
        share: of the encoder's arrays that the state dict has.
        entries: the arrays of the encoder.
        others: prefixes of other encoders in the state dict, the best fit first.
    """

    family: names.Family
    variant: str
    prefix: str
    share: float
    entries: list[names.Entry]
    others: list[str] = dataclasses.field(default_factory=list)

    def misfit(self, path: str, what: str) -> UserError:
        """The error for a state dict that does not fit this encoder."""
        kind = f"{self.family.name} {self.variant}"
        return UserError(f"{path}: does not fit {kind}: {what}")


def find(
    tensors: Mapping[str, np.ndarray],
    path: str,
    family: str = "auto",
    network: str = "",
) -> Match:
    """The encoder with the largest share of its names in the state dict.

    Args:
        tensors: by name.
        path: for messages.
        family: a name of `names.FAMILIES`, or 'auto' for any of them.
        network: the network here; empty: any, and of several with the same names the
            first of the family.

    Raises:
        UserError: there is none.
    """
    places = prefixes_by_ending(tensors)
    matches = []
    for candidate in names.FAMILIES.values():
        if family not in ("auto", candidate.name):
            continue
        for variant in candidate.variants:
            if network not in ("", variant):
                continue
            for batch_norm in (True, False) if variant == names.C3D else (True,):
                entries = names.encoder_entries(candidate, variant, batch_norm)
                found = Counter(
                    prefix
                    for entry in entries
                    for prefix in places.get(entry.name, ())
                    if layouts.may_be(tensors[prefix + entry.name], entry.layout)
                )
                matches += [
                    Match(
                        candidate.of(variant),
                        variant,
                        prefix,
                        number / len(entries),
                        entries,
                    )
                    for prefix, number in found.items()
                ]
    matches.sort(key=lambda m: (-m.share, _rank(m.prefix), -len(m.entries)))
    if not matches or (family == "auto" and matches[0].share < 0.5):
        tried = ", ".join(names.FAMILIES) if family == "auto" else family
        tried += f", {network}" if network else ""
        raise UserError(
            f"{path}: no known encoder has these names: {formatting.some(tensors)} "
            f"(tried {tried}): docs/checkpoints.md lists the encoders to convert"
        )
    best = matches[0]
    others = dict.fromkeys(m.prefix for m in matches if m.share > 0.5)
    others.pop(best.prefix, None)
    return dataclasses.replace(best, others=list(others))


def prefixes_by_ending(keys: Iterable[str]) -> dict[str, list[str]]:
    """For every ending of a name, the prefixes before it, in the order of the file."""
    places = {}
    for key in keys:
        parts = key.split(".")
        for i in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:i])
            places.setdefault(".".join(parts[i:]), []).append(prefix)
    return places


def _rank(prefix: str) -> tuple[bool, bool]:
    """Lower for the prefix to prefer: `encoder_q.`, not `momentumEncoder.`."""
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*", prefix)}
    return bool(words & _AVERAGES), not words & _LEARNERS


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
        parts.append(f"{len(missing)} missing ({formatting.some(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({formatting.some(unexpected)})")
    if parts:
        raise match.misfit(path, "; ".join(parts))


def groups(left: Iterable[str], prefix: str = "") -> dict[str, int]:
    """How many names there are, by their first part that differs from the prefix.

    PyTorch's counters of steps are left out.
    """
    there = prefix.split(".")[:-1]
    found = Counter()
    for name in left:
        parts = name.split(".")
        if not name.endswith(names.NOT_WEIGHTS):
            same = len(os.path.commonprefix([parts, there]))
            found[".".join(parts[: same + 1])] += 1
    return dict(found)
