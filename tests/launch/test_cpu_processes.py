"""cpu_processes.sh: what it starts, and how everything ends together."""

import os
import signal
import socket

import pytest

from tests.launch import starting


def start(folder, ends, *flags, **environ):
    """Starts a stand-in per order in `ends`."""
    return starting.start(
        "cpu_processes.sh",
        str(len(ends.split(","))),
        "configs/demo.py",
        f"{folder}/run",
        *flags,
        PYTHON=starting.STAND_IN,
        RECORD=folder,
        ENDS=ends,
        **environ,
    )


def test_processes_are_told_who_they_are(tmp_path):
    code, out, err = starting.end(start(tmp_path, "0,0,0", "--config.steps=(1, 2)"))
    assert code == 0 and err == ""
    found = [starting.flags_of(record) for record in starting.records(tmp_path, 3)]
    assert [flags.pop("--process_index") for flags in found] == ["0", "1", "2"]
    assert found[0] == found[1] == found[2]
    host, port = found[0].pop("--coordinator").split(":")
    assert found[0] == {
        "--config": "configs/demo.py",
        "--workdir": f"{tmp_path}/run",
        "--process_count": "3",
        "--config.steps": "(1, 2)",
    }
    with socket.create_server((host, int(port))):  # nobody else listens there
        pass
    assert sorted(out.splitlines()) == [
        "[1] line of 1",
        "[2] line of 2",
        "line of 0",
    ]


def test_by_default_it_is_the_cpu(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    starting.end(start(tmp_path, "0"))
    (record,) = starting.records(tmp_path, 1)
    assert record["environ"]["JAX_PLATFORMS"] == "cpu"
    assert record["environ"]["GLIBC_TUNABLES"] == starting.LARGE_PAGES


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_reaches_all_and_all_are_waited_for(tmp_path, name):
    process = start(tmp_path, "75!,75!")
    starting.records(tmp_path, 2)
    process.send_signal(signal.Signals[name])
    code, _, _ = starting.end(process)
    assert code == 75
    for record in starting.records(tmp_path, 2):
        assert record["signals"] == [name]


def test_ctrl_c_in_a_terminal_reaches_each_process_once(tmp_path):
    """A terminal signals the whole group; a second signal would cut the save short."""
    process = start(tmp_path, "0!,0!")
    starting.records(tmp_path, 2)
    os.killpg(process.pid, signal.SIGINT)
    code, _, _ = starting.end(process)
    assert code == 0
    for record in starting.records(tmp_path, 2):
        assert record["signals"] == ["SIGINT"]


def test_when_one_fails_the_others_are_ended(tmp_path):
    process = start(tmp_path, "hang,3,hang", GRACE=1)
    code, _, err = starting.end(process, seconds=30)
    assert code == 3
    assert err.splitlines()[0] == "process 1 ended with 3"
    # They had time to end by themselves, and were not asked to save.
    assert {"process 0 ended with 137", "process 2 ended with 137"} < {
        *err.splitlines()
    }
    assert all(not record["signals"] for record in starting.records(tmp_path, 3))


def test_the_first_bad_exit_code_is_returned(tmp_path):
    code, _, err = starting.end(start(tmp_path, "1@1.2,2,0"))
    assert code == 2
    assert "process 1 ended with 2" in err and "process 0 ended with 1" in err


@pytest.mark.parametrize(
    "arguments", [[], ["2", "configs/demo.py"], ["none", "c", "w"], ["0", "c", "w"]]
)
def test_wrong_arguments_are_answered(arguments):
    code, out, err = starting.end(starting.start("cpu_processes.sh", *arguments))
    assert code == 2 and out == "" and err.startswith("usage: ")
