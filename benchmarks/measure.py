"""What the benchmarks share: sides timed in turn, the machine's description, tables."""

import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

PACKAGES = (
    "jax",
    "flax",
    "tensorflow-cpu",
    "tensorflow",
    "torch",
    "opencv-python-headless",
)


def in_turn(
    sides: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of every call, one call of each side a round, so that noise hits all.

    Args:
        sides: name -> what is timed; it returns when its work is done.
        rounds: timed calls per side.
        warm_up: calls per side before, not timed: compilation, caches.
    """
    found = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            if number >= warm_up:
                found[name].append(time.perf_counter() - start)
    return found


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median and range of the ratios of two sides that were measured in turn."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    return {"median": statistics.median(each), "min": min(each), "max": max(each)}


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, Python and versions of what is installed."""
    found = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def show(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table: text to the left, numbers to the right."""
    rows = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for row in [list(header), *rows]:
        cells = [
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip(), flush=True)


def _cell(value):
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 100 else f"{value:.0f}"


def write_json(path: str, found: Mapping[str, Any]) -> None:
    """Writes the figures and the machine's description, if there is a path."""
    if path:
        text = json.dumps({"machine": machine(), **found}, indent=1)
        pathlib.Path(path).write_text(text + "\n")
