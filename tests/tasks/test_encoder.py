"""A task that trains nothing; what the tasks with an encoder share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax import models
from ctp_jax.errors import UserError
from ctp_jax.tasks import base, ctp, encoder
from tests import made_sequences
from tests.tasks import made_clips as made


@pytest.fixture(scope="module")
def task():
    return base.load(made.make_config(task="encoder"))


def test_it_is_an_encoder_and_nothing_else(task):
    assert type(task) is encoder.Task
    variables = jax.eval_shape(task.init, jax.random.key(0), {})
    params, state = variables
    assert list(params) == ["encoder"] and list(state) == ["batch_stats"]
    assert task.head(variables) is None and task.frozen(params) is None
    ours, stats, architecture = task.encoder(variables)
    assert ours is params["encoder"] and stats is state["batch_stats"]["encoder"]
    assert architecture == models.create(task.config.model).architecture()


def test_it_says_that_it_trains_nothing(task):
    with pytest.raises(UserError, match="'encoder' trains nothing: set config.epochs"):
        task.loss(base.Variables({}, {}), {}, 0, jax.random.key(0))


def test_an_encoder_fills_every_network_and_nothing_else_changes(task):
    head, queue = jnp.ones(3), jnp.zeros(2)
    params = {"encoder": {"old": 0}, "head": head}
    state = {"batch_stats": {"encoder": {"old": 0}, "other": 1}, "queue": queue}
    old = {"params": {"old": 3}, "batch_stats": {"old": 4}}
    state["networks"] = {"key": {**old, "head": {"old": 5}}, "bare": old}
    weights, stats = {"new": 1}, {"new": 2}
    new = task.load_encoder(base.Variables(params, state), weights, stats)
    assert new.params["encoder"] is weights and new.params["head"] is head
    assert new.state["batch_stats"] == {"encoder": stats, "other": 1}
    network = {"params": weights, "batch_stats": stats}
    assert new.state["networks"] == {
        "key": {**network, "head": {"old": 5}},
        "bare": network,
    }
    new = task.load_head(new, {"new": 6})
    assert new.params == {"encoder": weights, "head": {"new": 6}}
    assert new.state["networks"] == {
        "key": {**network, "head": {"new": 6}},
        "bare": network,
    }
    assert new.state["queue"] is queue
    assert task.encoder(new)[:2] == (weights, stats)


def test_other_state_survives_training_and_evaluation_changes_none(task):
    shapes = jax.eval_shape(task.init, jax.random.key(0), {})
    params, state = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), shapes)
    state = {**state, "queue": jnp.ones(2)}
    clips = jnp.ones((1, 4, 32, 32, 3))

    def run(train):
        return task.features(base.Variables(params, state), clips, train)

    def evaluate():
        _, same = run(False)
        assert same is state

    jax.eval_shape(evaluate)
    _, changed = jax.jit(lambda: run(True))()
    assert changed.keys() == state.keys()
    np.testing.assert_array_equal(changed["queue"], 1)
    before = jax.tree.leaves(state["batch_stats"])
    for new, old in zip(jax.tree.leaves(changed["batch_stats"]), before, strict=True):
        assert (np.asarray(new) != np.asarray(old)).any()


def test_any_task_with_an_encoder_can_freeze_parts_of_it():
    config = made_sequences.make_config(freeze="stem+1")
    frozen = ctp.Task(config)
    params, state = made_sequences.make_variables(frozen)
    mask = frozen.frozen(params)
    assert mask is not None and mask.keys() == params.keys()
    assert not any(jax.tree.leaves(mask["head"]))
    clips = jax.random.uniform(jax.random.key(0), (2, 4, 32, 32, 3), maxval=255.0)

    def total(params):
        features, new = frozen.features(base.Variables(params, state), clips, True)
        return jnp.square(features.astype(jnp.float32)).sum(), new["batch_stats"]

    grads, stats = jax.jit(jax.grad(total, has_aux=True))(params)
    for name in params["encoder"]:
        still = name.startswith(("stem", "stage1"))
        assert all(each == still for each in jax.tree.leaves(mask["encoder"][name]))
        moves = any(
            np.abs(g).max() > 0 for g in jax.tree.leaves(grads["encoder"][name])
        )
        assert moves != still, name
        if name in stats["encoder"]:
            new, old = (
                s["encoder"][name]["mean"] for s in (stats, state["batch_stats"])
            )
            assert np.array_equal(new, old) == still, name
    config.freeze = "stem+5"
    with pytest.raises(UserError, match=r"config.freeze = 'stem\+5': needs one of ''"):
        ctp.Task(config)
    del config.freeze
    assert ctp.Task(config).frozen(params) is None
