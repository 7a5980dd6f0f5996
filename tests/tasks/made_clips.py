"""Clips, splits and weights for the tests of recognition, small and with plans."""

import collections
from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf

from configs import common
from ctp_jax.data import clips
from ctp_jax.data import rng as rng_lib
from ctp_jax.tasks import recognition
from tests import opencv_drawing

HEIGHT, WIDTH, VIDEOS, CLIPS, SIZE, FRAMES = 40, 60, 4, 3, 32, 4
LENGTH = 99  # frames of a video, for tasks that choose them
CLASSES = ("jump", "run", "sit")


def make_config(**flat):
    config = common.finetune(
        "none", split="train", eval_split="", num_classes=0, epochs=1, milestones=()
    )
    config.clip.size, config.clip.num_frames = SIZE, FRAMES
    config.clip.scales, config.clip.flip = ((48, 34), (51, 38)), 0.5
    config.test.scales, config.test.num_clips = ((48, 36),), CLIPS
    config.colour.brightness = config.colour.contrast = 1.0
    config.colour.hue_saturation = 1.0
    config.model.width, config.model.conv = 0.03, "direct"
    config.head.dropout, config.head.init_std = 0.0, 0.5
    config.update_from_flattened_dict(flat)
    return config


class Split(SimpleNamespace):
    """What a task reads of `ctp_jax.data.records.Records`."""

    def __len__(self):
        return len(self.label)


def make_split(labels, split="train", class_names=CLASSES):
    ids = np.array([f"{split}{i}".encode() for i in range(len(labels))])
    return Split(
        name="made",
        split=split,
        label=np.array(labels),
        class_names=class_names,
        id_bytes=ids,
    )


def make_task(**flat):
    task = recognition.Task(make_config(**flat))
    task.see_data(make_split([0, 1, 2, 0]), make_split([1, 2], "test"))
    return task


def make_batch(task, train, seed=0):
    """Busy frames in windows of the task's, with a plan of its own."""
    rng = np.random.default_rng(seed)
    spec = task.clip_spec(train)
    shape = (VIDEOS, spec.num_clips, spec.num_frames)
    coarse = rng.integers(0, 256, (*shape, 5, 8, 3), np.uint8)
    frames = np.zeros((*shape, HEIGHT, WIDTH, 3), np.uint8)
    for at in np.ndindex(shape):
        frames[at] = cv2.resize(coarse[at], (WIDTH, HEIGHT))
    windows, flips = [], []
    for _ in range(VIDEOS):
        numbers = rng_lib.Rng(tf.constant(rng.random(32, np.float32)))
        window, flip = clips.sample_window(
            numbers, tf.constant(HEIGHT), tf.constant(WIDTH), spec
        )
        windows.append(window.numpy())
        flips.append(flip.numpy())
    batch = {
        "frames": frames,
        "extent": np.tile(np.float32([HEIGHT, WIDTH]), (*shape[:2], 1)),
        "window": np.stack(windows),
        "flip": np.stack(flips),
        "label": rng.integers(0, len(CLASSES), VIDEOS).astype(np.int32),
        "mask": np.ones(VIDEOS, np.float32),
    }
    choice = np.arange(seed, seed + VIDEOS * spec.num_clips) % len(spec.strides)
    batch["choice"] = choice.reshape(shape[:2]).astype(np.int32)
    if spec.frame_numbers is not None:
        drawn = draw_frames(task, [LENGTH], VIDEOS, seed, train)
        batch["times"], batch["choice"] = drawn[0]
    plan = make_plan(task, batch, rng, train)
    return jax.tree.map(jnp.asarray, batch | {"plan": plan})


def draw_frames(task, num_frames, count, seed=0, train=True):
    """Frame numbers and `choice` of a task's clips, for `count` videos of every length.

    Returns:
        For every length, in order: int32 (count, c, t) and (count, c).
    """
    spec, some = task.clip_spec(train), tf.constant(99)
    used = rng_lib.count_uniforms(lambda d: clips.sample_times(d, some, spec), ())
    rows = len(num_frames) * count
    numbers = np.random.default_rng(seed).random((rows, used), np.float32)
    lengths = np.repeat(np.array(num_frames, np.int32), count)

    @tf.function(autograph=False)
    def draw(*rows):
        return tf.vectorized_map(
            lambda row: clips.sample_times(rng_lib.Rng(row[0]), row[1], spec), rows
        )

    parts = (np.split(each.numpy(), len(num_frames)) for each in draw(numbers, lengths))
    return list(zip(*parts, strict=True))


def assert_distribution(found, probabilities):
    """Asserts that outcomes, hashable, occur as often as they should.

    Args:
        found: those drawn.
        probabilities: of every outcome that is possible, by outcome.
    """
    counts = collections.Counter(found := list(found))
    assert set(counts) <= set(probabilities), set(counts) - set(probabilities)
    assert abs(sum(probabilities.values()) - 1) < 1e-9
    # Pearson's statistic: five standard deviations of a chi-squared.
    expected = {each: len(found) * p for each, p in probabilities.items()}
    statistic = sum((counts[each] - e) ** 2 / e for each, e in expected.items())
    freedom = len(expected) - 1
    assert abs(statistic - freedom) <= 5 * np.sqrt(2 * freedom), (statistic, freedom)


def shrink(config, **flat):
    """A config for the tests of pretext tasks: tiny clips and network, no dropout."""
    config.clip.size, config.clip.num_frames = SIZE, FRAMES
    config.clip.scales = ((48, 34), (51, 38))
    config.model.name, config.model.width = "tests.tiny_network", 0.25
    head = {"dropout": 0.0, "init_std": 0.5}
    if "head" in config:
        config.head.update({name: head[name] for name in head if name in config.head})
    config.update_from_flattened_dict(flat)
    return config


def make_plan(task, batch, rng, train=True):
    """What the task plans for a batch of NumPy arrays, as NumPy arrays."""
    videos = len(batch["choice"])
    count = rng_lib.count_uniforms(lambda d: task.plan(d, batch, train), [videos])
    numbers = rng_lib.Rng(tf.constant(rng.random((videos, count), np.float32)))
    plan = task.plan(numbers, batch, train)
    return {name: np.asarray(value) for name, value in plan.items()}


def opencv_clip(batch, video, clip):
    return opencv_drawing.scale_and_crop(
        *(
            np.asarray(batch[name][video, clip])
            for name in ("frames", "window", "flip")
        ),
        SIZE,
    )


def opencv_colours(clip, plan, order="brightness contrast hue"):
    out = []
    for t, frame in enumerate(clip):
        for change in order.split():
            if change == "brightness":
                frame = np.clip(frame + plan["brightness"][t], 0, 255)
            elif change == "contrast":
                frame = np.clip(frame * plan["contrast"][t], 0, 255)
            else:
                hsv = cv2.cvtColor(np.float32(frame) / 255, cv2.COLOR_RGB2HSV)
                hsv[..., 0] -= 360 * (hsv[..., 0] >= 359)
                hsv[..., 0] = np.clip(hsv[..., 0] + plan["hue"], 0, 358)
                hsv[..., 1] = np.clip(hsv[..., 1] * plan["saturation"], 0, 1)
                frame = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        out.append(frame)
    return np.stack(out)


def normalized(clip):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return np.float32((np.float64(clip) / 255 - mean) / std)


def make_weights(task, batch=None):
    """Kaiming kernels; scales, biases and statistics away from 1 and 0."""
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch or {})
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        kind = path[-1].key
        if kind == "kernel":
            return jnp.asarray(
                noise * np.float32(np.sqrt(2 * leaf.shape[-1] / leaf.size))
            )
        return jnp.asarray(
            np.exp(0.2 * noise) if kind in ("scale", "var") else 0.1 * noise
        )

    return jax.tree_util.tree_map_with_path(draw, shapes)
