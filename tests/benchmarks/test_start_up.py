"""What the benchmark of the start reads out of lines and import times."""

import pathlib

import pytest

from benchmarks import start_up
from ctp_jax.train.start_up import StartUp


def test_it_reads_the_line_that_a_run_writes():
    clock = StartUp()
    for phase in ("imports", "opening data", "first step"):
        clock.mark(phase)
    clock._phases |= {"imports": 3.14, "opening data": 0.26, "first step": 1.0}
    clock.close()
    phases = start_up.read_phases(clock.line())
    assert phases.pop("tracing") >= 0 and phases.pop("compiling") >= 0
    assert phases == {
        "imports": 3.1,
        "opening data": 0.3,
        "first step": 1.0,
        "compiled": 0,
        "from the cache": 0,
    }
    assert start_up.read_phases("step 1/2  loss 0.5") == {}


def test_imports_are_added_up_by_package_without_what_they_import():
    text = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 |       numpy._core\n"
        "a line of the program | 5 | numpy\n"
        "import time:       200 |        300 |     numpy\n"
        "import time:   1000000 |    1000300 | jax.numpy\n"
    )
    found = start_up.package_times(text)
    assert list(found) == ["jax", "numpy"]
    assert found == {"jax": 1.0, "numpy": pytest.approx(3e-4)}


def test_which_starts_find_a_checkpoint_and_programs():
    seen, place = [], pathlib.Path("place")

    def start(code, workdir, cache):
        state = ("going on" if (workdir,) in seen else "new", cache in seen)
        seen.extend([(workdir,), cache])
        return state

    assert start_up.one_round(start, place, place) == {
        "new, cold": ("new", False),
        "new, warm": ("new", True),
        "going on, cold": ("going on", False),
        "going on, warm": ("going on", True),
    }


def test_medians_and_ranges():
    starts = [
        start_up.Start(seconds, {"imports": part}, "")
        for seconds, part in ((3.0, 1.0), (9.0, 5.0), (4.0, 2.0))
    ]
    found = start_up.summary(starts)
    assert (found["seconds"], found["range"]) == (4.0, [3.0, 9.0])
    assert found["phases"] == {"imports": 2.0}


def test_wrong_flags_are_answered(capsys):
    for flags, words in (
        (["--repeats", "0"], "--repeats: '0': needs a whole number"),
        (["--other", "nowhere"], "--other=nowhere: no checkout"),
    ):
        with pytest.raises(SystemExit):
            start_up.parse(flags)
        assert words in capsys.readouterr().err
