"""Steps on one device and on several: the same global batch, the same losses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctp_jax.errors import UserError
from ctp_jax.tasks.base import Variables
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import state as state_lib
from ctp_jax.train import step
from tests import forks, toy_task
from tests.toy_data import ToyPipeline, toy_config

# Every run of this module in one process, which has eight devices.
SCRIPT = """
import json, sys
import jax
from ctp_jax.train import loop
from tests.toy_data import opener, toy_config

devices = jax.devices()
for workdir, count, fields in json.loads(sys.argv[1]):
    jax.devices = lambda: devices[:count]
    config = toy_config(**{"log_every": 1, **fields})
    loop.train(config, workdir, opener())
print(len(devices))
"""

PARTS = {"batch_size": 16, "optimizer.accumulate": 2, "ema": 0.8, "steps": 8}
# Workdir, devices, fields of the config. Step 4 is where an epoch ends and is evaluated
# anyway.
RUNS = (
    ("one", 1, {"steps": 6}),
    ("eight", 8, {"steps": 6}),
    ("eight, then two", 8, {"steps": 4}),
    ("eight, then two", 2, {"steps": 6}),
    ("parts on one", 1, PARTS),
    ("parts on four", 4, PARTS),
)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Carries out `RUNS`; {workdir: the lines of its metrics}."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [(str(folder / name), *about) for name, *about in RUNS]
    flags = "--xla_force_host_platform_device_count=8"
    out = forks.run(["-c", SCRIPT, json.dumps(runs)], {"XLA_FLAGS": flags})
    assert out.splitlines()[-1] == "8"
    for name, count, _ in RUNS:
        assert f"{count} x cpu" in out, name
    return {
        name: [
            json.loads(line)
            for line in (folder / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name, *_ in RUNS
    }


def assert_agree(ours, theirs):
    assert len(ours) == len(theirs) > 6
    timing = {"clips_per_second", "input_share", "eta"}
    for a, b in zip(ours, theirs, strict=True):
        for name in a.keys() - timing - {"kind"}:
            assert a[name] == pytest.approx(b[name], rel=2e-5, abs=2e-6), (name, a, b)


def test_devices_agree(logged):
    assert_agree(logged["one"], logged["eight"])


def test_a_checkpoint_of_one_mesh_goes_on_on_another(logged):
    assert_agree(logged["one"], logged["eight, then two"])


def test_devices_agree_on_parts_of_a_batch_and_on_an_average(logged):
    assert_agree(logged["parts on one"], logged["parts on four"])


def test_the_moving_average_is_that_of_a_plain_loop():
    task, mesh, keep = toy_task.Task(toy_config()), mesh_lib.one_device(), 0.8
    batch = next(ToyPipeline(toy_config(), True).train_batches(0))
    optimizer = optax.sgd(0.1)
    train_step = step.make_train_step(
        task, optimizer, lambda count: 0.1, 0, mesh, ema=keep
    )
    state = jax.jit(
        lambda rng: state_lib.initial(task, optimizer, rng, batch, keep),
        out_shardings=mesh_lib.replicated(mesh),
    )(jax.random.key(0))
    wanted = jax.tree.map(np.float64, state.params)
    for _ in range(5):
        state, metrics = train_step(state, mesh_lib.put(batch, mesh))
        wanted = jax.tree.map(
            lambda old, new: keep * old + (1 - keep) * np.float64(new),
            wanted,
            state.params,
        )
    assert metrics["finite"] == 1
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6),
        state.ema,
        wanted,
    )
    # It is what is evaluated, with the statistics of the network that is trained.
    _, outputs, _ = step.make_eval_step(task, mesh)(
        state, mesh_lib.put(batch, mesh), {}
    )
    embedding, others = (
        jax.jit(task.predict)(Variables(params, state.model_state), batch)["embedding"]
        for params in (state.ema, state.params)
    )
    np.testing.assert_allclose(outputs["embedding"], embedding, rtol=1e-5, atol=1e-6)
    assert np.abs(outputs["embedding"] - others).max() > 1e-2


def test_keys_depend_on_stream_and_step_alone():
    keys = [
        step.stream_key(seed, stream, number)
        for seed in (0, 1)
        for stream in ("loss", "init")
        for number in (0, 1, 2)
    ]
    data = {tuple(np.asarray(jax.random.key_data(key))) for key in keys}
    assert len(data) == len(keys)
    traced = jax.jit(lambda s: jax.random.key_data(step.stream_key(0, "loss", s)))
    expected = jax.random.key_data(step.stream_key(0, "loss", 2))
    np.testing.assert_array_equal(traced(2), expected)


def test_all_finite_looks_at_every_float():
    good = {"a": jnp.ones(3), "n": jnp.arange(3)}
    assert step.all_finite(good)
    assert not step.all_finite(good, {"b": jnp.array([0.0, jnp.inf])})
    assert not step.all_finite(jnp.array(jnp.nan), good)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("queue"), "has queue absent after a step, float32"),
        (lambda state: state.update(more=jnp.ones(2)), r"more float32\(2\) after"),
        (lambda state: state.update(queue=jnp.ones(2)), r"queue float32\(2\) after"),
    ],
)
def test_state_that_changes_its_form_is_named(change, message):
    config = toy_config()

    class Forgetful(toy_task.Task):
        def after_step(self, variables, carry, step):
            state = dict(super().after_step(variables, carry, step))
            change(state)
            return state

    task, optimizer = Forgetful(config), optax.sgd(0.1)
    batch = next(ToyPipeline(config, True).train_batches(0))
    train_step = step.make_train_step(
        task, optimizer, lambda count: 0.1, 0, mesh_lib.one_device()
    )
    state = jax.eval_shape(
        lambda: state_lib.initial(task, optimizer, jax.random.key(0), batch)
    )
    with pytest.raises(UserError, match=message):
        train_step.lower(state, batch)
