"""slurm.sh with an `srun` and an `scontrol` that keep to their manuals."""

import json
import os
import re
import signal

import pytest

from tests.launch import starting


def start(folder, ends, state="RUNNING", **environ):
    """Starts the body of the script as Slurm would on the first node."""
    return starting.start(
        "slurm.sh",
        "configs/demo.py",
        f"{folder}/run",
        "--config.steps=(1, 2)",
        fakes=True,
        PYTHON=starting.STAND_IN,
        RECORD=folder,
        ENDS=ends,
        JOB_STATE=state,
        SLURM_JOB_ID="4711",
        SLURM_NTASKS=str(len(ends.split(","))),
        **environ,
    )


def requeued(folder):
    path = folder / "scontrol"
    return path.read_text().splitlines() if path.exists() else []


def test_every_task_gets_the_same_command(tmp_path):
    code, out, err = starting.end(start(tmp_path, "0,0", SLURM_CPUS_PER_TASK="7"))
    assert code == 0 and not err
    assert sorted(out.splitlines()) == ["line of 0", "line of 1"]
    for index, record in enumerate(starting.records(tmp_path, 2)):
        assert starting.flags_of(record) == {
            "--config": "configs/demo.py",
            "--workdir": f"{tmp_path}/run",
            "--stopped_exit_code": "75",
            "--config.steps": "(1, 2)",
        }
        assert record["environ"]["SLURM_PROCID"] == str(index)
        assert record["environ"]["SRUN_CPUS_PER_TASK"] == "7"
    assert not requeued(tmp_path)


def test_a_stopped_run_is_requeued(tmp_path):
    process = start(tmp_path, "75!,75!")
    starting.records(tmp_path, 2)
    # As --signal has it: the tasks, neither srun nor the script.
    for pid in json.loads((tmp_path / "pids").read_text()):
        os.kill(pid, signal.SIGTERM)
    code, _, _ = starting.end(process)
    assert code == 0
    assert requeued(tmp_path) == ["requeue 4711"]


def test_a_process_that_still_saves_is_waited_for(tmp_path):
    """The first to end with 75 must not have the others killed: that would be 137."""
    code, _, _ = starting.end(start(tmp_path, "75,75@0.7"))
    assert code == 0
    assert requeued(tmp_path) == ["requeue 4711"]


@pytest.mark.parametrize(
    ("ends", "expected"), [("0,0", 0), ("2,2", 2), ("1,0", 1), ("75,134", 134)]
)
def test_nothing_else_is_requeued(tmp_path, ends, expected):
    code, _, _ = starting.end(start(tmp_path, ends))
    assert code == expected
    assert not requeued(tmp_path)


def test_a_cancelled_job_stays_cancelled(tmp_path):
    code, _, _ = starting.end(start(tmp_path, "75", state="CANCELLED"))
    assert code == 75
    assert not requeued(tmp_path)


def test_it_does_not_go_round_for_ever(tmp_path):
    environ = {"MAX_REQUEUES": "3"}
    starting.end(start(tmp_path, "75", SLURM_RESTART_COUNT="2", **environ))
    assert requeued(tmp_path) == ["requeue 4711"]
    process = start(tmp_path, "75", SLURM_RESTART_COUNT="3", **environ)
    code, _, err = starting.end(process)
    assert code == 75 and "not requeued: that was number 3" in err
    assert requeued(tmp_path) == ["requeue 4711"]


def test_what_it_asks_slurm_for():
    lines = (starting.LAUNCH / "slurm.sh").read_text().splitlines()
    # sbatch reads these up to the first line that is neither empty nor a comment.
    head = lines[: next(i for i, line in enumerate(lines) if re.match(r"[^#]", line))]
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in head
        if line.startswith("#SBATCH ")
    )
    assert sum(line.startswith("#SBATCH") for line in lines) == len(options)
    # Without "B:", which would send it to the script and not to the processes.
    assert re.fullmatch(r"TERM@\d{3}", options["signal"])
    assert options["requeue"] == "" and options["open-mode"] == "append"
    assert options["ntasks-per-node"] == "1"


def test_wrong_arguments_are_answered():
    job = {"SLURM_JOB_ID": "4711"}
    code, _, err = starting.end(starting.start("slurm.sh", "configs/demo.py", **job))
    assert code == 2 and err.startswith("usage: sbatch")
    # Started by hand, there is no srun, or it would ask for a job of its own.
    given, job["SLURM_JOB_ID"] = ("configs/demo.py", "runs/demo"), ""
    code, _, err = starting.end(starting.start("slurm.sh", *given, **job))
    assert code == 2 and err.startswith("usage: sbatch")
