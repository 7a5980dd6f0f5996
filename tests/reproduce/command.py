"""`ctp_jax.reproduce` for tests: in this process, or as one with fakes for its runs."""

import os
import pathlib
import subprocess
import sys

import pytest

from ctp_jax.errors import UserError
from ctp_jax.reproduce import __main__ as reproduce
from ctp_jax.reproduce import work
from tests.commands import call

FAKE = pathlib.Path(__file__).with_name("fake_run.py")


def start_fake(command, log):
    """As `work.start`."""
    return subprocess.Popen(
        [sys.executable, "-S", FAKE, *command[2:]],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run(capsys, *arguments):
    """(exit code, output, error) of the command, in this process."""
    code, error = 0, ""
    try:
        call(reproduce, *arguments)
    except UserError as refused:
        code, error = refused.exit_code, str(refused)
        assert "\n" not in error
    return code, capsys.readouterr().out, error


class Sweep:
    """The command on a file of a user's own, with fakes for runs."""

    TEXT = """
COLUMNS = {"finetuned": {"config": "configs/finetune_small.py", "metric": "top1"}}
ROWS = {
    f"speed {speed}": {"config": "configs/small.py", "game.speed": speed}
    for speed in (1.0, 2.0)
}
"""

    def __init__(self, folder, data_dir, capsys, monkeypatch):
        self.root, self.calls = folder / "runs", folder / "calls"
        (folder / "sweep.py").write_text(self.TEXT)
        self._capsys, self._monkeypatch = capsys, monkeypatch
        self._flags = [folder / "sweep.py", f"--root={self.root}"]
        self._flags += [f"--data_dir={data_dir}"]
        monkeypatch.setenv("CALLS", str(self.calls))
        monkeypatch.setattr(work, "start", start_fake)

    def run(self, *flags, **environ):
        """(exit code, output, error) of the command, in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            return run(self._capsys, *self._flags, *flags)

    def start(self, *flags, **environ):
        """The command as a process."""
        code = (
            "from tests.reproduce import command as c; from ctp_jax import cli;"
            "c.work.start = c.start_fake; cli.run(c.reproduce.main, c.reproduce.FLAGS)"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, (*self._flags, *flags))],
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(self, word):
        """[(run, steps, ...)] of the calls that begin with a word."""
        text = self.calls.read_text() if self.calls.exists() else ""
        calls = [line.split() for line in text.splitlines()]
        return [tuple(call[1:]) for call in calls if call[0] == word]
