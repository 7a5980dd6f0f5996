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


def typed(shell, folder, keys, last):
    """What `python` is called with after these keys, the word `last`, and return."""
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
        nonlocal said, place
        while not (found := re.compile(pattern).search(said, place)):
            ready, _, _ = select.select([ours], [], [], 20)
            assert ready, said
            said += os.read(ours, 10_000).decode(errors="replace")
        place = found.end()
        return found

    def until_prompt():
        """Zsh's editor throws away what is typed before it turns bracketed pastes on."""
        if shell == "zsh":
            until(r"\x1b\[\?2004h")

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
        until(re.escape(last))
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
        keys = f"python -m ctp_jax.ma\t {keys}"
        assert typed(shell, tmp_path, keys, words[-1]) == words
