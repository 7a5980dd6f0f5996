"""SpeedNet and Pace: which frames, which colours, labels, losses and steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from configs import pace as pace_config
from configs import speednet as speednet_config
from ctp_jax.data import clips
from ctp_jax.data.rng import Rng, count_uniforms
from ctp_jax.errors import UserError
from ctp_jax.tasks import base, pace
from tests.ops import test_colour
from tests.tasks import made_clips as made

CONFIGS = {"speednet": speednet_config, "pace": pace_config}


def make_task(name, **flat):
    return base.load(made.shrink(CONFIGS[name].get_config("data=none"), **flat))


def sample(task, num_frames, count, seed=0):
    """Frame numbers (count, c, t) and choices (count, c) of videos of one length."""
    spec, length = task.clip_spec(train=True), tf.constant(num_frames)
    needed = count_uniforms(lambda rng: clips.sample_times(rng, length, spec), [])
    numbers = np.random.default_rng(seed).random((count, needed), np.float32)
    graph = tf.function(
        lambda row: clips.sample_times(Rng(row), length, spec), autograph=False
    )
    found = [graph(tf.constant(row)) for row in numbers]
    return tuple(np.stack([each[i].numpy() for each in found]) for i in range(2))


def assert_uniform(values, count):
    shares = np.bincount(np.ravel(values), minlength=count) / np.size(values)
    assert len(shares) == count
    # Five standard errors.
    error = 5 * math.sqrt((1 / count) * (1 - 1 / count) / np.size(values))
    assert np.abs(shares - 1 / count).max() <= error


def looped(start, pace, length, frames):
    """The loop of the release of Pace: frame by frame, back to the first past the end."""
    found, now = [], start
    for _ in range(frames):
        found.append(now)
        now = now + pace if now + pace <= length - 1 else 0
    return found


def test_the_configs_have_the_published_numbers():
    speed = speednet_config.get_config()
    assert speed.clip.strides == (-4, -2, -1, 0, 1, 2, 4) and not speed.clip.jitter
    assert speed.clip.scales == (112, 128, 144) and speed.clip.flip == 0.5
    assert speed.optimizer.learning_rate == 0.01 and speed.batch_size == 32
    for data, epochs in (("ucf101", 180), ("kinetics400", 18)):
        config = pace_config.get_config(f"data={data}")
        rule = config.optimizer
        assert (config.epochs, rule.milestones) == (
            epochs,
            (epochs // 3, 2 * epochs // 3),
        )
        assert (rule.learning_rate, rule.weight_decay) == (0.001, 0.005)
        assert config.batch_size == 30


def test_classes_of_speednet_are_its_strides():
    task = make_task("speednet")
    assert task.class_names[:3] == ["4x backwards", "2x backwards", "1x backwards"]
    assert task.class_names[3:] == ["still", "1x", "2x", "4x"]
    times, choice = sample(task, 60, 1000)
    assert_uniform(choice, 7)
    # The stride is in the frames: three steps between four frames.
    steps = np.diff(times[:, 0], axis=1)
    wanted = np.array([-4, -2, -1, 0, 1, 2, 4])[choice]
    np.testing.assert_array_equal(steps, wanted.repeat(3, axis=1))
    still = times[choice[:, 0] == 3, 0, 0]
    assert still.min() == 0 and still.max() == 59  # anywhere
    plan = task.plan(Rng(tf.zeros((5, 9))), {"choice": choice[:5]}, True)
    np.testing.assert_array_equal(plan["label"], choice[:5, 0])


@pytest.mark.parametrize("num_frames", [1, 3, 4, 9, 40])
def test_pace_goes_on_with_the_first_frame(num_frames):
    times, choice = sample(make_task("pace"), num_frames, 400)
    assert_uniform(choice, 4)
    assert_uniform(times[:, 0, 0], num_frames)
    for clip, number in zip(times[:, 0], choice[:, 0], strict=True):
        assert clip.tolist() == looped(clip[0], number + 1, num_frames, 4)


def test_pace_without_wrapping_starts_where_it_fits():
    times, choice = sample(make_task("pace", **{"pace.wrap": False}), 12, 400)
    for number in range(4):
        span = 3 * (number + 1) + 1
        starts = times[choice[:, 0] == number, 0, 0]
        assert set(starts) == set(range(12 - span + 1 if span < 12 else 1))
    ends = np.minimum(times[:, :, :1] + (choice[..., None] + 1) * np.arange(4), 11)
    np.testing.assert_array_equal(times, ends)


def test_two_clips_of_a_video_have_different_paces():
    task = make_task("pace", **{"pace.contrast": 0.1})
    _, choice = sample(task, 30, 1000)
    assert_uniform(choice[:, 0], 4)
    assert_uniform((choice[:, 1] - choice[:, 0] - 1) % 4, 3)
    assert task.clip_spec(train=False).num_clips == 1
    batch = made.make_batch(task, train=True)
    np.testing.assert_array_equal(batch["plan"]["label"], batch["choice"])


def test_every_frame_of_pace_has_its_own_colours():
    task = make_task("pace")
    batch = jax.tree.map(np.asarray, made.make_batch(task, train=True))
    ours = np.asarray(jax.jit(task.draw)(batch))
    assert len(set(batch["plan"]["brightness"].ravel())) == made.VIDEOS * made.FRAMES
    for video, frame in np.ndindex(2, made.FRAMES):
        plain = np.float64(made.opencv_clip(batch, video, 0)[frame])
        plan = {k: v[video, 0, frame] for k, v in batch["plan"].items() if k != "label"}
        # Colour factors up to 1.8, one after the other, multiply OpenCV's rounding.
        error = np.abs(ours[video, 0, frame] - test_colour.jittered(plain, plan))
        assert np.median(error) < 1.0 and np.percentile(error, 95) < 6.0


CONTRAST = 0.3


def torch_network(weights):
    from torch import nn, tensor

    from tests.tasks import two_steps

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = two_steps.Encoder()
            self.head = two_steps.Dense(weights.params["head"])
            kernel = weights.params["projection"]["kernel"]
            self.projection = nn.Linear(*kernel.shape)

        def forward(self, clips, batch):
            pooled = self.encoder(clips.flatten(0, 1)).mean(dim=(2, 3, 4))
            label = tensor(batch["plan"]["label"]).long().flatten()
            loss = nn.functional.cross_entropy(self.head.classifier(pooled), label)
            return loss + CONTRAST * self.contrast(pooled)

        def contrast(self, pooled):
            """Clip by clip: the softmax of its partner among all others, T = 0.1."""
            units = nn.functional.normalize(self.projection(pooled))
            losses = []
            for one in range(len(units)):
                others = [other for other in range(len(units)) if other != one]
                partner = others.index(one + 1 if one % 2 == 0 else one - 1)
                cosines = units[others] @ units[one]
                losses.append(-(cosines / 0.1).log_softmax(0)[partner])
            return sum(losses) / len(losses)

    return Network()


def test_two_steps_of_pace_equal_torch():
    """Without its contrast, and of SpeedNet, they are those of `classification`."""
    pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    task = make_task("pace", **{"pace.contrast": CONTRAST})
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(2)]
    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, torch_network(weights), batches)


def test_the_loss_at_chance():
    assert make_task("speednet").chance_loss() == pytest.approx(math.log(7))
    task = make_task("pace", **{"pace.contrast": 0.5, "batch_size": 6})
    same = jnp.ones((12, 3))
    loss = 0.5 * float(pace.contrastive_loss(same, 0.1)) + math.log(4)
    assert task.chance_loss() == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "flat", "message"),
    [
        ("speednet", {"clip.strides": (1,)}, "at least two, all different"),
        ("speednet", {"clip.strides": (1, 2, 1)}, "at least two, all different"),
        ("pace", {"clip.strides": (0, 1)}, "paces are at least 1"),
        (
            "pace",
            {"pace.contrast": 0.1, "batch_size": 2, "optimizer.accumulate": 2},
            "batch_size / config.optimizer.accumulate = 1: config.pace.contrast needs .*larger",
        ),
    ],
)
def test_what_cannot_be_is_refused(name, flat, message):
    with pytest.raises(UserError, match=f"^config.*{message}"):
        make_task(name, **flat)
