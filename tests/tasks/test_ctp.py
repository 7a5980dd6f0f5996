"""The Catch-the-Patch task against OpenCV and brute force, on planned batches."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from configs import common
from ctp_jax.data import clips
from ctp_jax.data import rng as rng_lib
from ctp_jax.errors import UserError
from ctp_jax.ops import boxes as box_ops
from ctp_jax.tasks import base, ctp
from tests import opencv_drawing
from tests.tasks import made_clips

HEIGHT, WIDTH, VIDEOS = 72, 96, 6


def make_config(**changes):
    config = common.pretrain(
        "none", split="train", eval_split="", epochs=1, milestones=()
    )
    config.clip.size, config.clip.scales = 56, (56, 64, 72)
    config.clip.num_frames = 8
    config.game.scales = (8.0, 12.0, 16.0, 24.0, 32.0)
    # The network is not the subject.
    config.model.name = "tests.tiny_network"
    config.model.width, config.head.channels = 0.125, 32
    config.colour.hue_saturation = 1.0
    config.colour.brightness = config.colour.contrast = 1.0
    config.update(changes)
    return config


def make_batch(task, seed=0):
    """A batch of noise-free but busy frames, with a plan of the task's own."""
    rng = np.random.default_rng(seed)
    spec = task.clip_spec(True)
    coarse = rng.integers(0, 256, (VIDEOS, spec.num_frames, 9, 12, 3), np.uint8)
    frames = np.stack(
        [[cv2.resize(f, (WIDTH, HEIGHT)) for f in video] for video in coarse]
    )
    windows, flips = [], []
    for _ in range(VIDEOS):
        numbers = rng_lib.Rng(tf.constant(rng.random(8, np.float32)))
        window, flip = clips.sample_window(
            numbers, tf.constant(HEIGHT), tf.constant(WIDTH), spec
        )
        windows.append(window.numpy())
        flips.append(flip.numpy())
    batch = {
        "frames": frames[:, None],
        "extent": np.tile(np.float32([HEIGHT, WIDTH]), (VIDEOS, 1, 1)),
        "window": np.stack(windows),
        "flip": np.stack(flips),
        "mask": np.ones(VIDEOS, np.float32),
    }
    count = rng_lib.count_uniforms(lambda d: task.plan(d, {}, True))
    numbers = rng_lib.Rng(tf.constant(rng.random((VIDEOS, count), np.float32)))
    plan = {name: v.numpy() for name, v in task.plan(numbers, {}, True).items()}
    return jax.tree.map(jnp.asarray, batch | {"plan": plan})


@pytest.fixture(scope="module")
def task():
    return ctp.Task(make_config())


@pytest.fixture(scope="module")
def batch(task):
    return make_batch(task)


@pytest.fixture(scope="module")
def state(task, batch):
    # Not those of `init`: the last layer starts near zero, where errors would hide.
    return made_clips.make_weights(task, batch)


def test_the_drawn_clip_is_within_one_grey_level_of_opencv(task, batch):
    ours = np.asarray(jax.jit(task.draw)(batch))[:, 0]
    assert ours.shape == (VIDEOS, 8, 56, 56, 3)
    worst = 0.0
    for video in range(VIDEOS):
        plan = {name: np.asarray(v[video]) for name, v in batch["plan"].items()}
        frames, window, flip = (
            np.asarray(batch[name][video, 0]) for name in ("frames", "window", "flip")
        )
        clip = opencv_drawing.scale_and_crop(frames, window, flip, 56)
        clip = opencv_drawing.change_colours(opencv_drawing.paste(clip, plan), plan)
        worst = max(worst, np.abs(ours[video] - clip).max())
    assert worst < 1.0


def brute_force_loss(deltas, trajectories, scale):
    """Loops in float64 over (clip, trajectory, frame)."""
    totals, count = np.zeros(2), 0
    for clip in range(trajectories.shape[0]):
        for trajectory, prediction in zip(
            trajectories[clip], deltas[clip], strict=True
        ):
            x1, y1, x2, y2 = trajectory[0].astype(float)
            w1, h1 = max(x2 - x1, 1), max(y2 - y1, 1)
            centre1 = (x1 + x2) / 2, (y1 + y2) / 2
            for box, guess in zip(trajectory, prediction, strict=True):
                x1, y1, x2, y2 = box.astype(float)
                targets = [
                    ((x1 + x2) / 2 - centre1[0]) / scale[0],
                    ((y1 + y2) / 2 - centre1[1]) / scale[1],
                    np.log(max(x2 - x1, 1) / w1) / scale[2],
                    np.log(max(y2 - y1, 1) / h1) / scale[3],
                ]
                for term in range(4):
                    error = abs(float(guess[term]) - targets[term])
                    smooth = 0.5 * error**2 if error < 1 else error - 0.5
                    totals[term // 2] += smooth
                count += 1
    return totals / count


def test_losses_and_iou_equal_brute_force(task, batch, state):
    loss, output = jax.jit(task.loss)(state, batch, 0, jax.random.key(1))

    @jax.jit
    def forward(variables, batch):
        clips, query = task.draw(batch)[:, 0], task.targets(batch).query
        features, _ = task.features(variables, clips, train=True)
        return task.trajectories(variables, features, query)[0]

    deltas = forward(state, batch)
    truth = np.asarray(batch["plan"]["boxes"])
    expected = brute_force_loss(np.asarray(deltas), truth, (0.8, 0.8, 0.04, 0.04))
    metrics = output.metrics
    assert float(metrics["loss_center"]) == pytest.approx(expected[0], rel=1e-5)
    assert float(metrics["loss_size"]) == pytest.approx(expected[1], rel=1e-5)
    assert float(loss) == pytest.approx(expected.sum(), rel=1e-5)


def test_perfect_deltas_give_the_true_boxes(batch):
    truth = jnp.asarray(batch["plan"]["boxes"])
    scale = (0.8, 0.8, 0.04, 0.04)
    targets = box_ops.encode_trajectory_xyxy(truth, truth[..., 0, :], scale)
    assert sum(ctp.regression_losses(targets, targets)) == 0
    decoded = box_ops.decode_trajectory_xyxy(targets, truth[..., 0, :], scale)
    assert float(box_ops.iou_xyxy(decoded, truth).min()) > 0.999


@pytest.mark.slow
def test_a_step_of_gradient_descent_helps(task, batch, state):
    # Everything is an argument: XLA computes what it can of constants, and takes long.
    @jax.jit
    @jax.value_and_grad
    def loss_and_grad(params, model_state, batch):
        variables = base.Variables(params, model_state)
        return task.loss(variables, batch, 0, jax.random.key(1))[0]

    before, grads = loss_and_grad(state.params, state.state, batch)
    lower = jax.tree.map(lambda p, g: p - 1e-4 * g, state.params, grads)
    after, _ = loss_and_grad(lower, state.state, batch)
    assert float(after) < float(before)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads["head"]))


@pytest.mark.slow
def test_prediction_uses_the_running_statistics(task, batch, state):
    predict = jax.jit(task.predict)
    outputs = predict(state, batch)
    assert outputs["predicted"].shape == (VIDEOS, 3, 8, 4)
    alone = jax.tree.map(lambda x: x[:2], batch)
    again = predict(state, alone)
    np.testing.assert_allclose(
        again["predicted"], outputs["predicted"][:2], rtol=1e-3, atol=1e-2
    )


def test_the_encoder_moves_between_strides(task, batch, state):
    encoder_params, stats, architecture = task.encoder(state)
    other_config = make_config()
    other_config.model.spatial_strides = (1, 2, 2, 2)
    other = ctp.Task(other_config)
    fresh = jax.eval_shape(other.init, jax.random.key(5), batch)
    other.check_encoder(architecture)
    params, model_state = other.load_encoder(fresh, encoder_params, stats)
    for ours, theirs in zip(
        jax.tree.leaves(params["encoder"]), jax.tree.leaves(encoder_params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert model_state["batch_stats"]["encoder"] is stats


def test_an_encoder_of_another_width_is_refused(task, batch, state):
    _, _, architecture = task.encoder(state)
    other_config = make_config()
    other_config.model.width = 0.25
    other = ctp.Task(other_config)
    with pytest.raises(UserError, match=r"width is 0\.125, .* 0\.25"):
        other.check_encoder(architecture)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clip.size", 0, "at least 8 pixels"),
        ("model.name", "r3d34", "r3d18, r2plus1d18"),
    ],
)
def test_contradictions_are_refused(field, value, message):
    config = make_config()
    group, name = field.split(".")
    config[group][name] = value
    with pytest.raises(UserError, match=message):
        ctp.Task(config)


def test_tasks_are_found_by_name():
    assert isinstance(base.load(make_config()), ctp.Task)
    with pytest.raises(UserError, match=r"'ctpp': no such task; choose one of cep, "):
        base.load(make_config(task="ctpp"))


def test_weights_choose_what_counts():
    """Brute force over the boxes that count; a query box of another frame."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 30, (2, 3, 4, 2))
    truth = np.concatenate([low, low + rng.uniform(4, 20, low.shape)], -1)
    deltas = rng.normal(0, 2, truth.shape)
    weights = rng.random((2, 3, 4)) < 0.5
    query, scale = truth[:, :, 2], (0.8, 0.8, 0.04, 0.04)
    wanted = box_ops.encode_trajectory_xyxy(
        jnp.asarray(truth), jnp.asarray(query), scale
    )
    got = ctp.regression_losses(jnp.asarray(deltas), wanted, jnp.float32(weights))
    totals = np.zeros(2)
    for at in np.argwhere(weights):
        at = tuple(at)
        pair = np.stack([query[at[:2]], truth[at]])[None, None]
        guess = np.stack([np.zeros(4), deltas[at]])[None, None]
        # The first of the two boxes is the query itself, without an error.
        totals += 2 * brute_force_loss(guess, pair, scale)
    np.testing.assert_allclose(got, totals / weights.sum(), rtol=1e-4)
    nothing = ctp.regression_losses(jnp.asarray(deltas), wanted, jnp.zeros((2, 3, 4)))
    assert nothing == (0, 0)
