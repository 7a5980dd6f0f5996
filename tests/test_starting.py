"""What a person sees of a command in its first seconds."""

import importlib.metadata
import os
import pty
import subprocess
import sys

import pytest

import ctp_jax

SLOW = """
import time
from ctp_jax import cli, terminal
terminal._SILENT = 0.05
def main(arguments):
    if arguments:
        print("here", flush=True)
    time.sleep(0.25)
cli.run(main)
"""


@pytest.mark.parametrize("arguments, said", [((), "starting"), (("x",), "")])
def test_a_silent_command_says_that_it_has_started(arguments, said):
    """At a terminal only: files of logs stay as they are."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SLOW, *arguments]
    subprocess.run(command, stderr=theirs, stdout=subprocess.DEVNULL, check=True)
    os.write(theirs, b"end")
    found = b""
    while not found.endswith(b"end"):  # a terminal gives what it has
        found += os.read(ours, 1000)
    assert found.decode().split() == [*said.split(), "end"]
    os.close(ours)
    os.close(theirs)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["convert", "prepare"])
def test_version(command):
    done = subprocess.run(
        [sys.executable, "-m", f"ctp_jax.{command}", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    jax = importlib.metadata.version("jax")
    assert done.stdout == f"ctp_jax {ctp_jax.__version__}, jax {jax}\n"
    assert not done.stderr


@pytest.mark.parametrize("argument, error", [("-m", ""), ("-c", "ImportError: ")])
def test_windows_is_sent_to_wsl(argument, error):
    code = (
        f"import sys; sys.platform = 'win32'; sys.argv = ['{argument}']; import ctp_jax"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and not run.stdout
    *before, line = run.stderr.splitlines()
    assert line.startswith(f"{error}ctp_jax runs on Linux and") and "WSL" in line
    assert bool(before) == bool(error)
