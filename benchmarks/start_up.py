"""Seconds from the command to the first step, and what they are made of.

    python -m benchmarks.start_up [--config configs/demo.py] [--repeats 3] [--json FILE]
    python -m benchmarks.start_up --other DIR    # another checkout of the project, in turn

A run on the built-in data is started again and again, and stopped after two steps, which
are saved:

    new, cold         an empty folder and an empty compilation cache
    new, warm         an empty folder, and a cache that holds the programs of this config
    going on, cold    from the checkpoint, with an empty cache
    going on, warm    from the checkpoint, with a full one

`seconds` is from starting the process to the line of its first step, median and range.
The rest is the medians of the run's own line `start-up ...`, and what `-X importtime`
says of the packages of one more run, each without the packages that it imports.
"""

import collections
import os
import pathlib
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from benchmarks import command_line, measure

ROOT = pathlib.Path(__file__).parents[1]
KINDS = ("new, cold", "new, warm", "going on, cold", "going on, warm")
MANY = 100_000  # steps of the whole run: the same every time, or programs would differ


class Start(NamedTuple):
    """One start.

    Attributes:
        seconds: from starting the process to the line of the first step.
        phases: seconds by name, of the run's own line; empty if it has none.
        stderr: of the process.
    """

    seconds: float
    phases: dict[str, float]
    stderr: str


def parse(argv):
    """The flags."""
    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument(
        "--batch_size",
        type=command_line.count_or_zero,
        default=0,
        help="0: the config's",
    )
    parser.add_argument("--repeats", type=command_line.count, default=3)
    parser.add_argument("--other", default="", help="a second checkout, in turn")
    parser.add_argument(
        "--flags", default="", help="more flags of the run, as one text"
    )
    arguments = parser.parse_args(argv)
    if arguments.other and not (pathlib.Path(arguments.other) / "ctp_jax").is_dir():
        parser.error(f"--other={arguments.other}: no checkout of the project there")
    return arguments


def read_phases(line):
    """{name: seconds} of a line `start-up 9.3 s: imports 3.1, ...`; {} of another.

    Also `compiled` and `from the cache`, programs.
    """
    if not line.startswith("start-up "):
        return {}
    phases = re.findall(r"([a-z][a-z ]*?) (\d+\.\d+)", line.partition(": ")[2])
    found = {name.removeprefix("of this "): float(value) for name, value in phases}
    counts = re.search(r"\((\d+) programs, (\d+) from the cache\)", line)
    compiled, cached = counts.groups()
    return found | {"compiled": int(compiled), "from the cache": int(cached)}


def package_times(text):
    """{package: seconds} that `-X importtime` says, most first.

    Every module counts for its own package, less the modules that it imports.
    """
    found = collections.Counter()
    for own, module in re.findall(
        r"^import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)$", text, re.MULTILINE
    ):
        found[module.partition(".")[0]] += int(own) / 1e6
    return dict(found.most_common())


class Starter:
    """Starts runs of one config on one data set."""

    def __init__(self, arguments: Any, folder: pathlib.Path):
        """Prepares the data."""
        self._arguments, self._folder = arguments, folder
        prepare = [sys.executable, "-m", "ctp_jax.prepare", "moving_shapes"]
        command = [*prepare, f"--data_dir={folder / 'data'}"]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)

    def start(self, code, workdir, cache, python=()):
        """One `Start`: stopped after two steps, and saved.

        Args:
            code: folder of the checkout.
            workdir: of the run.
            cache: folder of compiled programs.
            python: options of the interpreter.
        """
        arguments = self._arguments
        flags = {
            "": arguments.config,
            ".data.name": "moving_shapes",
            ".data.data_dir": self._folder / "data",
            ".data.split": "train",
            ".data.eval_split": "",
            ".log_every": 1,
            ".steps": MANY,
        }
        if arguments.batch_size:
            flags[".batch_size"] = arguments.batch_size
        command = [
            *(sys.executable, *python, "-m", "ctp_jax.main", f"--workdir={workdir}"),
            *(f"--config{name}={value}" for name, value in flags.items()),
            *shlex.split(arguments.flags),
        ]
        environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
        return self._watch(command, environ, code)

    def _watch(self, command, environ, code):
        seconds, phases, output, steps = None, {}, [], 0
        with tempfile.TemporaryFile("w+") as errors:
            began = time.perf_counter()
            process = subprocess.Popen(
                command,
                env=environ,
                cwd=code,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            for line in process.stdout:
                output.append(line)
                phases = phases or read_phases(line)
                steps += line.startswith("step ")
                if steps == 1:
                    seconds = seconds or time.perf_counter() - began
                elif steps == 2:  # the run's own line comes before
                    process.send_signal(signal.SIGTERM)
                    steps += 1  # once: a second signal ends it without saving
            failed = process.wait() != 0 or seconds is None
            errors.seek(0)
            text = errors.read()
        if failed:
            sys.exit("".join(output) + text)
        return Start(seconds, phases, text)


def one_round(start, place, code):
    """{kind: Start} of a checkout, in a folder of its own."""
    runs, caches = place / "runs", place / "caches"
    found = {}
    for kind, workdir, cache in zip(
        KINDS, ("one", "two", "two", "two"), ("one", "one", "two", "one"), strict=True
    ):
        found[kind] = start(code, runs / workdir, caches / cache)
    return found


def summary(starts):
    """Medians of several starts of a kind."""
    seconds = [each.seconds for each in starts]
    names = starts[0].phases
    return {
        "seconds": statistics.median(seconds),
        "range": [min(seconds), max(seconds)],
        "each": seconds,
        "phases": {
            name: statistics.median(each.phases[name] for each in starts)
            for name in names
        },
    }


def main(argv=None):
    """Prints the tables."""
    arguments = parse(argv)
    codes = {"here": ROOT}
    if arguments.other:
        codes["other"] = pathlib.Path(arguments.other).absolute()
    starts = {(side, kind): [] for side in codes for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        starter = Starter(arguments, folder)
        for repeat in range(arguments.repeats):
            for side, code in codes.items():
                place = folder / f"{side}{repeat}"
                for kind, each in one_round(starter.start, place, code).items():
                    starts[side, kind].append(each)
                    line = f"{side}, {kind}: {each.seconds:.1f} s"
                    print(line, file=sys.stderr, flush=True)
        importing = starter.start(
            ROOT, folder / "imports", folder / "here0/caches/one", ("-X", "importtime")
        )
    found = {
        f"{kind} ({side})" if arguments.other else kind: summary(each)
        for (side, kind), each in starts.items()
    }
    print_starts(found)
    packages = package_times(importing.stderr)
    print(f"\nimports, {sum(packages.values()):.1f} s while they are being timed:")
    most = list(packages.items())[:12]
    measure.show(("package", "seconds"), [[n, round(s, 2)] for n, s in most])
    measure.write_json(arguments.json, {"starts": found, "imports": packages})


def print_starts(found):
    """A table of the seconds, and one of what they are made of."""
    measure.show(
        ("start", "seconds", "range"),
        [
            [name, round(each["seconds"], 1), "{:.1f} to {:.1f}".format(*each["range"])]
            for name, each in found.items()
        ],
    )
    # Of a run that goes on, there is no phase `init`, of a new one no `restore`.
    names = dict.fromkeys(name for each in found.values() for name in each["phases"])
    print("\nof which, in seconds, and programs:")
    measure.show(
        ("start", *names),
        [
            [name, *(each["phases"].get(column) for column in names)]
            for name, each in found.items()
            if each["phases"]
        ],
    )


if __name__ == "__main__":
    command_line.run(main)
