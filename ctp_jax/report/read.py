"""Reads what lies in a workdir, whatever of it is there and readable."""

import csv
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError

PREDICTIONS = ("video", "label", "predicted", "probability", "correct", "top5")
NEIGHBOURS = ("query", "label", "rank", "neighbour", "neighbour_label")
NEIGHBOURS += ("similarity", "correct")
_NOT_METRICS = ("kind", "step", "epoch")
_ARRAYS = ("confusion", "class_names", "class_accuracies")
_PARTS = ("config.json", "metrics.jsonl", "evaluation.npz", "encoder/encoder.json")
_PARTS += ("predictions.csv", "neighbours.csv", "checkpoints")


@dataclasses.dataclass
class Run:
    """What is known about one run.

    Attributes:
        path: the workdir, absolute.
        name: what to call it; by default the name of its folder.
        config: as in config.json; {} where there is none.
        versions: as in versions.json.
        encoder: as in encoder/encoder.json.
        train: lines of metrics.jsonl of the kind 'train', by step; every value is a
            finite float or None.
        held_out: likewise of the kind 'eval'.
        arrays: of evaluation.npz, by name: what has to do with classes or frames.
        predictions: rows of predictions.csv, by the names in `PREDICTIONS`.
        neighbours: rows of neighbours.csv, by the names in `NEIGHBOURS`.
        written: when metrics.jsonl was last written, in seconds since 1970, or None.
        notes: one line for each part that is there and could not be read or shown.
    """

    path: pathlib.Path
    name: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, Any] = dataclasses.field(default_factory=dict)
    encoder: dict[str, Any] = dataclasses.field(default_factory=dict)
    train: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    held_out: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    predictions: list[dict[str, str]] = dataclasses.field(default_factory=list)
    neighbours: list[dict[str, str]] = dataclasses.field(default_factory=list)
    written: float | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def fields(self) -> dict[str, Any]:
        """The config, flat: {'optimizer.learning_rate': 0.01, ...}."""
        return config_lib.flatten(self.config)

    @property
    def step(self) -> int | None:
        """The last step that any line tells of."""
        return max((line["step"] for line in self.train + self.held_out), default=None)

    def results(self) -> dict[str, float | None]:
        """The values of the last evaluation; None where one was not finite."""
        last = self.held_out[-1] if self.held_out else {}
        return {k: v for k, v in last.items() if k not in _NOT_METRICS}

    def attempt(self, what: str, draw: Callable[[], Any], otherwise: Any) -> Any:
        """What `draw()` returns; where it fails, a note and `otherwise`.

        A report is written at the end of a run of days, from files that anything may
        have happened to: no part of it may take down the rest, let alone the run.
        """
        try:
            return draw()
        except Exception as error:  # noqa: BLE001
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self.notes.append(f"{what}: {reason}")
            return otherwise


def number(value: Any) -> float | None:
    """A finite float, or None for whatever else it is."""
    if isinstance(value, bool):
        return None
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def read(workdir: str | os.PathLike) -> Run:
    """Everything in a workdir that can be read.

    Raises:
        UserError: the folder is not there, or has nothing of a run in it.
    """
    path = pathlib.Path(workdir).expanduser().absolute()
    if not path.is_dir():
        what = "not a folder" if path.exists() else "no such folder"
        raise UserError(f"{workdir}: {what}: give the workdir of a run")
    if not any((path / part).exists() for part in _PARTS):
        raise UserError(
            f"{workdir}: no run there (no config.json, no metrics.jsonl): give what "
            "was --workdir of ctp_jax.main"
        )
    path = path.resolve()
    run = Run(path, path.name)
    run.config = _part(run, "config.json", _read_dict, {})
    run.versions = _part(run, "versions.json", _read_dict, {})
    run.encoder = _part(run, "encoder/encoder.json", _read_dict, {})
    lines = _part(run, "metrics.jsonl", lambda p: _read_lines(p, run.notes), [])
    run.train = _by_step(lines, "train")
    run.held_out = _by_step(lines, "eval")
    run.arrays = _part(run, "evaluation.npz", lambda p: _read_arrays(p, run.notes), {})
    for name, columns in (("predictions", PREDICTIONS), ("neighbours", NEIGHBOURS)):
        rows = _part(run, f"{name}.csv", lambda p, c=columns: _read_rows(p, c), [])
        setattr(run, name, rows)
    if (path / "metrics.jsonl").exists():
        run.written = (path / "metrics.jsonl").stat().st_mtime
    return run


def _part(run: Run, name: str, reader: Callable, otherwise: Any) -> Any:
    """What a reader makes of a file, and a note where it fails on one that is there."""
    path = run.path / name
    if not path.exists():
        return otherwise
    try:
        return reader(path)
    except OSError as error:
        run.notes.append(f"{name}: cannot be read: {error.strerror or error}")
    except Exception:  # noqa: BLE001 (as in `Run.attempt`: bytes may be anything)
        run.notes.append(f"{name}: damaged or not yet wholly written; left out")
    return otherwise


def _read_dict(path: pathlib.Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _read_lines(path: pathlib.Path, notes: list[str]) -> list[dict[str, Any]]:
    """Lines with a kind and a step; values as finite floats or None."""
    good, bad = [], 0
    for text in path.read_bytes().splitlines():
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            kind, step = line["kind"], int(number(line["step"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            bad += 1
            continue
        values = {k: number(v) for k, v in line.items() if not isinstance(v, str)}
        good.append(values | {"kind": kind, "step": step})
    if bad:
        notes.append(f"metrics.jsonl: {bad} of {bad + len(good)} lines left out: cut")
    return good


def _by_step(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Lines of a kind in the order of their steps; later lines add to earlier ones."""
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        if line["kind"] == kind:
            found[line["step"]] = found.get(line["step"], {}) | line
    return [found[step] for step in sorted(found)]


def _read_arrays(path: pathlib.Path, notes: list[str]) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        # Opened here: NumPy leaves a file open that is no whole archive.
        with path.open("rb") as whole, np.load(whole, allow_pickle=False) as file:
            for name in file.files:
                # The others are for later analysis, and may be large.
                if name in _ARRAYS or "_per_frame" in name:
                    arrays[name] = file[name]
    except Exception:  # noqa: BLE001 (zipfile alone has five kinds)
        notes.append(f"{path.name}: damaged; what could be read of it is shown")
    return arrays


def _read_rows(path: pathlib.Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows with all columns: the last one may have been cut."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        if not set(columns) <= set(reader.fieldnames or ()):
            raise ValueError("other columns")
        rows = [{name: row[name] for name in columns} for row in reader]
    return [row for row in rows if None not in row.values()]
