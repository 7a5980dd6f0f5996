"""Cycles against float64 NumPy, with a network of two lines in place of the encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import small
from ctp_jax.ops import boxes as box_ops
from ctp_jax.tasks import base, ctp

VIDEOS, BOXES, FRAMES, SIZE = 8, 2, 4, 16
SCALE = (0.8, 0.8, 0.04, 0.04)


class Task(ctp.Task):
    """Features are the batch-normalised brightness of every frame."""

    def draw(self, batch):
        return batch["clips"]

    def apply_encoder(self, params, batch_stats, clips, train):
        levels = clips.mean(axis=(2, 3, 4), keepdims=True) / 255  # (b, t, 1, 1, 1)
        mean = levels.mean()
        return jnp.tanh(params * (levels - mean)), batch_stats + mean

    def trajectories(self, variables, features, query):
        weights = variables.params["head"]  # (t, t, 4)
        reach = (query[..., 2:].sum(-1) / SIZE)[..., None, None]  # (b, n, 1, 1)
        deltas = jnp.einsum("bt...,tik->bik", features, weights)[:, None] * reach
        return deltas, box_ops.decode_trajectory_xyxy(deltas, query, SCALE)


def brute_force(params, batch, labels=None):
    """(loss, classical loss, labels, static) for rows of one game and three cycles.

    The given `labels` are constants, as the gradient sees them.
    """
    encoder, head = params

    def locate(clips, query):
        levels = clips.mean(axis=(2, 3, 4)) / 255
        features = np.tanh(encoder * (levels - levels.mean()))
        reach = (query[..., 2:].sum(-1) / SIZE)[..., None, None]
        deltas = np.einsum("bt,tik->bik", features, head)[:, None] * reach
        return deltas, decode(deltas, query)

    def decode(deltas, query):
        first = query[:, :, None]
        sides = first[..., 2:] - first[..., :2]
        centre = (first[..., :2] + first[..., 2:]) / 2 + deltas[..., :2] * SCALE[:2]
        sides = sides * np.exp(deltas[..., 2:] * SCALE[2:])
        return np.concatenate([centre - sides / 2, centre + sides / 2], -1)

    def encode(boxes, query):
        def split(b):
            return (b[..., :2] + b[..., 2:]) / 2, np.maximum(b[..., 2:] - b[..., :2], 1)

        (centre, sides), (first, own) = split(boxes), split(query[:, :, None])
        change = [(centre - first) / SCALE[:2], np.log(sides / own) / SCALE[2:]]
        return np.concatenate(change, -1)

    def smooth(error):
        size = abs(error)
        return np.where(size < 1, size**2 / 2, size - 0.5).sum(-1)

    clips = np.float64(batch["clips"][:, 0])
    truth = np.float64(batch["plan"]["truth"]).copy()
    query = truth[:, :, 0].copy()
    deltas, there = locate(clips, query)
    cycles = [row for row in range(VIDEOS) if row % 4]
    last = there[cycles][:, :, -1]
    for at in np.ndindex(last.shape[:2]):
        row = last[at]
        for axis in range(2):
            row[axis] = min(max(row[axis], 0), SIZE - 4)
            row[axis + 2] = min(max(row[axis + 2], row[axis] + 4), SIZE)
    _, back = locate(clips[cycles][:, ::-1], last)
    if labels is None:  # as they move from where they end, but from the query
        labels = decode(encode(back[:, :, ::-1], back[:, :, -1]), query[cycles])
    truth[cycles] = labels
    loss = smooth(deltas - encode(truth, query)).mean()
    classical = smooth(encode(back[:, :, -1:], query[cycles])).mean() * 0.75
    moved = abs(there[cycles][:, :, -1] - query[cycles]).max(-1)
    return loss, classical, labels, (moved < 1).mean()


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 8, (VIDEOS, BOXES, FRAMES, 2))
    weights = np.ones((VIDEOS, BOXES, FRAMES))
    weights[np.arange(VIDEOS) % 4 > 0, :, 1:] = 0
    boxes = np.concatenate([low, low + rng.uniform(4, 8, low.shape)], -1)
    clips = rng.uniform(0, 255, (VIDEOS, 1, FRAMES, 3, 3, 3)) * rng.random(
        (VIDEOS, 1, FRAMES, 1, 1, 1)
    )
    plan = {"truth": boxes, "boxes": boxes, "weights": weights}
    # `s` of the clips is that of the frame, which `cut_to_frame` needs.
    clips = np.tile(clips.mean(axis=(3, 4), keepdims=True), (1, 1, 1, SIZE, SIZE, 1))
    return jax.tree.map(jnp.float32, {"clips": clips, "plan": plan})


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    return np.float64(1.5), rng.normal(0, [3, 3, 4, 4], (FRAMES, FRAMES, 4))


def make_task(cycle_loss, kind=Task):
    config = small.get_config("truth=cycle")
    config.clip.num_frames, config.model.name = FRAMES, "tests.tiny_network"
    config.head.target_scale = SCALE
    config.truth.cycle_loss = cycle_loss
    return kind(config)


def labels_of(task, params, batch):
    """What the clips with cycles are to predict."""
    params = dict(zip(("encoder", "head"), params, strict=True))
    state = {"batch_stats": {"encoder": jnp.zeros(())}}
    variables, truth = base.Variables(params, state), task.targets(batch)
    clips = task.draw(batch)[:, 0]
    features, _ = task.features(variables, clips, train=True)
    predicted = task.trajectories(variables, features, truth.query)[1]
    wanted, _ = task._close_cycles(variables, clips, truth, predicted)
    return np.asarray(wanted.boxes)[np.arange(VIDEOS) % 4 > 0]


class Sees(Task):
    """Its boxes are around what is bright, as large as the query."""

    def apply_encoder(self, params, batch_stats, clips, train):
        at = jnp.stack(jnp.meshgrid(*[jnp.arange(SIZE) + 0.5] * 2), axis=-1)
        light = clips.mean(-1, keepdims=True)
        sums = [each.sum((2, 3), keepdims=True) for each in (light * at, light)]
        return sums[0] / sums[1], batch_stats  # (b, t, 1, 1, 2)

    def trajectories(self, variables, features, query):
        half = (query[..., 2:] - query[..., :2])[:, :, None] / 2
        centre = features[:, None, :, 0, 0]
        return 0 * centre, jnp.concatenate([centre - half, centre + half], axis=-1)


def test_the_label_of_a_moving_square_is_its_track():
    corner = np.array([2, 4]) + np.arange(FRAMES)[:, None] * [3, 1]  # of 3 x 5 pixels
    clip = np.zeros((FRAMES, SIZE, SIZE, 3), np.float32)
    for frame, (x, y) in zip(clip, corner, strict=True):
        frame[y : y + 5, x : x + 3] = 200
    track = np.concatenate([corner, corner + [3, 5]], axis=-1)
    boxes = np.tile(np.float32(track), (VIDEOS, 1, 1, 1))
    plan = {"truth": boxes, "boxes": boxes, "weights": np.ones(boxes.shape[:3])}
    batch = {"clips": np.tile(clip, (VIDEOS, 1, 1, 1, 1, 1)), "plan": plan}
    labels = labels_of(
        make_task(0.0, Sees), (0.0, 0.0), jax.tree.map(jnp.asarray, batch)
    )
    np.testing.assert_allclose(labels, boxes[: len(labels)], atol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_losses_labels_and_gradients_equal_brute_force(batch, params, weight):
    task = make_task(weight)

    def loss(encoder, head):
        params = {"encoder": encoder, "head": head}
        variables = base.Variables(params, {"batch_stats": {"encoder": jnp.zeros(())}})
        return task.loss(variables, batch, 0, jax.random.key(0))

    given = jax.tree.map(jnp.float32, params)
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, output), gradients = run(*given)
    main, classical, labels, static = brute_force(params, batch)
    assert 0 < static < 1
    assert float(value) == pytest.approx(main + weight * classical, rel=1e-4)
    np.testing.assert_allclose(labels_of(task, given, batch), labels, rtol=1e-4)
    metrics = {name: float(each) for name, each in output.metrics.items()}
    assert metrics["loss"] == float(value)
    assert metrics["cycle_static"] == pytest.approx(static)
    assert metrics["cycle_gap"] * 0.75 == pytest.approx(classical, rel=1e-4)
    both = 0.25 * metrics["loss_preset"] + 0.75 * metrics["loss_cycle"]
    assert both == pytest.approx(main, rel=1e-4)
    # The running statistics see the forward pass alone, and all clips of it.
    mean = np.float64(batch["clips"]).mean() / 255
    assert float(output.state["batch_stats"]["encoder"]) == pytest.approx(
        mean, rel=1e-5
    )

    def total(encoder, head):
        """With the labels held, as no gradient goes through them."""
        main, classical, *_ = brute_force((encoder, head), batch, labels)
        return main + weight * classical

    encoder, head = params
    step = 1e-5
    slope = (total(encoder + step, head) - total(encoder - step, head)) / (2 * step)
    assert float(gradients[0]) == pytest.approx(slope, rel=2e-3)
    for at in ((0, 0, 0), (1, 2, 1), (2, 3, 2), (3, 1, 3), (0, 3, 0)):
        move = np.zeros_like(head)
        move[at] = step
        slope = (total(encoder, head + move) - total(encoder, head - move)) / (2 * step)
        assert float(gradients[1][at]) == pytest.approx(slope, rel=2e-3, abs=1e-4)
