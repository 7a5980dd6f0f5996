"""Figures that are pictures: drawn by other commands from the runs of an experiment."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from ctp_jax.errors import refusals
from ctp_jax.reproduce import plan, specs
from ctp_jax.reproduce.experiments import Experiment
from ctp_jax.reproduce.runs import Run, Settings
from ctp_jax.storage import untrusted


def draw(
    experiment: Experiment,
    cells: Mapping[tuple[str, str], Sequence[Run] | str],
    root: str,
    settings: Settings,
) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Draws the pictures that are not there yet.

    The folder of a picture has a digest of its command and runs in its name, and is there
    only if the drawing succeeded.

    Args:
        experiment: with `pictures`; `{run:ROW}` in a flag is the folder of that row's
            first run.
        cells: its runs.
        root: the folder of all runs.
        settings: of the runs.

    Returns:
        ({picture: its folder}, a line for each picture that cannot be drawn).
    """
    first = {
        row: runs[0]
        for (row, _), runs in cells.items()
        if isinstance(runs, list) and runs
    }
    drawn, missing = {}, []
    for name, (module, *given) in experiment.pictures.items():
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
            continue
        names = {row: first[row].name for row in rows}
        about = [module, *_flags(given, names, settings)]
        digest = untrusted.json_digest({"command": about})[:10]
        word = re.sub(r"\W+", "_", name)
        out = pathlib.Path(root, "tables", experiment.name, f"{word}-{digest}")
        places = {row: f"{root}/{each}" for row, each in names.items()}
        command = ["-m", module, *_flags(given, places, settings)]
        if not out.is_dir() and (why := _run(command, out)):
            missing.append(f"picture {name}: {why}")
        else:
            drawn[name] = out
    return drawn, missing


def _run(command: Sequence[str], out: pathlib.Path) -> str:
    """Makes the folder `out` by a command of Python; returns why that failed, or ''."""
    with refusals(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=out.parent) as new:
            made = pathlib.Path(new, out.name)
            done = subprocess.run(
                [sys.executable, *command, f"--out={made}"],
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                last = [*(done.stdout + done.stderr).strip().splitlines(), ""][-2:][0]
                return last.removeprefix("error: ")
            try:
                os.rename(made, out)
            except OSError:
                if not out.is_dir():  # else another process drew it meanwhile
                    raise
    return ""


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
