"""tpu_vm.sh: the commands it prints and gives, and what a worker would carry out."""

import getpass
import json
import subprocess

import pytest

from tests.launch import starting

ZONE = "--zone=us-west4-a"
VM = ["gcloud", "compute", "tpus", "tpu-vm"]
QUEUE = ["gcloud", "compute", "tpus", "queued-resources"]
START = ["start", "configs/k400_r3d.py", "/shared/a b", "--config.x=(1, 'two')"]
VERBS = [["create"], ["state"], ["ssh", "ls /"], ["install"], START]
VERBS += [["logs"], ["stop"], ["delete"]]


def call(*arguments, record="/nowhere", **environ):
    """Runs the script with a `gcloud` and a `git` that only record their calls."""
    environ = {"TPU": "ctp", "ZONE": "us-west4-a", **environ}
    return starting.end(
        starting.start("tpu_vm.sh", *arguments, fakes=True, RECORD=record, **environ)
    )


def printed(*arguments, **environ):
    """The arguments of each command that `--dry-run` prints."""
    code, out, err = call("--dry-run", *arguments, **environ)
    assert code == 0 and not err
    # Only a shell reads a shell's quotes.
    show = "show() { printf '%s\\0' \"$@\"; echo; }\n"
    lines = "".join(f"show {line}\n" for line in out.splitlines())
    shown = subprocess.run(
        ["bash", "-c", show + lines], check=True, capture_output=True, text=True
    )
    return [command.split("\0") for command in shown.stdout.split("\0\n")[:-1]]


def on_worker(*arguments):
    """The one command that would be given to the workers."""
    (found,) = [
        argument.removeprefix("--command=")
        for command in printed(*arguments)
        for argument in command
        if argument.startswith("--command=")
    ]
    return found


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_dry_run_prints_what_would_be_run(verb, tmp_path):
    expected = printed(*verb)
    assert not list(tmp_path.iterdir())
    code, out, err = call(*verb, record=tmp_path)
    assert (code, out, err) == (0, "", "")
    run = [
        [name, *json.loads(line)]
        for name in ("git", "gcloud")
        if (tmp_path / name).exists()
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert run == expected
    assert all(ZONE in command for command in run if command[0] == "gcloud")


def test_creating_and_deleting():
    environ = {"TYPE": "v6e-16", "RUNTIME": "v2-alpha-tpuv6e"}
    (create,) = printed("create", **environ)
    about = ["--node-id=ctp", "--accelerator-type=v6e-16"]
    about += ["--runtime-version=v2-alpha-tpuv6e"]
    assert create == [*QUEUE, "create", "ctp", ZONE, *about]
    assert printed("create", SPOT="1", **environ) == [[*create, "--spot"]]
    (delete,) = printed("delete")
    assert delete == [*QUEUE, "delete", "ctp", ZONE, "--force", "--quiet"]


def test_workers():
    everywhere = [*VM, "ssh", "ctp", "--worker=all"]
    assert printed("ssh", "ls /") == [[*everywhere, "--command=ls /", ZONE]]
    assert printed("stop") == [[*everywhere, "--command=sudo systemctl stop ctp", ZONE]]
    ((*_, worker, _, _),) = printed("logs")
    assert worker == "--worker=0"
    archive, copy, install = printed("install")
    path = next(a for a in archive if a.startswith("--output="))
    assert copy[4:6] == ["scp", path.removeprefix("--output=")]
    assert copy[6:] == ["ctp:ctp_jax.tar.gz", "--worker=all", ZONE]
    assert install[:7] == everywhere


def test_what_a_worker_starts(tmp_path):
    home = tmp_path / "home"
    (home / "ctp_jax").mkdir(parents=True)
    path = f"{starting.BIN}:{starting.PATH}"
    subprocess.run(
        ["bash", "-c", on_worker(*START)],
        check=True,
        cwd=home,
        env={"PATH": path, "RECORD": str(tmp_path), "USER": getpass.getuser()},
    )
    (line,) = (tmp_path / "sudo").read_text().splitlines()
    arguments = json.loads(line)
    split = arguments.index(f"{home}/ctp_jax/.venv/bin/python")
    service, command = arguments[:split], arguments[split + 1 :]
    assert command == [
        "-m",
        "ctp_jax.main",
        "--config=configs/k400_r3d.py",
        "--workdir=/shared/a b",
        "--config.x=(1, 'two')",
    ]
    assert service[:2] == ["systemd-run", "--unit=ctp"]
    assert f"--uid={getpass.getuser()}" in service
    assert f"--working-directory={home}/ctp_jax" in service
    # A user error would only happen again.
    assert "--property=RestartPreventExitStatus=2" in service


def test_a_bucket_needs_nothing_else():
    command = on_worker("start", "configs/demo.py", "gs://bucket/run")
    assert "--workdir=gs://bucket/run" in command


@pytest.mark.parametrize("verb", ["install", "start"])
def test_what_workers_run_is_a_shell_script(verb):
    command = on_worker(*next(each for each in VERBS if each[0] == verb))
    subprocess.run(["bash", "-n", "-c", command], check=True)
    check = [starting.tool("shellcheck"), "--shell=bash", "-"]
    done = subprocess.run(
        check, input=command, text=True, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["begin"],
        ["--dry-run"],
        ["start", "configs/demo.py"],
        ["start", "configs/demo.py", "runs/here"],
        ["start", "configs/demo.py", "gs://bucket"],
        ["start", "configs/demo.py", "s3://bucket/run"],
    ],
)
def test_wrong_arguments_are_answered(arguments, tmp_path):
    code, out, err = call(*arguments, record=tmp_path)
    assert code == 2 and not out and err.startswith("usage: ")
    assert not list(tmp_path.iterdir())


def test_it_must_be_told_which_tpu():
    assert call("--help", TPU="")[2].startswith("usage: ")
    code, _, err = call("stop", TPU="")
    assert code != 0 and "TPU: set it to the name of the TPU" in err
