"""The arrays of jobs that make tables: Slurm's with stand-ins, Kubernetes' by its schemas."""

import os
import re
import sys

import kubernetes_validate
import pytest
import yaml

from ctp_jax import cli
from ctp_jax.reproduce import __main__ as reproduce
from tests.launch import starting
from tests.launch.test_kubernetes import VERSIONS


def start(folder, ends, *flags, state="RUNNING", **environ):
    """Starts the script as Slurm would for the third job of an array 0-3."""
    array = {"ID": 2, "MAX": 3, "COUNT": 4}
    environ = {f"SLURM_ARRAY_TASK_{k}": v for k, v in array.items()} | environ
    return starting.start(
        "slurm_reproduce.sh",
        "table4",
        f"--root={folder}/runs",
        *flags,
        fakes=True,
        PYTHON=starting.STAND_IN,
        RECORD=folder,
        ENDS=ends,
        JOB_STATE=state,
        SLURM_JOB_ID="4711",
        **environ,
    )


def requeued(folder):
    path = folder / "scontrol"
    return path.read_text().splitlines() if path.exists() else []


def test_every_job_has_its_shard(tmp_path):
    code, _, err = starting.end(start(tmp_path, "0"))
    assert code == 0 and not err and not requeued(tmp_path)
    (record,) = starting.records(tmp_path, 1)
    assert record["argv"] == [
        *("-m", "ctp_jax.reproduce", "table4", f"--root={tmp_path}/runs"),
        *("--shard=2/4", "--wait"),
    ]
    assert 0.75 < float(record["environ"]["XLA_PYTHON_CLIENT_MEM_FRACTION"]) < 1


# What Slurm's manual gives for --array=0,5, 4-7, 0-6:2 and 3, in the last job.
@pytest.mark.parametrize(("last", "count"), [(5, 2), (7, 4), (6, 4), (3, 1)])
def test_a_part_of_an_array_needs_a_shard(tmp_path, last, count):
    array = {"SLURM_ARRAY_TASK_ID": last, "SLURM_ARRAY_TASK_MAX": last}
    array["SLURM_ARRAY_TASK_COUNT"] = count
    code, _, err = starting.end(start(tmp_path, "0", **array))
    assert code == 2 and err.count("\n") == 1 and "--shard=I/N" in err
    assert not (tmp_path / "0.json").exists()
    code, _, err = starting.end(start(tmp_path, "0", "--shard=3/8", **array))
    assert code == 0 and not err
    (record,) = starting.records(tmp_path, 1)
    assert record["argv"][-2:] == ["--shard=3/8", "--wait"]


def test_a_stopped_job_saves_and_is_requeued(tmp_path):
    process = start(tmp_path, "75!")
    starting.records(tmp_path, 1)
    process.terminate()  # the script alone, as --signal=B: has it
    code, _, _ = starting.end(process)
    assert code == 0 and requeued(tmp_path) == ["requeue 4711"]
    (record,) = starting.records(tmp_path, 1)
    assert record["signals"] == ["SIGTERM"]


@pytest.mark.parametrize(
    ("ends", "environ"),
    [
        ("1", {}),
        ("2", {}),
        ("75", {"state": "CANCELLED"}),
        ("75", {"SLURM_RESTART_COUNT": "3", "MAX_REQUEUES": "3"}),
    ],
)
def test_nothing_else_is_requeued(tmp_path, ends, environ):
    code, _, _ = starting.end(start(tmp_path, ends, **environ))
    assert code == int(ends) and not requeued(tmp_path)


def test_what_slurm_is_asked_for():
    text = (starting.LAUNCH / "slurm_reproduce.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    # With "B:": the process would get the signal beside its own run.
    assert re.fullmatch(r"B:TERM@\d{3}", options["signal"])
    assert options["gpus-per-node"] == "1" and options["array"].startswith("0-")
    assert "%A_%a" in options["output"] and options["open-mode"] == "append"


def test_without_an_array_it_says_how(tmp_path):
    environ = {**os.environ, "SLURM_ARRAY_TASK_COUNT": ""}
    code, _, err = starting.end(
        starting.start("slurm_reproduce.sh", "table4", **environ)
    )
    assert code == 2 and err.startswith("usage: sbatch --array")


@pytest.fixture(name="job")
def read_job():
    return yaml.safe_load((starting.LAUNCH / "job_reproduce.yaml").read_text())


def test_the_job_is_valid(job):
    for version in VERSIONS:
        kubernetes_validate.validate(job, version, True)
    job["spec"]["backoffLimitsPerIndex"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[0], True)


def test_pods_share_the_runs(job, monkeypatch):
    spec = job["spec"]
    count = spec["parallelism"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completions"] == count and spec["completionMode"] == "Indexed"
    assert container["command"][-1] == "ctp_jax.reproduce"
    environ = {each["name"]: each["value"] for each in container["env"]}
    shards = set()
    for index in range(count):
        environ["JOB_COMPLETION_INDEX"] = str(index)
        arguments = [
            re.sub(r"\$\((\w+)\)", lambda match: environ[match[1]], argument)
            for argument in container["args"]
        ]
        reproduce.FLAGS.unparse_flags()
        monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
        assert cli.parse(sys.argv, reproduce.FLAGS, "") == ["table4"]
        assert reproduce.WAIT.value
        shards.add(reproduce.SHARD.value)
    assert shards == {f"{index}/{count}" for index in range(count)}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(reproduce.ROOT.value.startswith(f"{mount}/") for mount in mounts)


def test_what_failed_is_not_tried_again(job):
    actions = {}
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            (container,) = job["spec"]["template"]["spec"]["containers"]
            assert rule["onExitCodes"]["containerName"] == container["name"]
            actions |= dict.fromkeys(rule["onExitCodes"]["values"], rule["action"])
    assert actions == {1: "FailIndex", 2: "FailIndex", 75: "Count"}
