"""Starts runs of the toy task in one or several processes, and compares runs."""

import json
import shutil
import socket

import jax
import numpy as np

from ctp_jax.train.checkpoints import pytrees
from tests import forks

TIMING = ("clips_per_second", "input_share", "eta")


def free_port():
    """A port that is free at the moment."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(workdir, count=1, devices=1, **settings):
    """Starts the processes; `settings` as `tests.toy_run` takes them."""
    where = f"localhost:{free_port()}"
    flag = f"--xla_force_host_platform_device_count={devices}"
    started = []
    for index in range(count):
        meeting = [where, str(count), str(index)] if count > 1 else []
        # Settings for one process alone: {"only": {"1": {...}}}.
        own = {**settings, **settings.get("only", {}).get(str(index), {})}
        path = own.get("workdir", workdir)
        arguments = ["-m", "tests.toy_run", path, json.dumps(own), *meeting]
        started.append(forks.start(arguments, {"XLA_FLAGS": flag}))
    return started


def end(started):
    """Waits for them; returns (exit codes, outputs)."""
    try:
        outputs = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()  # of which a finished one takes no notice
    return [process.returncode for process in started], outputs


def run(workdir, *arguments, **settings):
    """Starts and waits: (exit codes, outputs)."""
    return end(start(workdir, *arguments, **settings))


def lines(workdir):
    """Lines of metrics.jsonl without the measured times."""
    found = []
    for text in (workdir / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        found.append({k: v for k, v in line.items() if k not in TIMING})
    return found


def last_state(workdir):
    """(steps that there are, every leaf of the newest)."""
    steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())
    tree = pytrees.load(workdir / "checkpoints" / str(steps[-1]) / "state")
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return steps, {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def copy_until(workdir, step, target):
    """A copy of a finished run, as if it had ended after the checkpoint of a step."""
    shutil.copytree(
        workdir, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("encoder")
    )
    for path in (target / "checkpoints").iterdir():
        if int(path.name) > step:
            shutil.rmtree(path)
    assert last_state(target)[0][-1] == step
    metrics = target / "metrics.jsonl"
    logged = metrics.read_text().splitlines(keepends=True)
    kept = [line for line in logged if json.loads(line)["step"] <= step]
    metrics.write_text("".join(kept))


def assert_same_run(a, b):
    """Bit for bit: parameters, statistics, optimiser, every logged number."""
    (steps_a, leaves_a), (steps_b, leaves_b) = last_state(a), last_state(b)
    assert steps_a[-1] == steps_b[-1] and leaves_a.keys() == leaves_b.keys()
    for name, leaf in leaves_a.items():
        np.testing.assert_array_equal(leaf, leaves_b[name], err_msg=name)
    assert lines(a) == lines(b)


def assert_alike(a, b):
    """Equal up to rounding."""
    ours, theirs = lines(a), lines(b)
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for line, other in zip(ours, theirs, strict=True):
        for name, value in line.items():
            if name == "kind":
                assert value == other[name]
            else:
                np.testing.assert_allclose(
                    value, other[name], rtol=2e-4, atol=1e-5, err_msg=f"{name} {line}"
                )
