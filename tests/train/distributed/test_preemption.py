"""Signals, also when there is nothing to save, and a workdir locked by another run."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ctp_jax import terminal
from ctp_jax.errors import TryLater, UserError
from ctp_jax.storage import files
from ctp_jax.train import loop, workdir
from ctp_jax.train.distributed.preemption import Preemption
from tests.toy_data import opener, toy_config

# The main thread computes in C for a long time, so no Python handler runs in it.
BUSY = """
import numpy as np
from ctp_jax.train.distributed.preemption import Preemption
with Preemption(75) as preemption:
    preemption.nothing_to_save = {nothing}
    many = np.random.default_rng(0).random(40_000_000)
    print("busy", flush=True)
    many.sort()
    print(preemption.name)
"""


def stop_while_busy(nothing):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(nothing=nothing)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_with_nothing_to_lose_it_ends_at_once():
    code, out, err = stop_while_busy(True)
    assert code == 75 and out == ""  # it has not sorted to the end
    assert err == "stopped by SIGTERM: nothing to save\n"


def test_with_something_to_lose_it_goes_on_to_the_end_of_the_step():
    code, out, err = stop_while_busy(False)
    assert (code, out) == (0, "SIGTERM\n")
    assert "stopping after this step" in err


def test_handlers_come_back_and_one_process_votes_for_itself():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(s) for s in numbers]
    with Preemption() as preemption:
        preemption.nothing_to_save = False
        asked_to_stop = preemption.vote()
        assert not asked_to_stop()
        os.kill(os.getpid(), signal.SIGINT)
        while preemption.name is None:
            time.sleep(0.01)
        assert preemption.name == "SIGINT" and asked_to_stop()
    assert before == [signal.getsignal(s) for s in numbers]


def test_a_terminal_that_closes_stops_the_run(monkeypatch):
    """It and its shell both send SIGHUP, and nobody reads standard error any more."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(terminal.os, "write", functools.partial(write_to, writer))
    with Preemption() as preemption:
        preemption.nothing_to_save = False
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
        assert preemption.name == "SIGHUP" and preemption.vote()()
    os.close(writer)


def write_to(number, _, data, write=os.write):
    return write(number, data)


def test_under_nohup_a_hang_up_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            assert preemption.name is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_run_in_the_workdir_is_refused(tmp_path, monkeypatch, capsys):
    """A dead process holds no lock, killed or not."""
    hold = (
        "import pathlib, sys, time; from ctp_jax.train import workdir\n"
        "with workdir.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    config = toy_config(steps=1)
    with pytest.raises(TryLater, match=rf"another run .*process {holder.pid} on"):
        loop.train(config, tmp_path, opener())
    # The lock of another machine, which may be dead, is waited for.
    text = (tmp_path / ".lock").read_text()
    (tmp_path / ".lock").write_text("process 1 on elsewhere")
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    monkeypatch.setattr(files, "_POLL", 0.1)
    with pytest.raises(TryLater, match="process 1 on elsewhere.*delete"):
        loop.train(config, tmp_path, opener())
    assert "waiting for the lock of process 1 on elsewhere" in capsys.readouterr().err
    (tmp_path / ".lock").write_text(text)
    assert not (tmp_path / "config.json").exists()
    holder.kill()
    holder.communicate()
    loop.train(config, tmp_path, opener())
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 1


def test_stores_of_other_kinds():
    with pytest.raises(UserError, match=r"az://bucket/run: no such kind of store"):
        workdir.make_workdir("az://bucket/run")
