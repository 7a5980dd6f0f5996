"""Traces of the profiler."""

from ctp_jax.train import loop
from tests.toy_data import opener, toy_config


def traces(workdir):
    return list((workdir / "profile").rglob("*.xplane.pb"))


def test_a_trace_appears(tmp_path, capsys):
    loop.train(toy_config(steps=4, profile="2:2"), tmp_path / "short", opener())
    (trace,) = traces(tmp_path / "short")
    # The trace of a step names its compiled program.
    assert b"train_step" in trace.read_bytes()
    assert "profile of steps from 2 on" in capsys.readouterr().out


def test_a_run_that_ends_within_its_trace_writes_it(tmp_path):
    loop.train(toy_config(steps=2, profile="2:100"), tmp_path / "run", opener())
    assert len(traces(tmp_path / "run")) == 1
    loop.train(toy_config(steps=2, profile="9:1"), tmp_path / "none", opener())
    assert not traces(tmp_path / "none")
