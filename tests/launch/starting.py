"""Shared by the tests of the launchers: fake programs, and waiting."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
BIN = pathlib.Path(__file__).parent / "bin"
STAND_IN = BIN / "stand_in.py"
LARGE_PAGES = "glibc.malloc.hugetlb=1"
"""What runs on CPUs tell glibc, unless it is told something else."""
# The interpreter of the tests comes first: the fakes ask for `python3`, and a version
# manager's `python3` is a shell script that takes longer than they do.
PATH = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"

_started = []


def start(script, *arguments, fakes=False, **environ):
    """Starts a script in a process group of its own, as a terminal would.

    Args:
        script: a name in `launch/`.
        *arguments: of the script.
        fakes: whether `srun`, `gcloud` and the like are those of this folder. Not
            otherwise, since `git` is among them.
        **environ: environment variables besides the present ones.
    """
    path = f"{BIN}:{PATH}" if fakes else PATH
    inherited = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [LAUNCH / script, *arguments],
        env={**inherited, "PATH": path, **{k: str(v) for k, v in environ.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _started.append(process)
    return process


def end(process, seconds=60):
    """Waits for what `start` has started: (exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def leave_nothing():
    """Kills what a failed test left: a script's processes are of its session."""
    while _started:
        leader = _started.pop().pid
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # pid (name) state ppid pgrp session ...
                session = path.read_text().rpartition(")")[2].split()[3]
                if int(session) == leader:
                    os.kill(int(path.parent.name), signal.SIGKILL)


def wait_for(condition, seconds=60):
    """Waits until a function returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def records(folder, count):
    """The records of `count` stand-ins; waits until all have started."""
    paths = [folder / f"{index}.json" for index in range(count)]
    wait_for(lambda: all(path.exists() for path in paths))
    return [json.loads(path.read_text()) for path in paths]


def flags_of(record):
    """The flags that a stand-in was started with, by name."""
    assert record["argv"][:2] == ["-m", "ctp_jax.main"]
    return dict(argument.partition("=")[::2] for argument in record["argv"][2:])


def tool(name):
    """The path of a program that the `dev` extra brings."""
    return pathlib.Path(sys.executable).parent / name
