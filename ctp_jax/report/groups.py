"""Groups runs that are the same experiment, and labels the groups."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError
from ctp_jax.report.read import Run, finite
from ctp_jax.storage import files, untrusted

_ENCODER = {"provenance": {"config": dict}}  # of encoder.json, what is read here
_MAX_LABEL = 64  # characters; a longer label is replaced by the names of the runs


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ only by their seed, and all do.

    Attributes:
        label: how it differs from the other groups.
        runs: at least one.
    """

    label: str
    runs: list[Run]

    @property
    def counted(self) -> list[Run]:
        """The runs with the most steps: an unfinished one says little."""
        furthest = max(run.step or 0 for run in self.runs)
        return [run for run in self.runs if (run.step or 0) == furthest]

    def values(self, name: str) -> list[float]:
        """The last value of a metric for each of the `counted` runs that has one."""
        found = (run.results().get(name) for run in self.counted)
        return [value for value in found if value is not None]


def differing(runs: Sequence[Run]) -> list[str]:
    """Config fields that are not the same in all runs and influence the results."""
    names = dict.fromkeys(name for run in runs for name in run.fields)
    return [
        name
        for name in names
        if not name.startswith(config_lib.PLUMBING)
        and len({_key(run, name) for run in runs}) > 1
    ]


def _key(run: Run, name: str) -> str:
    """The setting of a run as text, equal for equal settings."""
    value = run.fields.get(name)
    same = finite(value)  # 1 and 1.0
    return json.dumps(value if same is None else same, sort_keys=True)


def group(runs: Sequence[Run], without: Iterable[str] = ()) -> list[Group]:
    """Groups runs that differ only by the seed and the fields in `without`.

    Fields that do not influence the results are ignored. Encoders that runs start from
    count as the same if their own runs differ only by the seed: each seed of an
    experiment may begin with its own pretraining. A second run of a seed says nothing
    about the spread: it gets a group of its own.
    """
    fields = [name for name in differing(runs) if name not in {"seed", *without}]
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        key = (
            _origin(run) if name == "init_from" else _key(run, name) for name in fields
        )
        found.setdefault(tuple(key), []).append(run)
    values = zip(*found, strict=True)
    apart = [name for name, v in zip(fields, values, strict=True) if len(set(v)) > 1]
    short, groups = short_origins(runs), []
    for each in found.values():
        once: dict[tuple, Run] = {}
        for run in sorted(each, key=lambda run: -(run.step or 0)):
            once.setdefault((run.fields.get("seed"), run.label_share), run)
        first = [run for run in each if any(run is kept for kept in once.values())]
        groups.append(Group(_label(first, apart, short), first))
        for run in each:
            if not any(run is kept for kept in first):
                again = f"{run.name}: seed {run.fields.get('seed')} again"
                groups.append(Group(again, [run]))
    return groups


def field(name: str, value: Any) -> str:
    """The value of a config field as text; pages are published, so without folders."""
    if name == "init_from" and not value:
        return "from scratch"
    return "–" if value is None else str(files.without_folders(value)) or "(empty)"


def _label(runs: Sequence[Run], fields: Sequence[str], short: dict[str, str]) -> str:
    parts = []
    for name in fields:
        if name == "init_from":
            starts = sorted({short[str(run.fields.get(name) or "")] for run in runs})
            parts.append(f"from {' / '.join(starts) or 'scratch'}")
        else:
            value = field(name, runs[0].fields.get(name))
            parts.append(f"{name.rpartition('.')[2]} {value}")
    label = ", ".join(parts)
    if 0 < len(label) <= _MAX_LABEL:
        return label
    names = [run.name for run in runs]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def paths_in_short(paths: Iterable[str]) -> dict[str, str]:
    """{path: as few of its last parts as distinguish it from the others}."""
    parts = {path: pathlib.PurePath(path).parts for path in set(paths)}
    # An encoder is named after its run.
    parts = {k: v[:-1] if v[-1:] == ("encoder",) else v for k, v in parts.items()}
    short = {}
    for path, own in parts.items():
        others = [other for other in parts.values() if other != own]
        length = 1
        while length < len(own) and own[-length:] in [o[-length:] for o in others]:
            length += 1
        short[path] = os.path.join("", *own[-length:])
    return short


def short_origins(runs: Sequence[Run]) -> dict[str, str]:
    """`paths_in_short` of what runs start from."""
    return paths_in_short(str(run.fields.get("init_from") or "") for run in runs)


def _origin(run: Run) -> str:
    """Identifies the encoder that a run started from, except for its seed.

    By the config it was trained with if that can still be read, otherwise by its path.
    """
    path = str(run.fields.get("init_from") or "")
    for place in ("encoder.json", "encoder/encoder.json") if path else ():
        try:
            about = untrusted.load_json(files.absolute(path) / place, _ENCODER)
        except (OSError, ValueError, UserError):
            continue
        provenance = about["provenance"]
        fields = config_lib.flatten(provenance["config"])
        ignored = ("seed", *config_lib.PLUMBING)
        kept = {k: v for k, v in fields.items() if not k.startswith(ignored)}
        return json.dumps([kept, provenance.get("steps")], sort_keys=True)
    return path
