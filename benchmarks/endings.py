"""Ends every command in many ways: which leave a stack trace, a wrong code, lost steps?

    python -m benchmarks.endings [--only WORD ...]

Ctrl-C at moments from the start on; standard output closed, full, or not there; what the
environment may lack; signals during training, where the steps that are done must be saved.
A row per ending: the exit code, the lines on standard error, and what is wrong, if
anything is. Everything is generated, in a temporary folder.
"""

import dataclasses
import itertools
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import measure

MOMENTS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0)
"""Seconds after the start at which a command gets Ctrl-C. Python's own start comes
before, in which it prints a stack trace."""
LIMITS = (
    ("files of 20 kB", resource.RLIMIT_FSIZE, 20_000),
    ("24 open files", resource.RLIMIT_NOFILE, 24),
)

CONFIG = """
from configs import small


def get_config(arg=None):
    config = small.get_config(arg)
    config.batch_size = 2
    config.clip.num_frames, config.clip.size, config.clip.scales = 4, 32, (36,)
    config.game.scales = (10.0, 12.0)
    config.steps, config.log_every, config.eval_every = 3, 1, 0.0
    return config
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One ending: what was done, what came of it, and what is wrong ('' if nothing)."""

    what: str
    command: str
    code: int
    lines: int
    seconds: float
    fault: str


class Endings:
    """The commands, on generated data and a finished run in a folder."""

    def __init__(self, folder: pathlib.Path):
        """Prepares a data set and trains three steps."""
        self.folder = folder
        config = folder / "tiny.py"
        config.write_text(CONFIG)
        data, run = f"{folder}/data", f"{folder}/run"
        self.train = [f"--config={config}", f"--config.data.data_dir={data}"]
        made = ["moving_shapes", "--train_videos=6", "--test_videos=3"]
        self._number = itertools.count()
        for arguments in (
            ["prepare", *made, f"--data_dir={data}"],
            ["main", *self.train, f"--workdir={run}"],
        ):
            subprocess.run(self.start_of(arguments), check=True, capture_output=True)
        self.commands: dict[str, Callable[[str], list[str]]] = {
            "prepare": lambda new: [*made, f"--data_dir={new}"],
            "report": lambda new: [run, run, f"--out={new}.html"],
            "convert": lambda new: [run, f"{new}.safetensors"],
            "visualize": lambda new: [f"--workdir={run}", f"--out={new}"],
            "main": lambda new: [*self.train, f"--workdir={new}"],
        }

    def start_of(self, arguments: Sequence[str]) -> list[str]:
        """The command line of `ctp_jax.<first argument>` with the others."""
        return [sys.executable, "-m", f"ctp_jax.{arguments[0]}", *arguments[1:]]

    def end(
        self,
        what: str,
        command: str,
        codes: Sequence[int],
        *,
        act: Callable[[subprocess.Popen], None] = lambda process: None,
        written: bool = False,
        **options: Any,
    ) -> Row:
        """Runs a command and ends it.

        Args:
            what: the ending, in words.
            command: one of `commands`, with more flags after it.
            codes: the right exit codes.
            act: ends the process, or not.
            written: whether it must have written its files all the same.
            options: of `subprocess.Popen`, with `env` to add to the environment.
        """
        name, *flags = command.split()
        new = f"{self.folder}/new{next(self._number)}"
        options["env"] = {**os.environ, **options.get("env", {})}
        began = time.monotonic()
        process = subprocess.Popen(
            [*self.start_of([name, *self.commands[name](new)]), *flags],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **{"stdout": subprocess.DEVNULL, **options},
        )
        act(process)
        errors = process.communicate(timeout=600)[1]
        seconds = time.monotonic() - began
        faults = ["stack trace"] * ("Traceback" in errors)
        faults += ["exit code"] * (process.returncode not in codes)
        lines = len(errors.splitlines())
        faults += ["many lines"] * (lines > 3)
        found = list(self.folder.glob(f"{pathlib.Path(new).name}*"))
        faults += ["nothing written"] * (written and not found)
        return Row(what, command, process.returncode, lines, seconds, ", ".join(faults))


def interrupts(endings: Endings) -> Iterator[Row]:
    """Ctrl-C at each of the `MOMENTS`."""
    for command, moment in itertools.product(endings.commands, MOMENTS):

        def act(process, moment=moment):
            time.sleep(moment)
            if process.poll() is None:
                process.send_signal(signal.SIGINT)

        # Before its first line, Python itself ends by the signal; 0: it was too late.
        codes = (130, 0, -signal.SIGINT)
        yield endings.end(f"Ctrl-C after {moment} s", command, codes, act=act)


def outputs(endings: Endings) -> Iterator[Row]:
    """Standard output that is closed by its reader, full, or not there."""

    def closes(process):
        process.stdout.close()

    def without():
        os.close(1)

    for command in endings.commands:
        codes = {"reader ended": 0, "output closed": 0}
        codes["output full"] = 0 if command == "main" else 1
        with open("/dev/full", "w") as full:
            options: dict[str, dict[str, Any]] = {
                "reader ended": {"stdout": subprocess.PIPE, "act": closes},
                "output full": {"stdout": full},
                "output closed": {"preexec_fn": without},
            }
            for what, more in options.items():
                yield endings.end(what, command, (codes[what],), written=True, **more)


def environments(endings: Endings) -> Iterator[Row]:
    """What a machine or a user may lack."""
    for platform in ("cuda", "gpu", "tpu", "nonsense"):
        for command in ("main", "visualize"):
            env = {"JAX_PLATFORMS": platform}
            yield endings.end(f"JAX_PLATFORMS={platform}", command, (2,), env=env)
        for command in ("prepare", "report", "convert"):  # which compute nothing
            yield endings.end(f"JAX_PLATFORMS={platform}", command, (0,), env=env)
    for command in endings.commands:
        env = {"CUDA_VISIBLE_DEVICES": ""}
        yield endings.end("CUDA_VISIBLE_DEVICES=", command, (0,), env=env)
        for what, kind, limit in LIMITS:

            def lowered(kind=kind, limit=limit):
                resource.setrlimit(kind, (limit, limit))

            yield endings.end(what, command, (0, 2), preexec_fn=lowered)
    data_dir = "data_dir=gs://no-such-bucket-of-ours/data"
    for command in (f"prepare --{data_dir}", f"main --config.data.{data_dir}"):
        yield endings.end("unreachable store", command, (2,))


def signals(endings: Endings) -> Iterator[Row]:
    """Signals in the middle of training: the steps that are done are saved."""
    log = endings.folder / "log"

    def after_step(*numbers):
        def act(process):
            while not re.search(r"^step +4/", log.read_text(), re.MULTILINE):
                time.sleep(0.05)
            for number in numbers:
                process.send_signal(number)
                time.sleep(0.02)

        return act

    cases = {
        "SIGTERM": (signal.SIGTERM,),
        "Ctrl-C": (signal.SIGINT,),
        "SIGHUP": (signal.SIGHUP,),
        "SIGHUP of terminal and shell": (signal.SIGHUP, signal.SIGHUP),
    }
    for what, numbers in cases.items():
        with log.open("w") as stdout:
            row = endings.end(
                f"{what} in step 5",
                "main --config.steps=500 --config.checkpoint_every=1000.0",
                (0,),
                act=after_step(*numbers),
                stdout=stdout,
            )
        saved = "which is saved" in log.read_text()
        yield row if saved else dataclasses.replace(row, fault="steps lost")


def main():
    """Prints the table."""
    parser = measure.make_parser(__spec__.name, __doc__)
    kinds = {f.__name__: f for f in (interrupts, outputs, environments, signals)}
    parser.add_argument("--only", nargs="+", choices=list(kinds), default=list(kinds))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        endings = Endings(pathlib.Path(folder))
        for kind in arguments.only:
            for row in kinds[kind](endings):
                print(*dataclasses.astuple(row), sep="\t", file=sys.stderr, flush=True)
                rows.append(row)
    faults = [row for row in rows if row.fault]
    header = [field.name for field in dataclasses.fields(Row)]
    measure.show(header, map(dataclasses.astuple, faults))
    print(f"{len(rows) - len(faults)} of {len(rows)} endings without a fault")
    measure.write_json(arguments.json, {"rows": [dataclasses.asdict(r) for r in rows]})


if __name__ == "__main__":
    measure.run(main, devices=False)
