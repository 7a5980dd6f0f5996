"""MoCo, and the momentum encoder and queue that it shares: against PyTorch and NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import moco as moco_config
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.tasks import base
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import state as state_lib
from ctp_jax.train import step as step_lib
from tests.tasks import made_clips as made

QUEUE = 2 * made.VIDEOS


def make_task(**flat):
    config = made.shrink(moco_config.get_config("data=none"))
    config.colour.brightness = config.colour.contrast = 1.0  # always changed
    config.colour.hue_saturation = 1.0
    config.batch_size = made.VIDEOS
    config.contrast.queue, config.contrast.dim = QUEUE, 8
    # So large a share moves that a wrong order shows.
    config.contrast.momentum = 0.6
    config.update_from_flattened_dict(flat)
    return base.load(config)


def torch_network(task, weights):
    """MoCo as the release orders it: the key network moves before it computes keys."""
    import torch
    from torch.nn.functional import cross_entropy

    from tests.tasks import two_steps

    class Network(two_steps.Momentum):
        def forward(self, clips, batch):
            query = self.embed(clips[:, 0])
            key = self.embed_keys(clips[:, 1])
            own = (query * key).sum(1, keepdim=True)
            logits = torch.cat([own, query @ self.queue.T], 1)
            self.enter(key)
            return self.loss_of(logits / task.config.contrast.temperature, batch)

        def loss_of(self, logits, batch):
            return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))

    return Network(task, two_steps.Dense(weights.params["head"]))


@pytest.mark.slow
def test_three_steps_equal_torch():
    """Losses, both networks, the queue and its pointer, which comes round."""
    pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    task = make_task()
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(3)]
    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, torch_network(task, weights), batches)


def test_query_and_key_have_clips_and_colours_of_their_own():
    task = make_task()
    batch = made.make_batch(task, train=True)
    plan = batch["plan"]
    ours = np.asarray(jax.jit(task.draw)(batch))
    for video, clip in itertools.product(range(made.VIDEOS), range(2)):
        own = {name: np.asarray(rows[video, clip]) for name, rows in plan.items()}
        want = made.opencv_colours(made.opencv_clip(batch, video, clip), own)
        assert np.abs(ours[video, clip] - want).max() < 1.0
    assert not np.allclose(plan["brightness"][:, 0], plan["brightness"][:, 1])
    spec = task.clip_spec(train=True)
    assert (spec.num_clips, spec.sampling, spec.shared_window) == (2, "random", False)


def test_keys_in_groups_are_normalised_with_other_clips_than_their_queries():
    """BatchNorm in two groups of two: every division of four clips, each as often."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    task = make_task(**{"model.batch_norm_groups": 2})
    weights = two_steps.make_weights(task, made.make_batch(task, train=True))
    state = jax.tree.map(jnp.asarray, weights.state)
    clips = 255 * np.random.default_rng(0).random((4, 4, 32, 32, 3), np.float32)
    network = torch_network(task, weights).double().train()
    network_state = weights.state["networks"]["key"]
    two_steps.copy(network_state["params"], network.encoder)
    two_steps.copy(network_state["head"], network.head)
    seen = torch.tensor(np.moveaxis(np.float64(made.normalized(clips)), -1, 1))
    divisions = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    wanted = []
    for division in divisions:
        rows = torch.zeros(4, 8, dtype=torch.float64)
        for group in map(list, division):
            rows[group] = network.embed(seen[group]).detach()
        wanted.append(rows.numpy())
    key = jax.jit(lambda rng: task.key(state, jnp.asarray(clips), rng)[0])
    count = np.zeros(3, int)
    for seed in range(60):
        errors = np.abs(np.stack(wanted) - np.asarray(key(jax.random.key(seed)))).max(
            axis=(1, 2)
        )
        assert min(errors) < 1e-3 < sorted(errors)[1] / 10
        count[errors.argmin()] += 1
    # Five standard deviations of a binomial.
    assert np.abs(count - 20).max() < 5 * np.sqrt(60 * 2 / 9)


def test_a_batch_in_parts_enters_the_queue_as_a_whole():
    """Of two parts: losses against the queue before both, keys in the batch's order."""
    task = make_task()
    batch = made.make_batch(task, train=True)
    weights = jax.jit(task.init)(jax.random.key(0), batch)
    clips = jnp.asarray(jax.jit(task.draw)(batch))
    old, pointer = np.asarray(weights.state["queue"]["key"], np.float64), made.VIDEOS
    state = {**weights.state, "pointer": jnp.int32(pointer)}

    @jax.jit
    def embed(state, pair):
        query, _ = task.query(base.Variables(weights.params, state), pair[:, 0])
        return query, *task.key(state, pair[:, 1], jax.random.key(0))

    losses, wanted, after = [], old.copy(), state
    for part in range(2):
        query, key, after = embed(after, clips[part::2])
        query, key = np.float64(query), np.float64(key)
        logits = np.c_[(query * key).sum(1), query @ old.T] / 0.2
        losses.append(np.log(np.exp(logits).sum(1)) - logits[:, 0])
        wanted[pointer + part : pointer + made.VIDEOS : 2] = key
    chain = optax.sgd(0.0)
    run = step_lib.make_train_step(
        task, chain, lambda count: 0.0, 0, mesh_lib.one_device(), accumulate=2
    )
    start = jax.tree.map(jnp.copy, (weights.params, state))
    given = state_lib.TrainState(jnp.int32(0), *start, chain.init(weights.params))
    found, metrics = run(given, batch)
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-3)
    found = found.model_state
    np.testing.assert_allclose(found["queue"]["key"], wanted, atol=1e-3)
    assert found["pointer"] == 0  # it has come round
    # Statistics of both parts, one after the other.
    for ours, theirs, first in zip(
        *(
            jax.tree.leaves(each["networks"]["key"]["batch_stats"])
            for each in (found, after, state)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
        assert not np.allclose(ours, first, atol=1e-4)


def test_sizes_and_initialisation_are_those_of_the_release():
    features = jnp.zeros((1, 2, 1, 1, 512))
    head = heads.ProjectionHead()
    params = jax.jit(lambda rng: head.init(rng, features, False))(jax.random.key(0))
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) == 328_320
    for leaf in leaves:  # PyTorch's default: uniform in +-1/sqrt(512)
        assert 0.9 < np.abs(leaf).max() * np.sqrt(512) <= 1
        assert np.std(leaf) == pytest.approx(1 / np.sqrt(3 * 512), rel=0.2)
    config = moco_config.get_config("data=kinetics400")
    assert (config.contrast.queue, config.contrast.temperature) == (65536, 0.2)
    for data, queue in {"kinetics400_flow": 65536, "ucf101": 2048}.items():
        assert moco_config.get_config(f"data={data}").contrast.queue == queue
    task = make_task(**{"contrast.dim": 128})
    batch = made.make_batch(task, train=True)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    queue = np.asarray(variables.state["queue"]["key"], np.float64)
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1.0, rtol=1e-6)
    jax.tree.map(
        np.testing.assert_array_equal,
        variables.params["encoder"],
        variables.state["networks"]["key"]["params"],
    )
    assert task.chance_loss() == np.log(1 + QUEUE)
    found = jax.eval_shape(task.predict, variables, batch)["embedding"]
    assert found.shape == (made.VIDEOS, 2, 128)


def test_a_queue_that_the_batch_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"queue = 10 is .*batch_size = 4, .* use 8, "):
        make_task(**{"contrast.queue": 10})
