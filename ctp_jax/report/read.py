"""Reads the files of a workdir; missing and damaged ones are left out."""

import csv
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ctp_jax import config as config_lib
from ctp_jax import metrics_file
from ctp_jax import results as results_lib
from ctp_jax.errors import UserError, reason
from ctp_jax.storage import buckets, untrusted

_ARRAYS = ("confusion", "class_names")
_MAX_BYTES = 1 << 31


@dataclasses.dataclass
class Run:
    """What is known about one run.

    Attributes:
        path: the workdir, absolute.
        name: shown in the page; by default the name of its folder.
        config: of config.json; {} if there is none.
        versions: of versions.json, likewise.
        command: of command.json, what was typed, from `python` on; [] if there is none.
        train: lines of metrics.jsonl of the kind 'train', by step; every value is a
            finite float or None.
        held_out: likewise of the kind 'eval'.
        arrays: those of evaluation.npz about classes or frames, by name.
        predictions: rows of predictions.csv, by the names of its columns.
        notes: one line for each part that could not be read or shown.
    """

    path: pathlib.Path
    name: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, Any] = dataclasses.field(default_factory=dict)
    command: list[str] = dataclasses.field(default_factory=list)
    train: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    held_out: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    predictions: list[dict[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def fields(self) -> dict[str, Any]:
        """The config as a flat dict: {'optimizer.learning_rate': 0.01, ...}."""
        return config_lib.flatten(self.config)

    @property
    def label_share(self) -> float:
        """The share of the labels that it has: Fig. 4 has a group of runs with several."""
        return finite(self.fields.get("data.fraction")) or 1.0

    @property
    def step(self) -> int | None:
        """The last step in any line of metrics.jsonl."""
        return max((line["step"] for line in self.train + self.held_out), default=None)

    def results(self) -> dict[str, float | None]:
        """The metrics of the last evaluation, and the last training loss."""
        found = {name: each.value for name, each in self.measured().items()}
        if self.train and "loss" in self.train[-1]:
            found["training loss"] = self.train[-1]["loss"]
        return found

    def measured(self) -> dict[str, results_lib.Result]:
        """The metrics of the last evaluation with their baselines."""
        last = self.held_out[-1] if self.held_out else {}
        others = ("step", "epoch")
        return results_lib.results({k: v for k, v in last.items() if k not in others})

    def attempt(self, what: str, make: Callable, *args: Any) -> Any:
        """The result of `make(*args)`; if that fails, adds a note and returns None.

        The files of a run may be damaged in any way. No part of a report may prevent the
        others.
        """
        try:
            return make(*args)
        except Exception as error:  # noqa: BLE001
            self.notes.append(f"{what}: {reason(error)}")
            return None


def finite(value: Any) -> float | None:
    """The value as a float; None if it is not a finite number."""
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
        UserError: the folder does not exist, or contains no run.
    """
    path = buckets.opened(workdir)
    if path.name == "config.json":  # `runs/*/config.json`: of all folders, the runs
        path = path.parent
    if not path.is_dir():
        raise UserError(f"{workdir}: no such folder: give the workdir of a run")
    # A run that was refused leaves an empty folder of checkpoints.
    parts = ("config.json", "metrics.jsonl", "checkpoints/*")
    if not any(any(path.glob(part)) for part in parts):
        inside = any(path.glob("*/config.json"))
        remedy = (
            f"give the runs in it: {workdir}/*/config.json"
            if inside
            else "give the --workdir of ctp_jax.main"
        )
        raise UserError(
            f"{workdir}: no run there (no config.json, no metrics.jsonl): {remedy}"
        )
    path = path.resolve()
    run = Run(path, path.name)
    run.config = _part(run, "config.json", untrusted.load_json, {})
    run.versions = _part(run, "versions.json", untrusted.load_json, {})
    run.command = _part(
        run, "command.json", lambda path: untrusted.load_json(path, [str]), []
    )
    lines, bad = _part(run, "metrics.jsonl", metrics_file.read, ([], 0))
    if bad:
        whole = bad + len(lines)
        run.notes.append(f"metrics.jsonl: {bad} of {whole} lines left out: incomplete")
    run.train, run.held_out = _by_step(lines, "train"), _by_step(lines, "eval")
    run.arrays = _part(run, "evaluation.npz", _read_arrays, {})
    run.predictions = _part(run, "predictions.csv", _read_rows, [])
    return run


def _part(run: Run, name: str, reader: Callable, otherwise: Any) -> Any:
    """What `reader` returns of a file; `otherwise` if it is missing or damaged."""
    path = run.path / name
    made = run.attempt(name, reader, path) if os.path.lexists(path) else None
    return otherwise if made is None else made


def _by_step(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Lines of a kind, merged to one per step, in order; later values replace earlier."""
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        if line["kind"] == kind:
            values = {k: finite(v) for k, v in line.items() if not isinstance(v, str)}
            values |= {"kind": kind, "step": line["step"]}
            found[line["step"]] = found.get(line["step"], {}) | values
    return [found[step] for step in sorted(found)]


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with untrusted.opened(path, _MAX_BYTES) as file:
        # The others are for later analysis, and may be large.
        return untrusted.read_arrays(file, lambda n: n in _ARRAYS or "_per_frame" in n)


def _read_rows(path: pathlib.Path) -> list[dict[str, str]]:
    """Rows that have all columns; the last one may be incomplete."""
    with untrusted.opened(path, _MAX_BYTES) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        reader = csv.DictReader(text)
        if "predicted" not in (reader.fieldnames or ()):
            raise ValueError("other columns")
        return [row for row in reader if None not in row.values()]
