"""Completion with the tab key, in an interactive shell."""

import os
import pty
import re
import select
import shutil
import subprocess

import pytest

from ctp_jax import complete

# python only says what it was called with.
START = 'python() {{ echo "<$*>"; }}; cd {folder}; . ./script.sh; echo rea""dy\n'
SHELLS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
}


def typed(shell, folder, keys):
    """What `python` is called with after these keys and return."""
    ours, theirs = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder)}
    process = subprocess.Popen(
        [shell, *SHELLS[shell]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
        start_new_session=True,
    )
    os.close(theirs)
    said, place = "", 0

    def until(pattern):
        """What comes next of a pattern."""
        nonlocal place
        while not (found := re.compile(pattern).search(said, place)):
            assert heard(20), said
        place = found.end()
        return found

    def until_prompt():
        """Zsh's editor throws away what is typed before it turns bracketed pastes on."""
        if shell == "zsh":
            until(r"\x1b\[\?2004h")

    def heard(seconds):
        """Reads what the shell says next; '' if it is silent for so long."""
        nonlocal said
        ready, _, _ = select.select([ours], [], [], seconds)
        new = os.read(ours, 10_000).decode(errors="replace") if ready else ""
        said += new
        return new

    try:
        until_prompt()
        if shell == "zsh":
            os.write(ours, b"autoload -U compinit && compinit -u -D\n")
            until_prompt()
        os.write(ours, START.format(folder=folder).encode())
        until("ready")
        until_prompt()
        os.write(ours, keys.encode())
        # A return that comes too early is typed into the completion.
        while heard(1.0):
            pass
        os.write(ours, b"\n")
        return until(r"<-m ctp_jax.main ([^>]*)>")[1].split()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


CASES = [
    ("--config=configs/finetune_u\t", ["--config=configs/finetune_ucf.py"]),
    ("--config configs/sm\t", ["--config", "configs/small.py"]),
    ("--config.optimizer.mom\t0.8", ["--config.optimizer.momentum=0.8"]),
]
OTHER_FILES = ("--config=own/fi\t", ["--config=own/first.py"])  # zsh does not know them


@pytest.mark.parametrize("shell", SHELLS)
def test_the_tab_key(tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    (tmp_path / "script.sh").write_text(complete.script())
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "first.py").touch()
    for keys, words in [*CASES, OTHER_FILES][: 4 if shell == "bash" else 3]:
        assert typed(shell, tmp_path, f"python -m ctp_jax.ma\t {keys}") == words
