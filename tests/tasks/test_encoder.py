"""A task that trains nothing; what the tasks with an encoder share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax import models
from ctp_jax.errors import UserError
from ctp_jax.tasks import base, encoder
from tests.tasks import made_clips as made


@pytest.fixture(scope="module")
def task():
    return base.load(made.make_config(task="encoder"))


def test_it_is_an_encoder_and_nothing_else(task):
    assert type(task) is encoder.Task
    params, model_state = jax.eval_shape(task.init, jax.random.key(0), {})
    assert list(params) == ["encoder"] and list(model_state) == ["batch_stats"]
    assert task.head(params) is None and task.frozen(params) is None
    assert tuple(task.evaluators()) == ()
    ours, stats, architecture = task.encoder(params, model_state)
    assert ours is params["encoder"] and stats is model_state["batch_stats"]["encoder"]
    assert architecture == models.create(task.config.model).architecture()


def test_it_says_that_it_trains_nothing(task):
    with pytest.raises(UserError, match="'encoder' trains nothing: set config.epochs"):
        task.loss({}, {}, {}, jax.random.key(0))


def test_an_encoder_goes_in_and_nothing_else_changes(task):
    head, queue = jnp.ones(3), jnp.zeros(2)
    params = {"encoder": {"old": 0}, "head": head}
    model_state = {"batch_stats": {"encoder": {"old": 0}, "other": 1}, "queue": queue}
    weights, stats = {"new": 1}, {"new": 2}
    params, model_state = task.load_encoder(params, model_state, weights, stats)
    assert params["encoder"] is weights and params["head"] is head
    assert model_state["batch_stats"] == {"encoder": stats, "other": 1}
    assert model_state["queue"] is queue
    assert task.encoder(params, model_state)[:2] == (weights, stats)


def test_other_state_survives_training_and_evaluation_changes_none(task):
    shapes = jax.eval_shape(task.init, jax.random.key(0), {})
    params, model_state = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), shapes)
    model_state = {**model_state, "queue": jnp.ones(2)}
    clips = jnp.ones((1, 4, 32, 32, 3))

    def run(train):
        return task.features(params, model_state, clips, train)

    _, same = run(False)
    assert same is model_state
    _, changed = jax.jit(lambda: run(True))()
    assert changed.keys() == model_state.keys()
    np.testing.assert_array_equal(changed["queue"], 1)
    before = jax.tree.leaves(model_state["batch_stats"])
    for new, old in zip(jax.tree.leaves(changed["batch_stats"]), before, strict=True):
        assert (np.asarray(new) != np.asarray(old)).any()


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "needs one or more"),
        ((31,), "31 .*smaller than the crop"),
        (((64, 31),), "31 .*smaller"),
        (((31, 64),), "31 .*smaller"),
        ((32.5,), "neither a short side"),
        (((64, 64, 64),), "neither a short side"),
    ],
)
def test_scales(scales, message):
    encoder.check_scales("x", (32, (32, 40), [40, 32]), 32)
    with pytest.raises(UserError, match=f"config.x.*{message}"):
        encoder.check_scales("x", scales, 32)
