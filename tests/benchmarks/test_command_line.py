import argparse
import signal
import subprocess
import sys

import pytest

from benchmarks import command_line


def make_parser():
    parser = command_line.Parser("benchmarks.it", "What it is about.\n\nAnd more.")
    parser.add_argument("--rounds", type=command_line.count, default=5)
    parser.add_argument("--side", type=command_line.count_or_zero, default=0)
    names = command_line.some_of(("a", "b"))
    parser.add_argument("--names", type=names, default=["a"])
    return parser


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rounds", "0"], "--rounds: '0': needs a whole number from 1"),
        (["--rounds", "two"], "--rounds: 'two': needs a whole number from 1"),
        (["--json", "/nowhere/x.json"], "--json: '/nowhere/x.json': no file can be"),
        (["--json", "/"], "--json: '/': no file can be"),
        (["--json", f"{__file__}/x"], "no file can be written there"),
        (["--side", "-1"], "--side: '-1': needs a whole number from 0"),
        (["--round", "3"], "--round"),
    ],
)
def test_a_mistake_is_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        make_parser().parse_args(flags)
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error and "python -m benchmarks.it --help" in error


def test_what_is_right_is_kept(tmp_path):
    path = str(tmp_path / "x.json")
    found = make_parser().parse_args(["--rounds", "3", "--json", path])
    assert (found.rounds, found.json) == (3, path)
    assert make_parser().parse_args([]).json == ""
    assert make_parser().parse_args(["--json", "here.json"]).json == "here.json"


def test_several_in_one():
    assert command_line.counts("2,8") == [2, 8]
    read = command_line.some_of(("a", "b"))
    assert read("b,a") == ["b", "a"]
    assert command_line.some_of(("a", "b"), or_none=True)("") == []
    assert command_line.counts("0,1", 0) == [0, 1]
    for wrong in ("2,0", "2,,8", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="with commas"):
            command_line.counts(wrong)
    for wrong, item in (("a,c", "c"), ("", ""), ("a,", "")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{item}': choose from"):
            read(wrong)


def test_children_leave_an_interrupt_to_the_parent():
    before = signal.getsignal(signal.SIGINT)
    assert command_line.fresh(signal.getsignal, signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("stops", "code", "line"),
    [
        ("KeyboardInterrupt()", 130, "interrupted\n"),
        ("UserError('no data there')", 2, "error: no data there\n"),
        ("BrokenPipeError()", 141, ""),
    ],
)
def test_what_stops_it_is_one_line(stops, code, line):
    script = (
        "from benchmarks import command_line\n"
        "from ctp_jax.errors import UserError\n"
        f"def main(): print('a row'); raise {stops}\n"
        "command_line.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (code, line)
    assert code == 141 or done.stdout == "a row\n"


def test_help_tells_names_and_defaults(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--help"])
    text = capsys.readouterr().out
    assert "a,b (default: ['a'])" in text and "default: 5" in text


def test_all_are_listed():
    command = [sys.executable, "-m", "benchmarks"]
    lines = subprocess.check_output(command, text=True).splitlines()
    assert any(line.startswith("python -m benchmarks.train_step") for line in lines)
    assert not any("usual_loader" in line for line in lines)


def test_what_is_missing_is_named(capsys):
    assert command_line.is_there("pytest")
    assert not command_line.is_there("no_such_peer")
    assert "pip install no_such_peer" in capsys.readouterr().out
    command_line.need("pytest", "pytest")
    with pytest.raises(SystemExit, match="pip install some-package"):
        command_line.need("no_such_module", "some-package")
