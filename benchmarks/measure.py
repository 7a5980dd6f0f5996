"""What the benchmarks share: flags, sides timed in turn, tables, a JSON file."""

import argparse
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from ctp_jax import cli, formatting
from ctp_jax import devices as devices_lib

PACKAGES = ("jax", "flax", "tensorflow-cpu", "tensorflow", "torch")


class _HelpFormatter(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    """The docstring as it is written, and the default of every flag."""


def make_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the flag `--json`.

    Args:
        module: name of the benchmark, `__spec__.name`.
        description: its docstring.
    """
    parser = argparse.ArgumentParser(
        f"python -m {module}", description=description, formatter_class=_HelpFormatter
    )
    parser.add_argument("--json", default="", metavar="FILE", help="figures go there")
    return parser


def run(main: Callable[[], Any], devices: bool = True) -> None:
    """Runs a benchmark as a command of `ctp_jax` runs.

    Args:
        main: of the benchmark.
        devices: whether it needs those of JAX.
    """

    def checked(arguments):
        if devices and not {"-h", "--help"} & set(arguments):
            devices_lib.use_onednn()
            devices_lib.check()
        main()

    cli.run(checked)


def is_installed(package: str) -> bool:
    """Whether a peer can be imported; says so if not."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"{package} is not installed: measured without it", flush=True)
    return found


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


def spelled(ratio: Mapping[str, float]) -> str:
    """A result of `ratios` as text."""
    return "{median:.3g} ({min:.3g} to {max:.3g})".format(**ratio)


def show(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table: text to the left, numbers to the right, None as a dash."""
    rows = [[_cell(value) for value in row] for row in rows]
    for line in formatting.aligned(header, rows):
        print(line.rstrip(), flush=True)


def _cell(value):
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 100 else f"{value:.0f}"


def write_json(path: str, figures: Mapping[str, Any]) -> None:
    """Writes the figures and the machine's description, if there is a path."""
    if path:
        text = json.dumps({"machine": machine(), **figures}, indent=1)
        pathlib.Path(path).write_text(text + "\n")


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, Python and versions of what is installed."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(": ")[2] for line in lines if "model name" in line]
    found = {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    installed = {item.name: item.version for item in metadata.distributions()}
    return found | {name: installed[name] for name in PACKAGES if name in installed}
