"""Runs are made in order, once, go on after a kill, and a failure is one row's own."""

import json
import os
import pathlib
import re
import signal
import threading
import time

import pytest

from ctp_jax.reproduce import plan, work
from tests import forks
from tests.launch.starting import LARGE_PAGES, wait_for
from tests.reproduce import command as command_lib


@pytest.fixture(scope="module")
def data_dir(moving_shapes):
    return moving_shapes(12, 6)


@pytest.fixture(name="command")
def make_command(tmp_path, data_dir, capsys, monkeypatch):
    return command_lib.Sweep(tmp_path, data_dir, capsys, monkeypatch)


def test_all_runs_are_made_once_and_then_the_table(command):
    code, out, error = command.run()
    assert code == 0, error
    started = [name for name, *_ in command.lines("start")]
    assert len(started) == len(set(started)) == 4
    kinds = [name.partition("-")[0] for name in started]
    assert kinds == ["ctp", "ctp", "recognition", "recognition"]
    assert out.count("top-1 accuracy 50.0") == 4 and "missing" not in out
    assert (command.root / "tables" / "sweep.html").exists()
    # A second time there is nothing to do but the table.
    code, out, _ = command.run()
    assert code == 0 and "0 to make" in out and len(command.lines("start")) == 4


def test_after_a_kill_it_goes_on_where_it_was(command):
    process = command.start(STEPS="40", PAUSE="0.05")
    ended = wait_for(lambda: command.lines("end"))
    second = wait_for(lambda: command.lines("start")[1:])[0]
    metrics = command.root / second[0] / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 3)
    process.kill()
    process.communicate()
    os.kill(int(second[2]), signal.SIGKILL)  # the machine is gone, and all on it
    before = len(metrics.read_text().splitlines())
    code, _, error = command.run(STEPS="40")
    assert code == 0, error
    again = command.lines("start")[2:]
    assert ended[0][0] not in [name for name, *_ in again]
    assert again[0][:2] == (second[0], str(before)) and before > 3
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == [*range(1, 41), 40]


@pytest.mark.parametrize(
    "name, times, to_the_run",
    [
        ("SIGTERM", 1, False),
        ("SIGINT", 1, False),
        ("SIGHUP", 2, False),  # of a terminal that closes, and of its shell
        ("SIGTERM", 2, True),  # of Slurm, which signals all processes, and of a trap
    ],
)
def test_a_signal_saves_the_run(command, name, times, to_the_run):
    def send():
        wait_for(
            lambda: [p for p in command.root.glob("*/metrics.jsonl") if p.read_text()]
        )
        if to_the_run:
            os.kill(int(command.lines("start")[0][-1]), signal.Signals[name])
        for _ in range(times):
            os.kill(os.getpid(), signal.Signals[name])
            time.sleep(0.02)

    sender = threading.Thread(target=send)
    sender.start()
    environ = {"STEPS": "1000", "PAUSE": "0.3"}
    if name != "SIGINT":
        code, _, error = command.run(**environ)
        assert code == 75
    else:  # which `cli.run` ends with 130, and a line of these words
        with pytest.raises(KeyboardInterrupt) as interrupted:
            command.run(**environ)
        error = str(interrupted.value)
    sender.join()
    assert "is saved: the same command goes on" in error
    assert len(command.lines("start")) == 1 and not command.lines("end")
    assert len(command.lines("saved")) == 1


def test_a_failure_stops_its_row_alone(command):
    code, out, error = command.run(FAILS="game.speed=1.0", FAILS_WITH="error: no good")
    assert code == 1 and "2 of 4 runs were not made" in error
    assert "no good" in error and "needs ctp" in error
    assert len(command.lines("end")) == 2 and "speed 2.0     50.0" in out
    code, out, _ = command.run("--table")
    assert code == 0 and "speed 2.0     50.0" in out
    assert "missing:\nspeed 1.0, finetuned: recognition-" in out and "not made" in out
    _, out, _ = command.run("--plan")
    (failed,) = [line for line in out.splitlines() if "(failed)" in line]
    assert "ctp-" in failed
    # Mended, that row alone is made.
    assert command.run()[0] == 0 and len(command.lines("end")) == 4


def test_notes_of_runs_are_passed_on_once(command):
    code, out, _ = command.run()
    assert code == 0 and out.count("note: a run that is not real, and says so") == 1


def test_a_wrong_row_that_was_not_asked_for(command):
    sweep = command.root.parent / "sweep.py"
    bad = 'ROWS["bad"] = {"config": "configs/small.py", "game.sped": 1.0}\n'
    sweep.write_text(sweep.read_text() + bad)
    code, out, _ = command.run("--rows=speed 1.0")
    assert code == 0 and "50.0" in out
    assert "note: no files are written: " in out and "'game.sped': no such field" in out


def test_the_last_line_of_a_log_is_a_whole_one(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("before\nstep 5  loss 1\n      2 clips/s\n\n")
    assert work._last_line(log) == "step 5  loss 1 2 clips/s"
    assert work._last_line(log, begin=log.stat().st_size) == ""


def test_a_full_disk_stops_everything(command):
    line = "error: /x: the disk is full: free some space"
    code, _, error = command.run(FAILS="game.speed", FAILS_WITH=line)
    assert code == 2 and "the disk is full" in error
    assert len(command.lines("start")) == 1
    # Workers that wait for what this one has not made give up.
    assert len([*command.root.glob("*/failed.txt")]) == 4
    work_room, work._ROOM = work._ROOM, 1 << 62
    try:
        code, _, error = command.run()
    finally:
        work._ROOM = work_room
    assert code == 2 and "the disk is full" in error
    assert len(command.lines("start")) == 1


def test_two_workers_share_the_work(command):
    other = command.start(STEPS="10", PAUSE="0.05")
    wait_for(lambda: command.lines("start"))
    code, _, _ = command.run(STEPS="10", PAUSE="0.05")
    other.communicate(timeout=60)
    started = [name for name, *_ in command.lines("start")]
    assert len(started) == len(set(started)) == 4
    # One had nothing left that was not being made, or both were in time.
    assert {code, other.returncode} <= {0, 75} and 0 in (code, other.returncode)


@pytest.mark.parametrize("given", [None, ""])
def test_runs_ask_for_large_pages(given, tmp_path, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if given is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    code = "import os; print(os.environ['GLIBC_TUNABLES'])"
    with (tmp_path / "log").open("w") as log:
        assert work.start(["-c", code], log).wait() == 0
    expected = LARGE_PAGES if given is None else given
    assert (tmp_path / "log").read_text() == f"{expected}\n"


def test_a_run_that_somebody_else_started_is_left_alone(command):
    line = "error: /x: another run uses this folder (process 7 on host): wait for it"
    code, _, error = command.run(FAILS="=1.0", FAILS_WITH=line, FAILS_CODE="75")
    assert code == 75 and "2 runs wait for others" in error
    assert "is being made by another process" in error
    assert len(command.lines("end")) == 2 and not [*command.root.glob("*/failed.txt")]


def test_a_shard_needs_another(command, monkeypatch):
    code, _, error = command.run("--shard=2/4")
    assert code == 75 and "which is not made yet" in error
    # While it waits, the other one works.
    codes = []
    monkeypatch.setattr(
        work.time, "sleep", lambda _: codes.append(command.run("--shard=0/4")[0])
    )
    assert command.run("--shard=2/4", "--wait")[0] == 0 and codes == [0]
    assert len(command.lines("end")) == 2


def test_what_failed_in_another_shard_is_given_up(command):
    began = time.time()
    assert command.run("--shard=0/4", FAILS="game.speed")[0] == 1
    (mark,) = command.root.glob("*/failed.txt")
    os.utime(mark, (began + 60, began + 60))  # after the next worker began
    code, _, error = command.run("--shard=2/4", "--wait")
    assert code == 1 and "needs ctp" in error
    # So that others give up what needs this one in turn.
    assert len([*command.root.glob("*/failed.txt")]) == 2


def test_what_is_made_has_not_failed(command, monkeypatch):
    """A worker that failed leaves its mark, and another one makes the run."""

    def start(arguments, log):
        pathlib.Path(log.name).with_name(plan.FAILED).write_text("no good")
        return command_lib.start_fake(arguments, log)

    monkeypatch.setattr(work, "start", start)
    assert command.run("--shard=0/4")[0] == 0
    assert not [*command.root.glob("*/failed.txt")]
    # Nor is a mark believed that comes later.
    (made,) = (path.parent for path in command.root.glob("*/reproduce.json"))
    (made / plan.FAILED).write_text("no good")
    os.utime(made / plan.FAILED, (time.time() + 60,) * 2)
    code, _, error = command.run("--shard=2/4")
    assert code == 0, error
    assert len(command.lines("end")) == 2


def test_what_another_worker_made_meanwhile_is_used(command, monkeypatch):
    first = []

    def start(arguments, log):
        if not first:
            first.extend(arguments)
            return command_lib.start_fake([*arguments, "--fail"], log)
        if first[-1] != "made":  # by the other one, as the second run starts
            assert command_lib.start_fake(first, log).wait() == 0
            first.append("made")
        return command_lib.start_fake(arguments, log)

    monkeypatch.setattr(work, "start", start)
    command.run(FAILS="--fail")
    assert len(command.lines("end")) == 4


def test_a_config_that_changed_is_said(command):
    assert command.run("--shard=0/4")[0] == 0
    (mark,) = command.root.glob("*/reproduce.json")
    about = json.loads(mark.read_text())
    about["basis"]["game.visible"] = 0.5
    mark.write_text(json.dumps(about))
    mark.parent.rename(mark.parent.with_name("of-another-digest"))
    code, _, error = command.run()
    assert code == 2 and "has changed since: game.visible 0.5 -> 0.8" in error
    assert len(command.lines("start")) == 1


def test_other_data_of_the_same_name_are_said(command, monkeypatch):
    assert command.run()[0] == 0
    code, out, _ = command.run()  # the same
    assert code == 0 and "0 to make" in out
    monkeypatch.setattr(work.plan, "_digest", lambda *_: "another")
    code, _, error = command.run("--table")
    assert code == 2 and "of moving_shapes had other videos, or boxes" in error


def test_missing_data_are_all_said_before_anything_starts(tmp_path, capsys):
    given = [f"--data_dir={tmp_path}/data", f"--root={tmp_path}/runs"]
    code, _, error = command_lib.run(capsys, "table3", *given)
    assert code == 2
    for each in ("ucf101", "hmdb51", "something_something_v1", "kinetics400"):
        assert error.count(f"python -m ctp_jax.prepare {each}") == 1
    path = f"{tmp_path}/runs/imagenet_resnet18"
    assert f"python -m ctp_jax.convert resnet18-f37072fd.pth {path}" in error
    assert not pathlib.Path(tmp_path, "runs").exists()
    # By every shard: none waits for runs of others, who cannot make them.
    for shard in ("--shard=0/9", "--shard=8/9"):
        assert command_lib.run(capsys, "table3", *given, shard)[2] == error
    # What is left out is not missed.
    code, _, error = command_lib.run(
        capsys, "table3", *given, "--columns=H51", "--rows=*None*"
    )
    assert "hmdb51" in error and "ucf101" not in error and "imagenet" not in error


def test_addresses(tmp_path, capsys, monkeypatch):
    """Data may be in a bucket, which TensorFlow reads; runs may not."""
    monkeypatch.chdir(tmp_path)
    code, _, error = command_lib.run(capsys, "table7", "--root=gs://bucket/runs")
    assert code == 2 and not [*tmp_path.iterdir()]
    assert error == (
        "--root=gs://bucket/runs: needs a folder on a disk that all workers share"
    )
    given = ["--commands", "--data_dir=gs://bucket/tfds"]
    code, out, error = command_lib.run(capsys, "table7", *given)
    lines = out.splitlines()
    assert code == 0 and lines, error
    assert all(" --config.data.data_dir=gs://bucket/tfds " in line for line in lines)


def test_a_real_process_and_its_last_words(tmp_path, data_dir, capsys):
    """An encoder that is not there is missed by `ctp_jax.main`, a task that is none before."""
    (tmp_path / "own.py").write_text('ROWS = {"r": "configs/small.py"}\n' + COLUMN)
    given = [f"--root={tmp_path}/runs", f"--data_dir={data_dir}"]
    code, _, error = command_lib.run(
        capsys, tmp_path / "own.py", *given, "--override=task=x"
    )
    assert code == 2 and "config.task = 'x': no such task; choose one of" in error
    nowhere = tmp_path / "nowhere"
    code, out, error = command_lib.run(
        capsys, tmp_path / "own.py", *given, f"--override=init_from={nowhere}"
    )
    assert code == 1 and "1 of 1 runs were not made" in error
    assert f"{nowhere}: " in error and "log.txt)" in error and "failed: " in out


COLUMN = 'COLUMNS = {"IoU": {"metric": "iou"}}\n'


class Forked:
    """A real run, forked from a process that has imported what it needs."""

    def __init__(self, command, log):
        self._process, self._log = forks.start(command), log

    def wait(self, timeout=None):
        output, _ = self._process.communicate(timeout=300)
        self._log.write(output.encode())
        return self._process.returncode


REAL = """
COLUMNS = {"finetuned": {"config": "configs/finetune_small.py", "metric": "top1"}}
ROWS = {"rotation": {"config": "configs/rotation.py:small", "data.eval_split": ""}}
SEEDS = (0, 1)
"""
TINY = {
    "steps": 2,
    "batch_size": 4,
    "clip.size": 32,
    "clip.scales": (32,),
    "test.num_clips": 1,
    "test.scales": (32,),
    "model.name": "tests.tiny_network",
}


@pytest.mark.slow
def test_a_whole_experiment_of_real_runs(tmp_path, data_dir, capsys, monkeypatch):
    """Two pretrainings, what they are transferred to, and the numbers that they logged."""
    monkeypatch.setattr(work, "start", Forked)
    (tmp_path / "real.py").write_text(REAL)
    given = [f"--override={field}={value}" for field, value in TINY.items()]
    given += [f"--root={tmp_path}/runs", f"--data_dir={data_dir}"]
    code, out, error = command_lib.run(capsys, tmp_path / "real.py", *given)
    assert code == 0, error
    found = [p.parent for p in tmp_path.glob("runs/recognition-*/metrics.jsonl")]
    logged, starts = [], set()
    for folder in found:
        log = (folder / "log.txt").read_text()
        assert re.search(r"(?s)init_from .*:\s+loaded .*params/encoder", log), log
        config = json.loads((folder / "config.json").read_text())
        start = pathlib.Path(config["init_from"])
        starts.add(start)
        seed = json.loads((start / "config.json").read_text())["seed"]
        assert start.parent == tmp_path / "runs" and config["seed"] == seed
        last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
        logged.append(100 * json.loads(last)["top1"])
    assert len(starts) == len(logged) == 2
    mean, half = sum(logged) / 2, abs(logged[0] - logged[1])
    assert re.search(rf"(?m)^rotation +{mean:.1f} ± {half / 2**0.5:.1f}", out), out
