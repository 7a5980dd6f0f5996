"""What a workdir begins with, and that a refused run leaves none."""

import json
import sys

import pytest

from ctp_jax.errors import UserError
from ctp_jax.train import loop, workdir
from tests.toy_data import opener, toy_config


def test_a_refused_run_leaves_no_workdir(tmp_path):
    config = toy_config(init_from=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="nothing"):
        loop.train(config, tmp_path / "runs" / "new", opener())
    assert not (tmp_path / "runs" / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="nothing"):
        loop.train(config, tmp_path / "mine", opener())
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_the_command_is_kept(tmp_path, monkeypatch):
    flags = ["--config=configs/small.py", f"--workdir={tmp_path}"]
    started = ["/venv/bin/python3.11", "-X", "dev", "-m", "ctp_jax.main", *flags]
    monkeypatch.setattr(sys, "orig_argv", started)
    loop.train(toy_config(steps=1), tmp_path / "run", opener())
    kept = json.loads((tmp_path / "run" / "command.json").read_text())
    assert kept == ["python", "-m", "ctp_jax.main", *flags]
    # A script or a notebook that calls the loop is none of our commands.
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pytest", "ctp_jax.main"])
    assert workdir.command() == []
