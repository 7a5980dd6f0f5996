"""How a command ends: Ctrl-C, standard output that is gone or full, progress."""

import io
import os
import signal
import subprocess
import sys

import pytest

from ctp_jax import terminal

IMPORTING = """
import os, signal, sys
sys.argv = ["-m"]  # as while Python looks for the module of a command
import ctp_jax
os.kill(os.getpid(), signal.SIGINT)
"""
# What libraries do to the exception: nothing, another one, none at all.
RUNNING = """
import os, signal, sys
from ctp_jax import cli
class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
def main(arguments):
    kind = arguments[0]
    if kind == "swallowed":
        Swallows()
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt as interrupt:
        if kind == "turned":
            raise ImportError("cannot import multiarray") from None
        raise
cli.run(main)
"""
PRINTING = """
import sys
from ctp_jax import cli
def main(arguments):
    for number in range(5000):
        print(f"line {number} \\udcff")
    open(arguments[0], "w").write("written")
    if arguments[1:]:
        sys.exit(0)
cli.run(main)
"""


FAILING = """
import jax
from ctp_jax import cli
def broken(x):
    raise ValueError("mine")
cli.run(lambda arguments: jax.jit(broken)(1))
"""


def run(script, *arguments, shell=(), **options):
    return subprocess.run(
        [*shell, sys.executable, "-c", script, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize("kind", ["importing", "plain", "turned", "swallowed"])
def test_ctrl_c_is_one_line(kind):
    done = run(IMPORTING if kind == "importing" else RUNNING, kind)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_a_stack_trace_ends_with_the_error():
    lines = run(FAILING).stderr.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "ValueError: mine"


def test_importing_the_package_changes_no_handler():
    script = "import signal, ctp_jax\nprint(signal.getsignal(signal.SIGINT))"
    done = run(script, stdout=subprocess.PIPE)
    assert "default_int_handler" in done.stdout


@pytest.mark.parametrize("log", [[], ["log"]])
@pytest.mark.parametrize("output", ["closed by its reader", "full", "closed"])
def test_output_that_cannot_be_written_stops_nothing(tmp_path, output, log):
    reader, writer = os.pipe()
    os.close(reader)
    stdout = os.open("/dev/full", os.O_WRONLY) if output == "full" else writer
    # Not `preexec_fn`: it forks, and threads of JAX may run here.
    shell = ["sh", "-c", 'exec "$@" >&-', "sh"] if output == "closed" else []
    done = run(PRINTING, tmp_path / "file", *log, stdout=stdout, shell=shell)
    os.close(stdout)
    assert (tmp_path / "file").read_text() == "written"
    full = "error: standard output: No space left on device: the rest is dropped\n"
    assert done.stderr == (full if output == "full" else "")
    assert done.returncode == (1 if output == "full" and not log else 0)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        terminal.end_at_once(signal.SIGUSR1, "never", 1)
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_is_held_back_comes_once_at_the_end():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with terminal.held_back():
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
            assert not came
        assert came == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert len(came) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_still_busy_after_an_interrupt_does_not_hold_the_process():
    script = """
import threading, time
from ctp_jax import cli, terminal
terminal._PATIENCE = 0.5
def main(arguments):
    threading.Thread(target=time.sleep, args=(60,)).start()
    raise KeyboardInterrupt("nothing was kept")
cli.run(main)
"""
    done = run(script, timeout=30)
    assert done.returncode == 130
    assert done.stderr == "error: interrupted; nothing was kept\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress(monkeypatch, capsys):
    def shown(**options):
        items = terminal.progress("abc", "letters", 5, done=2, unit="items", **options)
        assert list(items) == ["a", "b", "c"]
        return capsys.readouterr().err

    assert shown() == ""  # less than a minute
    monkeypatch.setattr(terminal, "_EVERY", -1)
    expected = [f"letters: {number} of 5 items" for number in (3, 4, 5)]
    assert shown().splitlines() == expected
    assert shown(show=False) == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert shown() == "" and "letters:  40%" in sys.stderr.getvalue()


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_lines_of_both_streams_stay_in_order(options):
    script = """
import sys
from ctp_jax import terminal
terminal.guard_streams()
print("first", file=sys.stderr)
print("second", flush=True)
"""
    done = subprocess.run(
        [sys.executable, *options, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    assert done.stdout == "first\nsecond\n"
