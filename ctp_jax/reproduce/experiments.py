"""Reads experiments: files of data with the rows and columns of a table.

A *run* is described by the path of a config with its arguments, or by a dictionary of that
path (`config`) and of fields to override. A field may have a run as its value: it then
gets that run's folder, and the run is made first. Besides fields, there are

    frames     train until so many frames have been seen; sets `steps`
    small      what is different with --scale=small: fields, `config` (`{data}` in it is
               what takes the place of the data there), or None: cannot be

A *column* is a run that every row is transferred to, with `metric`, the number to take from
its last evaluation, and `values`, which replace `{name}` in paths of configs. Without
`config`, the number is of what is pretrained. A *row* is a run, what is pretrained, or a
dictionary with any of `_ROW`.
"""

import dataclasses
import fnmatch
import functools
import importlib.util
import pathlib
import re
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError, in_code

_ROW = {
    "pretrain": "a run, or None: from scratch",
    "transfer": "fields of the runs that it is transferred to, and `arguments`",
    "paper": "numbers in the order of the columns, None where there is none",
    "columns": "patterns of the columns that the row has; others stay empty",
    "missing": "why there is no run",
    "chance": "True: what guesses come to that look at no video",
}
RUN = ("config", "arguments", "frames", "small")
"""What a run may have beside fields."""
_TYPES = {
    "config": ("text", str),
    "arguments": ("text", str),
    "frames": ("a whole number", int),
    "small": ("a dictionary, why not, or None", (Mapping, str, type(None))),
    "transfer": ("a dictionary", Mapping),
    "paper": ("a tuple", (tuple, list)),
    "columns": ("a tuple", (tuple, list)),
    "missing": ("text", str),
    "chance": ("True or False", bool),
    "metric": ("text", str),
    "values": ("a dictionary", Mapping),
}
"""What the entries of rows, columns and runs must be."""
_FILE = {
    "TITLE": str,
    "LABELS": tuple,  # above the parts of the rows' names
    "COLUMNS": dict,
    "ROWS": dict,
    "SEEDS": tuple,
    "FIGURE": dict,  # x: {column: x}, xlabel; or curves: True
    "PICTURES": dict,  # {name: (module, flag, ...)}, drawn when the runs are there
    "MADE_BY": dict,  # {path: command that makes it}
    "MEASURED": str,  # what this project has measured, for docs/experiments.md
}


@dataclasses.dataclass(frozen=True)
class Row:
    """See `_ROW`; `paper` is {column: number}."""

    label: tuple[str, ...]
    pretrain: Any = None
    transfer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ("*",)
    missing: str = ""
    chance: bool = False

    @property
    def name(self) -> str:
        """The label as one text."""
        return ", ".join(self.label)

    def has(self, column: str) -> bool:
        """Whether the row has a value in a column."""
        return any(fnmatch.fnmatchcase(column, each) for each in self.columns)


@dataclasses.dataclass(frozen=True)
class Column:
    """A metric of a run that rows are transferred to; `run` None: of the pretraining."""

    label: str
    metric: str
    run: Mapping[str, Any] | None
    values: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or a figure; see `_FILE` for the attributes from `seeds` on."""

    name: str
    title: str
    labels: tuple[str, ...]
    columns: list[Column]
    rows: list[Row]
    seeds: tuple[int, ...] = (0,)
    figure: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    made_by: Mapping[str, str] = dataclasses.field(default_factory=dict)
    measured: str = ""


def checkout() -> pathlib.Path:
    """The folder that `configs/` is in; raises `UserError` without one."""
    found = importlib.util.find_spec("configs")
    if found is None or found.origin is None:
        raise UserError("the folder configs/ is not there: start in the checkout")
    return pathlib.Path(found.origin).parents[1]


@functools.cache
def shared() -> Mapping[str, Any]:
    """What `configs/experiments/common.py` says of data and of small forms."""
    return runpy.run_path(str(checkout() / "configs/experiments/common.py"))


def names() -> list[str]:
    """The experiments of `configs/experiments/`, numbers in their order."""
    folder = checkout() / "configs/experiments"
    found = {p.stem for p in folder.glob("*.py")} - {"__init__", "common"}

    def order(name):
        letters = name.rstrip("0123456789")
        of_paper = letters in ("table", "fig")
        # Tables come first, then figures, then what is not of the paper.
        place = ("table", "fig").index(letters) if of_paper else 2
        return place, letters, int(name[len(letters) :] or 0)

    return sorted(found, key=order)


def read(spec: str) -> Experiment:
    """Reads `NAME[:ARGUMENTS]`, or the file `PATH.py[:ARGUMENTS]`.

    Raises:
        UserError: there is no such experiment, or its file is wrong.
    """
    name, has_arguments, arguments = spec.partition(":")
    if name.endswith(".py") or "/" in name:
        path = pathlib.Path(name)
        if not path.is_file():
            there = [str(each) for each in path.parent.glob("*.py")]
            raise UserError(
                f"{name}: no such file{config_lib.did_you_mean(name, there)}"
            )
    else:
        if name not in names():
            own = [str(each) for each in pathlib.Path().glob("*.py")]
            hint = config_lib.did_you_mean(name, [*names(), *own])
            raise UserError(
                f"{name!r}: no such table" + (hint or f": one of {', '.join(names())}")
            )
        path = checkout() / f"configs/experiments/{name}.py"
    try:
        found = runpy.run_path(str(path))
        if "get_experiment" in found:
            found |= found["get_experiment"](*([arguments] if has_arguments else []))
        elif has_arguments:
            raise ValueError(f"takes no arguments: {arguments!r}")
    except Exception as error:
        raise UserError(f"{path}{in_code(error, path)}") from error
    title = ((found["__doc__"] or "").strip() or path.stem).partition("\n")[0]
    # Tables of other arguments are other files.
    name = re.sub(r"[^\w.+-]+", "-", f"{path.stem}-{arguments}".rstrip("-"))
    return _experiment(path, name, {"TITLE": title.rstrip("."), **found})


def _experiment(path: pathlib.Path, name: str, found: Mapping[str, Any]) -> Experiment:
    given = {key: found[key] for key in _FILE if key in found}
    for key, value in given.items():
        if not isinstance(value, _FILE[key]):
            raise UserError(f"{path}: {key}: must be a {_FILE[key].__name__}")
    if not all(isinstance(seed, int) and seed >= 0 for seed in given.get("SEEDS", ())):
        raise UserError(f"{path}: SEEDS: needs whole numbers from 0")
    if "ROWS" not in given and "PICTURES" not in given:
        raise UserError(f"{path}: has no ROWS: see docs/experiments.md")
    if "ROWS" in given and not given.get("COLUMNS"):
        raise UserError(f"{path}: has no COLUMNS: see docs/experiments.md")
    columns = [
        _column(path, label, each) for label, each in given.get("COLUMNS", {}).items()
    ]
    rows = [
        _row(path, label, each, columns)
        for label, each in given.get("ROWS", {}).items()
    ]
    labels = given.get("LABELS", ("",))
    for row in rows:
        if len(row.label) != len(labels):
            raise UserError(
                f"{path}: row {row.name!r}: needs {len(labels)} parts, LABELS"
            )
    more = ("SEEDS", "FIGURE", "PICTURES", "MADE_BY", "MEASURED")
    more = {key.lower(): given[key] for key in more if key in given}
    title = given["TITLE"]
    return Experiment(name, title, labels, columns, rows, **more)


def chosen(
    experiment: Experiment, rows: Sequence[str], columns: Sequence[str]
) -> Experiment:
    """Those rows and columns that a pattern of each list fits; `UserError` for none."""

    def fit(flag, items, name, patterns):
        left = [
            i for i in items if any(fnmatch.fnmatchcase(name(i), p) for p in patterns)
        ]
        if items and not left:
            there = list(map(name, items))
            hint = config_lib.did_you_mean(patterns[0], there)
            raise UserError(
                f"--{flag}={','.join(patterns)}: no such {flag} of {experiment.name}: "
                f"there are {'; '.join(there)}{hint}"
            )
        return left

    return dataclasses.replace(
        experiment,
        rows=fit("rows", experiment.rows, lambda row: row.name, rows),
        columns=fit("columns", experiment.columns, lambda each: each.label, columns),
    )


def is_run(described: Any) -> bool:
    """Whether a value describes a run."""
    return isinstance(described, Mapping) and "config" in described


def _check(place: str, described: Mapping[str, Any]) -> None:
    """Raises `UserError` for entries of other types, those of inner runs included."""
    if "seed" in described:
        raise UserError(f"{place}: 'seed': SEEDS and --seeds set it")
    for name, value in described.items():
        what, types = _TYPES.get(name, ("", object))
        if not isinstance(value, types):
            raise UserError(f"{place}: {name!r} = {value!r}: needs {what}")
        if is_run(value) or (isinstance(value, Mapping) and name in _TYPES):
            _check(place, value)


def _column(path: pathlib.Path, label: Any, described: Any) -> Column:
    place = f"{path}: column {label!r}"
    if not isinstance(described, Mapping):
        raise UserError(f"{place}: needs a dictionary with 'metric'")
    if "metric" not in described:
        given = ", ".join(map(repr, described)) or "nothing"
        raise UserError(f"{place}: needs 'metric', a number to show; it has {given}")
    _check(place, described)
    run = {k: v for k, v in described.items() if k not in ("metric", "values")}
    if run and not is_run(run):
        raise UserError(f"{place}: needs 'config'")
    values = described.get("values", {})
    return Column(str(label), described["metric"], run or None, values)


def _row(path: pathlib.Path, label: Any, described: Any, columns: list[Column]) -> Row:
    parts = tuple(map(str, label if isinstance(label, tuple) else (label,)))
    place = f"{path}: row {', '.join(parts)!r}"
    if isinstance(described, Mapping):
        _check(place, described)
    if described is None or isinstance(described, str) or is_run(described):
        return Row(parts, described)
    if not isinstance(described, Mapping):
        raise UserError(f"{place}: needs a run or a dictionary")
    for key in described:
        if key not in _ROW:
            hint = config_lib.did_you_mean(key, _ROW) or f": one of {', '.join(_ROW)}"
            raise UserError(f"{place}: no such entry {key!r}{hint}")
    pretrain = described.get("pretrain")
    if not (pretrain is None or isinstance(pretrain, str) or is_run(pretrain)):
        raise UserError(f"{place}: 'pretrain' = {pretrain!r}: needs a run or None")
    numbers = described.get("paper", ())
    if len(numbers) > len(columns):
        raise UserError(f"{place}: more numbers than columns in 'paper'")
    if not all(isinstance(number, (int, float, type(None))) for number in numbers):
        raise UserError(f"{place}: 'paper' = {numbers!r}: needs numbers or None")
    labels = [column.label for column in columns]
    pairs = zip(labels, numbers, strict=False)
    paper = {column: number for column, number in pairs if number is not None}
    row = Row(parts, **{**described, "paper": paper})
    for pattern in row.columns:
        if not fnmatch.filter(labels, pattern):
            raise UserError(f"{place}: no column fits {pattern!r}")
    return row
