"""A batch in parts: the same gradients, and each device divides its own rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from ctp_jax.train import accumulation, loop, step
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train.state import TrainState
from tests import forks
from tests.toy_data import opener, toy_config

ROWS, PARTS = 8, 4


class Regression(base.Task):
    """No BatchNorm and no dropout; keeps `carry` and a running mean."""

    def loss(self, variables, batch, step, rng):
        params, model_state = variables
        hidden = jnp.tanh(batch["x"] @ params["first"])
        wrong = hidden @ params["last"] - batch["y"]
        loss = jnp.square(wrong).mean()
        mean = 0.5 * model_state["mean"] + 0.5 * batch["x"].mean(axis=0)
        carry = {
            "rows": hidden,
            "views": jnp.stack([batch["x"], -batch["x"]], axis=1),
            "centre": hidden.mean(axis=0),
            "scalar": wrong.mean(),
        }
        metrics = {"error": jnp.abs(wrong).mean(), "key": jax.random.uniform(rng)}
        return loss, base.StepOutput(metrics, {**model_state, "mean": mean}, carry)

    def after_step(self, variables, carry, step):
        return {**variables.state, **carry}


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def made(rows=ROWS):
    rng = np.random.default_rng(0)
    params = {"first": rng.normal(size=(5, 6)), "last": rng.normal(size=(6, 3))}
    batch = {"x": rng.normal(size=(rows, 5)), "y": rng.normal(size=(rows, 3))}
    return params, batch


def run(parts, steps=3):
    """The last state and the metrics of some steps."""
    params, batch = made()
    model_state = {
        "mean": np.zeros(5),
        "rows": np.zeros((ROWS, 6)),
        "views": np.zeros((ROWS, 2, 5)),
        "centre": np.zeros(6),
        "scalar": np.zeros(()),
    }
    mesh = mesh_lib.one_device()
    optimizer = optax.sgd(0.1, momentum=0.9)
    train_step = step.make_train_step(
        Regression(toy_config()), optimizer, lambda count: 0.1, 0, mesh, parts
    )
    state = TrainState(jnp.int32(0), params, model_state, optimizer.init(params))
    state = jax.device_put(state, mesh_lib.replicated(mesh))
    for _ in range(steps):
        state, metrics = train_step(state, mesh_lib.put(batch, mesh))
    return state, metrics


def test_parts_are_the_whole(x64):
    """Parameters, metrics and `carry` agree up to rounding in float64."""
    (whole, metrics), (parts, others) = run(1), run(PARTS)
    mean = whole.model_state.pop("mean"), parts.model_state.pop("mean")
    assert metrics.pop("key") != others.pop("key")  # each part has a key of its own
    wanted, found = (whole, metrics), (parts, others)
    assert jax.tree.structure(wanted) == jax.tree.structure(found)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-14)
    # A statistic of a batch is of one part after the other instead.
    x, wanted = made()[1]["x"], np.zeros(5)
    for number in list(range(PARTS)) * 3:
        wanted = 0.5 * wanted + 0.5 * x[number::PARTS].mean(axis=0)
    np.testing.assert_allclose(mean[1], wanted, rtol=1e-12)
    assert (np.abs(mean[0] - mean[1]) > 1e-3).all()


def test_rows_of_clips_are_ambiguous():
    mesh = mesh_lib.one_device()

    def loss(params, state, batch, step, rng):
        return params.sum(), ({}, state, batch.repeat(2))

    parts = accumulation.value_and_grad(loss, 2, mesh)
    given = jnp.ones(3), {}, jnp.arange(8.0), 0, jax.random.key(0)
    with pytest.raises(UserError, match=r"array \(16,\) for 8 videos"):
        jax.eval_shape(parts, *given)


def test_it_needs_less_memory():
    def loss(params, model_state, batch, step, rng):
        # 64 activations of 1 kB a row, kept for the gradient.
        x = jnp.tile(batch["x"], 50)
        for _ in range(64):
            x = jnp.sin(params["scale"] * x)
        return x.mean(), ({}, model_state, None)

    def temporaries(parts):
        program = accumulation.value_and_grad(loss, parts, mesh_lib.one_device())
        shapes = jax.eval_shape(lambda: ({"scale": jnp.ones(())}, {}, made(64)[1]))
        compiled = jax.jit(program).lower(*shapes, 0, jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(8) < temporaries(1) / 4


SCRIPT = """
import sys
import jax, jax.numpy as jnp
from ctp_jax.train import accumulation
from ctp_jax.train import mesh as mesh_lib

def loss(params, model_state, batch, step, rng):
    x = batch["frames"].astype(jnp.float32) @ params
    return jnp.square(x).mean(), ({}, model_state, x)

mesh = mesh_lib.make_mesh()
everywhere, rows = mesh_lib.replicated(mesh), mesh_lib.over_batch(mesh)
program = accumulation.value_and_grad(loss, 4, mesh)
def run(params, batch):
    (value, (_, _, carry)), gradients = program(
        params, {}, batch, 0, jax.random.key(0)
    )
    return value, carry, gradients
shapes = jax.ShapeDtypeStruct((6, 3), "float32"), jax.ShapeDtypeStruct((64, 6), "uint8")
lowered = jax.jit(
    run, in_shardings=(everywhere, rows), out_shardings=(everywhere, rows, everywhere)
).lower(shapes[0], {"frames": shapes[1]})
print(lowered.compile().as_text())
"""


def test_no_row_leaves_its_device():
    """Neither videos on the way into a part, nor `carry` on the way out."""
    flags = "--xla_force_host_platform_device_count=8"
    out = forks.run(["-c", SCRIPT], {"XLA_FLAGS": flags})
    assert "u8[8,6]" in out  # a device's share of 64 rows
    assert "all-reduce" in out  # of gradients
    for moves in ("all-gather", "all-to-all", "collective-permute"):
        assert moves not in out


def test_batch_must_divide():
    mesh_lib.check_batch_size(16, 8)
    with pytest.raises(UserError, match="12 .* 8 devices: use 8 or 16"):
        mesh_lib.check_batch_size(12, 8)
    mesh_lib.check_batch_size(16, 4, 2)
    message = r"12 .* 4 devices in 2 parts each \(config\.optimizer\.accumulate\): use "
    with pytest.raises(UserError, match=message + "8 or 16$"):
        mesh_lib.check_batch_size(12, 4, 2)
    with pytest.raises(UserError, match=message.replace("12", "4") + "8$"):
        mesh_lib.check_batch_size(4, 4, 2)


def test_a_run_says_what_does_not_divide(tmp_path):
    with pytest.raises(UserError, match=r"config\.optimizer\.accumulate = 3: .* 8"):
        loop.train(toy_config(**{"optimizer.accumulate": 3}), tmp_path, opener())
