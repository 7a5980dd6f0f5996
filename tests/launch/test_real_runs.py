"""The launchers with real processes: a real config, shrunk, on real files.

Two processes with a device each, stopped in mid-run by SIGTERM and resumed by another
launcher, against one process with two devices.
"""

import json
import os
import random
import re
import signal
import sys

import pytest

from tests import compiling
from tests.launch import starting

CONFIG = "configs/finetune_ucf.py:runlocal"


@pytest.fixture(scope="module")
def flags(moving_shapes):
    return (
        "--config.data.name=moving_shapes",
        f"--config.data.data_dir={moving_shapes(12, 6)}",
        "--config.data.split=train",
        "--config.data.eval_split=",
        "--config.num_classes=10",
        "--config.clip.num_frames=4",
        "--config.clip.size=32",
        "--config.clip.scales=((43,32),)",
        # The network is not the subject.
        "--config.model.name=tests.tiny_network",
        # More than anybody waits for: every run here ends by SIGTERM.
        "--config.steps=100000",
    )


@pytest.fixture(scope="module")
def environ(tmp_path_factory):
    """Compiled once, and for speed of compiling rather than of running."""
    quick = compiling.environ()
    return {
        **quick,
        "PYTHON": sys.executable,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": tmp_path_factory.mktemp("xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"{quick['XLA_FLAGS']} --xla_backend_optimization_level=0",
    }


def losses(workdir):
    """By step, as logged; {} before there are any."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def saved(workdir):
    return max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.is_dir())


def wait_for_step(process, workdir, step):
    def reached():
        assert process.poll() is None, process.communicate()
        return len(losses(workdir)) >= step

    starting.wait_for(reached, seconds=240)


@pytest.fixture(scope="module")
def two(flags, environ, tmp_path_factory):
    """Two processes through cpu_processes.sh, stopped: the workdir and how it ended."""
    workdir = tmp_path_factory.mktemp("two")
    stopped = "--stopped_exit_code=75"
    process = starting.start(
        "cpu_processes.sh", "2", CONFIG, str(workdir), stopped, *flags, **environ
    )
    wait_for_step(process, workdir, 2)
    process.terminate()
    return workdir, starting.end(process, seconds=240)


def test_a_stopped_run_is_saved(two):
    workdir, (code, out, err) = two
    assert code == 75, err
    last = saved(workdir)
    assert re.search(rf"stopped by SIGTERM after step {last}/100000", out)
    assert max(losses(workdir)) == last
    assert "batch 4 on 2 x cpu of 2 processes" in out


def test_slurm_resumes_it_and_requeues_the_job(
    two, flags, environ, tmp_path_factory, tmp_path
):
    workdir, _ = two
    before = losses(workdir)
    process = starting.start(
        "slurm.sh",
        CONFIG,
        str(workdir),
        *flags,
        fakes=True,
        RECORD=tmp_path,
        JOB_STATE="RUNNING",
        # The port where the tasks meet follows from it.
        SLURM_JOB_ID=str(random.randrange(1, 10**6)),
        SLURM_NTASKS="2",
        **environ,
    )
    wait_for_step(process, workdir, len(before) + 2)
    for pid in json.loads((tmp_path / "pids").read_text())[1:]:
        os.kill(pid, signal.SIGTERM)  # process 1 alone: 0 learns of it
    code, out, err = starting.end(process, seconds=240)
    assert code == 0, err
    (requeue,) = (tmp_path / "scontrol").read_text().splitlines()
    assert requeue.startswith("requeue ")
    assert f"resuming from the checkpoint of step {max(before)}/" in out
    after = losses(workdir)
    assert list(after) == list(range(1, saved(workdir) + 1))
    assert {step: after[step] for step in before} == before


def test_the_losses_are_those_of_one_process(two, flags, environ, tmp_path):
    """Runs last: what both parts of the run of two processes have logged."""
    workdir, _ = two
    expected = losses(workdir)
    environ = {**environ}
    environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    process = starting.start(
        "cpu_processes.sh", "1", CONFIG, str(tmp_path), *flags, **environ
    )
    wait_for_step(process, tmp_path, 4)
    process.terminate()
    code, out, err = starting.end(process, seconds=240)
    assert code == 0, err
    assert re.search(r"batch 4 on 2 x cpu,", out)
    found = losses(tmp_path)
    common = sorted(set(found) & set(expected))
    assert len(common) >= 4
    # Rounding grows from step to step.
    for step in common[:6]:
        assert found[step] == pytest.approx(expected[step], rel=1e-4), step
