"""The metrics of a run: measured, and written to `metrics.jsonl` and TensorBoard.

Metrics stay on the device until they are logged, so that the loop does not wait for the
step that it has just started.
"""

import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from ctp_jax import metrics_file
from ctp_jax.errors import UserError, reason
from ctp_jax.results import is_number
from ctp_jax.storage import files
from ctp_jax.train import console
from ctp_jax.train.passing_on import PassOn


class Interval:
    """Means over the steps since the last log line.

    Checkpoints hold its sums, so that a resumed run logs the same numbers as an
    uninterrupted one.

    Attributes:
        bad_step: the first step whose loss or parameters are not finite, or None.
    """

    def __init__(self, sums: Mapping[str, float] | None = None):
        """Starts empty, or from the `sums` in a checkpoint."""
        self._sums = dict(sums or {})
        self._pending: list[tuple[int, Mapping[str, jax.Array]]] = []
        self.bad_step: int | None = None

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes the metrics of a step without waiting for them."""
        self._pending.append((step, dict(metrics)))

    def sums(self) -> dict[str, float]:
        """Sums by name, and `count`, the number of steps. Waits for all of them."""
        for step, metrics in jax.device_get(self._pending):
            values = {name: float(value) for name, value in metrics.items()}
            if not values.pop("finite", 1.0) and self.bad_step is None:
                self.bad_step = step
            for name, value in {**values, "count": 1.0}.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            # The last learning rate is logged, not a mean.
            if "learning_rate" in values:
                self._sums["learning_rate"] = values["learning_rate"]
        self._pending.clear()
        # A copy, because a checkpoint writes it in the background.
        return dict(self._sums)

    def means(self) -> dict[str, float]:
        """Means by name, and the sum of `replaced`; starts a new interval."""
        sums = self.sums()
        self._sums = {}
        count = sums.pop("count", 1.0)
        whole = {k: v for k, v in sums.items() if k in ("learning_rate", "replaced")}
        return {name: total / count for name, total in sums.items()} | whole


class Meter:
    """Measures throughput, the share of time spent waiting for input, and the ETA."""

    def __init__(self, clips_per_step: int):
        self._clips = clips_per_step
        self._rate: float | None = None
        self.restart()

    def restart(self) -> None:
        """Starts a new interval, without the time of an evaluation or compilation."""
        self._began = time.perf_counter()
        self._steps, self._waited = 0, 0.0

    def step(self, waited: float) -> None:
        """Counts a step and the seconds that it waited for input."""
        self._steps += 1
        self._waited += waited

    def read(self, steps_to_go: int) -> dict[str, float]:
        """clips_per_second, input_share and eta (s); {} for an interval without steps."""
        seconds = time.perf_counter() - self._began
        if not self._steps:
            return {}
        rate = self._steps / max(seconds, 1e-9)
        # Smoothed, so that the ETA does not jump.
        self._rate = rate if self._rate is None else 0.5 * (self._rate + rate)
        return {
            "clips_per_second": rate * self._clips,
            "input_share": self._waited / max(seconds, 1e-9),
            "eta": steps_to_go / self._rate,
        }


class MetricWriter:
    """Appends to `metrics.jsonl`, and to TensorBoard if that is installed.

    Only process 0 writes. A line holds `kind` ('train' or 'eval'), `step`, `epoch` and
    the metrics.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        step: int,
        eval_pending: bool = False,
        pass_on: PassOn | None = None,
    ):
        """Deletes lines of later steps than `step` and opens the files.

        Args:
            workdir: of the run.
            step: the step to resume from; -1 deletes all lines.
            eval_pending: whether the evaluation of that step will be repeated.
            pass_on: see `ctp_jax.train.passing_on`.
        """
        self._pass_on = pass_on
        self._file = self._board = None
        if jax.process_index() != 0:
            return
        path = workdir / "metrics.jsonl"
        try:
            found = metrics_file.read(path)[0]
        except FileNotFoundError:
            found = []
        except OSError as error:
            why = reason(error)
            raise UserError(f"{path}: cannot be read ({why}): move it away") from error
        lines = [
            line
            for line in found
            if line["step"] <= step
            and not (eval_pending and (line["kind"], line["step"]) == ("eval", step))
        ]
        with files.replacing(path) as new, new.open("w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        self._file = path.open("a")
        self._board = _tensorboard(workdir / "tensorboard", lines)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends a line with the values that are numbers or strings."""
        if self._file is None:
            return
        line = {"kind": kind, "step": step} | {
            name: _plain(value) for name, value in values.items() if _fits(value)
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        _to_board(self._board, line)
        if self._pass_on is not None:
            try:
                self._pass_on(step, _numbers(line))
            except Exception as error:  # noqa: BLE001 (code of others, over a network)
                self._pass_on = None
                console.say(f"note: no more metrics are passed on: {reason(error)}")

    def sync(self) -> None:
        """Flushes to the disk, before a checkpoint is saved that relies on these lines."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the files."""
        for file in (self._file, self._board):
            if file is not None:
                file.close()


def _fits(value: Any) -> bool:
    return isinstance(value, str) or is_number(value)


def _plain(value: Any) -> Any:
    """A JSON value: NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, (str, int)):
        return value
    return float(value) if math.isfinite(float(value)) else None


def _tensorboard(directory: pathlib.Path, lines: Iterable[Mapping[str, Any]]) -> Any:
    """A TensorBoard writer with these lines, or None if it is not installed.

    TensorBoard cannot delete steps, so its files are rewritten from `metrics.jsonl`.
    """
    try:
        from tensorboard.summary import Writer
    except ImportError:
        return None
    shutil.rmtree(directory, ignore_errors=True)
    board = Writer(str(directory))
    for line in lines:
        _to_board(board, line)
    return board


def _to_board(board: Any, line: Mapping[str, Any]) -> None:
    if board is None:
        return
    for name, value in _numbers(line).items():
        board.add_scalar(name, value, step=line["step"])


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """{'train/loss': 0.5} of a line of `metrics.jsonl`."""
    return {
        f"{line['kind']}/{name}": value
        for name, value in line.items()
        if name not in ("kind", "step") and isinstance(value, (int, float))
    }
