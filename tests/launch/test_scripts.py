"""All shell scripts: shellcheck, and that they can be started."""

import os
import subprocess

import pytest

from tests.launch import starting

SCRIPTS = sorted(starting.LAUNCH.glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(path):
    done = subprocess.run(
        [starting.tool("shellcheck"), path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_they_can_be_started(path):
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text


def test_each_file_is_explained():
    about = (starting.LAUNCH / "README.md").read_text()
    for path in starting.LAUNCH.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert f"`{path.relative_to(starting.LAUNCH)}`" in about, path.name


def test_one_host(tmp_path):
    process = starting.start(
        "one_host.sh",
        "configs/demo.py",
        f"{tmp_path}/run",
        "--config.steps=(1, 2)",
        PYTHON=starting.STAND_IN,
        RECORD=tmp_path,
        ENDS="75!",
    )
    starting.records(tmp_path, 1)
    process.terminate()
    code, _, _ = starting.end(process)
    assert code == 75  # the script has become the run
    (record,) = starting.records(tmp_path, 1)
    assert record["signals"] == ["SIGTERM"]
    assert starting.flags_of(record) == {
        "--config": "configs/demo.py",
        "--workdir": f"{tmp_path}/run",
        "--config.steps": "(1, 2)",
    }
    assert 0.75 < float(record["environ"]["XLA_PYTHON_CLIENT_MEM_FRACTION"]) < 1
    assert record["environ"]["GLIBC_TUNABLES"] == starting.LARGE_PAGES
