"""Which runs are the same experiment, and what the groups of them are called."""

import dataclasses
import json
import os
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ctp_jax import config as config_lib
from ctp_jax.report import words
from ctp_jax.report.read import Run, number

FRACTION = "data.fraction"
_MAX_LABEL = 64  # characters; what is longer is called by its runs


@dataclasses.dataclass
class Group:
    """Runs that differ by their seed alone.

    Attributes:
        label: what sets it apart from the other groups.
        runs: at least one.
        colour, dash: numbers of its lines in figures.
    """

    label: str
    runs: list[Run]
    colour: int = 0
    dash: int = 0

    @property
    def counted(self) -> list[Run]:
        """One run per seed, of those that got as far as the furthest of them.

        A run that is not finished says little about the experiment, and one seed run
        twice says nothing about the spread.
        """
        furthest = max((run.step or 0 for run in self.runs), default=0)
        done = [run for run in self.runs if (run.step or 0) == furthest]
        return list({run.fields.get("seed"): run for run in done}.values())

    def values(self, name: str) -> list[float]:
        """The last held-out value of every run that counts and has one."""
        found = (run.results().get(name) for run in self.counted)
        return [value for value in found if value is not None]

    @property
    def size(self) -> str:
        """How many runs count: '3', or '2 of 3'."""
        count, total = len(self.counted), len(self.runs)
        return str(count) if count == total else f"{count} of {total}"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1), which one value has not."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), deviation


def fraction_of(run: Run) -> float | None:
    """The share of the labels that a run had; None if its config says nonsense."""
    share = number(run.fields.get(FRACTION, 1.0))
    return share if share is not None and 0 < share <= 1 else None


def differing(runs: Sequence[Run]) -> list[str]:
    """Config fields that are not the same in all runs, without mere plumbing."""
    all_fields = [run.fields for run in runs]
    names = dict.fromkeys(name for fields in all_fields for name in fields)
    return [
        name
        for name in names
        if name not in words.PLUMBING
        and len({_key(_with_default(f, name)) for f in all_fields}) > 1
    ]


def _with_default(fields: dict[str, Any], name: str) -> Any:
    return fields.get(name, 1.0 if name == FRACTION else None)


def _key(value: Any) -> str:
    same = number(value)  # 1 and 1.0 are the same setting
    return json.dumps(value if same is None else same, sort_keys=True)


def group(runs: Sequence[Run], without: Iterable[str] = ()) -> list[Group]:
    """Groups runs that differ by nothing but seed, plumbing and fields `without`.

    Encoders to start from count as one where they differ by no more than that: each
    seed of an experiment begins with its own pretraining.
    """
    ignored = {"seed", *without}
    fields = [name for name in differing(runs) if name not in ignored]
    fields.sort(key=lambda name: (name != "init_from", name == FRACTION))
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        key = tuple(
            origin(run)
            if name == "init_from"
            else _key(_with_default(run.fields, name))
            for name in fields
        )
        found.setdefault(key, []).append(run)
    keys = list(found)
    set_apart = [
        name for i, name in enumerate(fields) if len({key[i] for key in keys}) > 1
    ]
    texts = paths_in_short([str(run.fields.get("init_from") or "") for run in runs])
    groups = [
        Group(_label(members, set_apart, texts), members) for members in found.values()
    ]
    for place, member in enumerate(groups):
        member.colour, member.dash = place % 6, place // 6 % 3
    return groups


def _label(runs: Sequence[Run], fields: Sequence[str], texts: dict[str, str]) -> str:
    parts = []
    for name in fields:
        if name == "init_from":
            paths = {str(run.fields.get(name) or "") for run in runs}
            parts.append(_starts_from(paths, texts))
            continue
        value = words.field(name, _with_default(runs[0].fields, name))
        last = name.rpartition(".")[2]
        unique = sum(n.rpartition(".")[2] == last for n in fields) == 1
        if name == FRACTION:
            parts.append(f"{value} of the labels")
        else:
            parts.append(f"{last if unique else name} {value}")
    label = ", ".join(parts)
    if label and len(label) <= _MAX_LABEL:
        return label
    names = [run.name for run in runs]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _starts_from(paths: set[str], texts: dict[str, str]) -> str:
    names = sorted(texts[path] for path in paths if path)
    if not names:
        return "from scratch"
    if len(" / ".join(names)) > _MAX_LABEL // 2:
        return f"from {names[0]} and {len(names) - 1} more"
    return f"from {' / '.join(names)}"


def paths_in_short(paths: Iterable[str]) -> dict[str, str]:
    """{path: as many of its last parts as tell it from the others}."""
    parts = {}
    for path in set(paths):
        pieces = pathlib.PurePath(path).parts
        parts[path] = pieces[:-1] if pieces[-1:] == ("encoder",) else pieces
    short = {}
    for path, pieces in parts.items():
        others = [p for p in parts.values() if p != pieces]
        length = 1
        while length < len(pieces) and any(
            p[-length:] == pieces[-length:] for p in others
        ):
            length += 1
        short[path] = os.path.join(*pieces[-length:]) if pieces else path
    return short


def origin(run: Run) -> str:
    """What the encoder that a run started from is, but for its seed.

    How it came about, where that can still be read; its path where not.
    """
    path = str(run.fields.get("init_from") or "")
    if not path:
        return ""
    given = pathlib.Path(path).expanduser()
    for place in (given / "encoder.json", given / "encoder" / "encoder.json"):
        try:
            provenance = json.loads(place.read_text(encoding="utf-8"))["provenance"]
            fields = config_lib.flatten(provenance["config"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        kept = {
            name: value
            for name, value in fields.items()
            if name != "seed" and name not in words.PLUMBING
        }
        return json.dumps([kept, provenance.get("steps")], sort_keys=True)
    return path
