"""Figures that are pictures: drawn by other commands from the runs of an experiment."""

import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ctp_jax.reproduce import plan, specs
from ctp_jax.reproduce.experiments import Experiment
from ctp_jax.reproduce.runs import Run, Settings


def folder(root: str, experiment: Experiment, name: str) -> pathlib.Path:
    """Where a picture of an experiment is drawn."""
    return pathlib.Path(root, "tables", experiment.name, re.sub(r"\W+", "_", name))


def draw(
    experiment: Experiment,
    cells: Mapping[tuple[str, str], Sequence[Run] | str],
    root: str,
    settings: Settings,
) -> list[str]:
    """Draws the pictures that are not there yet.

    Args:
        experiment: with `pictures`; `{run:ROW}` in a flag is the folder of that row's
            first run.
        cells: its runs.
        root: the folder of all runs.
        settings: of the runs.

    Returns:
        A line for each picture that cannot be drawn.
    """
    first = {
        row: runs[0]
        for (row, _), runs in cells.items()
        if isinstance(runs, list) and runs
    }
    missing = []
    for name, (module, *given) in experiment.pictures.items():
        out = folder(root, experiment, name)
        rows = re.findall(r"{run:(.+?)}", " ".join(given))
        needed = [
            row
            for row in rows
            if row not in first or not plan.is_finished(first[row], root)
        ]
        if needed:
            missing.append(
                f"picture {name}: the run of {' and '.join(needed)} is not made"
            )
        elif not out.is_dir():
            places = {row: f"{root}/{first[row].name}" for row in rows}
            command = ["-m", module, *_flags(given, places, settings), f"--out={out}"]
            done = subprocess.run(
                [sys.executable, *command], check=False, capture_output=True, text=True
            )
            if done.returncode:
                last = [*(done.stdout + done.stderr).strip().splitlines(), ""][-2:][0]
                missing.append(f"picture {name}: {last.removeprefix('error: ')}")
    return missing


def _flags(given, places: Mapping[str, str], settings: Settings) -> list[str]:
    """The flags of a command, with the data and the size that are chosen."""
    flags, data_dir = [], "data_dir"
    for each in given:
        if each.startswith("--config="):
            data_dir, spec = "config.data.data_dir", each.removeprefix("--config=")
            if settings.small:
                spec = specs.small_form(spec, settings.data)
            each = f"--config={specs.path(spec)}"
        flags.append(re.sub(r"{run:(.+?)}", lambda match: places[match[1]], each))
    return flags + [f"--{data_dir}={settings.data_dir}"] * bool(settings.data_dir)
