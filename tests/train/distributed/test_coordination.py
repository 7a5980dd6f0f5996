"""Two real processes: they make the same run as one, and they end together."""

import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from ctp_jax.train import setup
from ctp_jax.train.distributed import coordination
from tests.train.distributed import toy_processes as toy

SLOW = {"pause": 0.05}  # seconds a batch, so that a signal meets the run in the middle


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One process, two devices; and what it read."""
    workdir = tmp_path_factory.mktemp("one")
    codes, outputs = toy.run(workdir, devices=2, log=str(workdir / "read"))
    assert codes == [0], outputs
    return workdir


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes, one device each."""
    workdir = tmp_path_factory.mktemp("two")
    codes, outputs = toy.run(workdir, count=2, log=str(workdir / "read"))
    assert codes == [0, 0], outputs
    assert "2 x cpu of 2 processes" in outputs[0]
    return workdir, outputs


def test_two_processes_are_the_same_run_as_one(one, two):
    workdir, outputs = two
    toy.assert_alike(one, workdir)
    # Only process 0 logs.
    assert "loss" in outputs[0] and "loss" not in outputs[1]


def test_each_process_reads_its_share_and_evaluates_it_once(one, two):
    def read(path):
        return path.read_text().splitlines()

    parts = [read(two[0] / f"read{index}") for index in range(2)]
    whole = read(one / "read0")
    # Prefetching aside, the toy reads a batch when it is asked for.
    assert sorted(parts[0] + parts[1]) == sorted(whole)
    assert len(parts[0]) == len(parts[1])
    train = [{line for line in part if "train" in line} for part in parts]
    assert not train[0] & train[1]


@pytest.mark.parametrize(
    "on,kind,code,message",
    [
        (0, "user", 2, "the disk of this host is gone"),
        (1, "bug", 1, "ValueError: a mistake"),
    ],
)
def test_an_error_on_one_ends_all_with_its_message(tmp_path, on, kind, code, message):
    # For the other one, which does not meet the error.
    waits = {"_TOGETHER": 1}
    codes, outputs = toy.run(
        tmp_path, count=2, at={"6": kind}, on=on, waits=waits, **SLOW
    )
    assert codes == [code, code], outputs
    for index, output in enumerate(outputs):
        last = output.splitlines()[-1]
        assert f"process {on} of 2" in last and message in last
        assert ("Traceback" in output) == (kind == "bug" and index == on)


def stop(workdir, on):
    """Sends SIGTERM to the processes `on` once something is logged; all stop."""
    started = toy.start(workdir, count=2, exit_code=75, pause=0.3)
    path = workdir / "metrics.jsonl"
    # Of a step: an evaluation that is made up for comes before the first.
    while not path.exists() or '"train"' not in path.read_text():
        time.sleep(0.05)
    for index in on:
        started[index].send_signal(signal.SIGTERM)
    codes, outputs = toy.end(started)
    # Or the signal met the evaluation of a step that was saved just before.
    saved = any(said in outputs[0] for said in ("which is saved", "nothing to save"))
    assert codes == [75, 75] and saved, outputs
    logged = max(line["step"] for line in toy.lines(workdir) if line["kind"] == "train")
    assert 4 < logged <= toy.last_state(workdir)[0][-1] < 12
    assert not (workdir / "encoder").exists()
    return outputs


def go_on(workdir, two):
    """To the end, and it is the run that nothing stopped."""
    codes, outputs = toy.run(workdir, count=2)
    assert codes == [0, 0] and "resuming from the checkpoint" in outputs[0], outputs
    toy.assert_same_run(two[0], workdir)


def test_sigterm_on_one_stops_all_at_one_step(two, tmp_path):
    stop(tmp_path, on=[1])
    go_on(tmp_path, two)


def test_sigterm_in_an_evaluation_of_one_and_then_on_all(two, tmp_path):
    codes, outputs = toy.run(tmp_path, count=2, evaluating="term", on=1)
    assert codes == [0, 0] and "after step 4/12" in outputs[0], outputs
    assert toy.lines(tmp_path) == []
    outputs = stop(tmp_path, on=[0, 1])
    assert "resuming from the checkpoint" in outputs[0], outputs
    go_on(tmp_path, two)


def test_an_evaluation_that_fails_on_all_costs_no_steps(tmp_path):
    own = {str(index): {"on": index} for index in range(2)}
    codes, outputs = toy.run(tmp_path, count=2, evaluating="bug", only=own)
    assert codes == [1, 1], outputs
    assert "step 4/12 is saved" in outputs[0] and toy.last_state(tmp_path)[0] == [4]


def test_kill_of_one_ends_all_and_nothing_is_lost(two, tmp_path, tmp_path_factory):
    waits = {"_PATIENCE": 3, "_POLL": 1000, "_TOGETHER": 1}  # the killed one is gone
    for on, step in ((0, "6"), (1, "10")):
        codes, outputs = toy.run(
            tmp_path, count=2, at={step: "kill"}, on=on, waits=waits
        )
        assert codes[on] == -signal.SIGKILL and codes[1 - on] not in (0, None), outputs
    # What was written by two is read by one.
    alone = shutil.copytree(tmp_path, tmp_path_factory.mktemp("alone") / "run")
    codes, outputs = toy.run(alone, devices=2)
    assert codes == [0] and "resuming from the checkpoint of" in outputs[0], outputs
    toy.assert_alike(two[0], alone)
    go_on(tmp_path, two)


def test_processes_must_be_started_alike(tmp_path):
    only = {"1": {"config": {"optimizer.learning_rate": 0.2}}}
    codes, outputs = toy.run(tmp_path, count=2, only=only)
    assert codes == [2, 2], outputs
    assert all("the config" in out and "same command" in out for out in outputs)


def test_processes_must_share_the_workdir(tmp_path):
    only = {"1": {"workdir": str(tmp_path / "elsewhere")}}
    codes, outputs = toy.run(tmp_path / "here", count=2, only=only)
    assert codes == [2, 2], outputs
    assert all("file system that they share" in out for out in outputs)


def test_alone_nothing_is_exchanged():
    coordination.barrier("x")
    assert coordination.gather("x", 3) == [3]
    assert coordination.from_first("x", {"a": 1}) == {"a": 1}
    coordination.check_same("x", "1", "remedy")


def test_killed_at_random_it_is_the_same_run(tmp_path):
    """Saves after every step, so that kills happen during saves."""
    config = {"checkpoint_every": 0.25, "eval_every": 5.0, "steps": 40}
    codes, outputs = toy.run(tmp_path / "peace", config=config)
    assert codes == [0], outputs
    rng = np.random.default_rng(5)
    for kill in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        (process,) = toy.start(tmp_path / "killed", config=config, pause=0.02)
        for line in process.stdout:
            if line.startswith("step "):
                break
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(kill)
        process.communicate(timeout=120)
        assert process.returncode == (0 if kill == signal.SIGTERM else -kill)
    codes, outputs = toy.run(tmp_path / "killed", config=config)
    assert codes == [0] and "resuming from the checkpoint" in outputs[0], outputs
    toy.assert_same_run(tmp_path / "peace", tmp_path / "killed")


def catches_sigterm(process):
    """Whether the process already has a handler."""
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", text)[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigterm_while_nobody_else_is_there(tmp_path):
    command = [sys.executable, "-m", "tests.toy_run", tmp_path, '{"exit_code": 75}']
    started = []
    for index in ("0", "1"):
        meeting = [f"localhost:{toy.free_port()}", "2", index]
        started.append(
            subprocess.Popen([*command, *meeting], stderr=subprocess.PIPE, text=True)
        )
    while not all(map(catches_sigterm, started)):
        time.sleep(0.05)
    time.sleep(1)  # well into the wait for the others
    for process in started:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert err == "stopped by SIGTERM: nothing to save\n"
        assert process.returncode == 75


def test_all_data_are_compared(monkeypatch):
    """Held-out videos too, or one process would evaluate more batches than another."""
    said = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        coordination, "check_same", lambda *said_: said.append(said_[1])
    )

    class Two(types.SimpleNamespace):
        def __len__(self):
            return 2

    records = Two(split="test", digest=lambda: "of both")
    for count in (1, 2):
        pipeline = types.SimpleNamespace(
            records=records,
            num_examples=count,
            class_names=(),
            train_batches=iter,
            eval_batches=iter,
        )
        setup._check_data(pipeline)
    assert len(set(said)) == 2 and all("'test'" in text for text in said)
