"""Which frames a clip has, against the rules written out in Python."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ctp_jax.data import clips
from ctp_jax.data.batch import ClipSpec
from ctp_jax.data.rng import Rng, count_uniforms

ORDERED = ClipSpec(3, 16, 112, sampling="ordered", gap=8)


def sample(spec, num_frames, numbers):
    """(times, choice) of one video, NumPy."""
    rng = Rng(tf.constant(numbers, tf.float32))
    found = clips.sample_times(rng, tf.constant(num_frames), spec)
    return tuple(value.numpy() for value in found)


def count_of(spec):
    return count_uniforms(lambda r: clips.sample_times(r, tf.constant(99), spec))


def vcop_starts(num_frames, u):
    """The release's rule for three clips of 16 frames, with a uniform number."""
    average = (num_frames - 48) // 2
    if average > 0:
        gap = min(8, average)
        start = int(u * (num_frames - 48 - 2 * gap + 1))
        return [start + i * (16 + gap) for i in range(3)]
    d = max(num_frames - 15, 0)
    return [int(d / 6 + i * d / 3) for i in range(3)]


@pytest.mark.parametrize(
    "num_frames", [1, 15, 16, 17, 30, 47, 48, 49, 50, 51, 63, 64, 200]
)
def test_ordered_clips_follow_the_releases_rule(num_frames):
    for u in (0.0, 0.3, 0.999):
        times, choice = sample(ORDERED, num_frames, np.full(count_of(ORDERED), u))
        starts = vcop_starts(num_frames, u)
        expected = np.add.outer(starts, np.arange(16)).clip(max=num_frames - 1)
        np.testing.assert_array_equal(times, expected)
        assert choice.tolist() == [0, 0, 0]


def test_frames_are_scaled_to_the_size_of_the_release():
    """To the pixel, halves and rounding errors included: the release's expression."""
    sizes = np.array([(h, w) for h in range(90, 300, 7) for w in range(90, 500)])
    for scale in (112, 128, 144):
        found = clips._scaled_size(*tf.unstack(tf.constant(sizes), axis=1), scale)
        factors = [float(scale) / min(size) for size in sizes.tolist()]
        expected = [
            [int(round(side * factor)) for side in size]  # noqa: RUF046
            for size, factor in zip(sizes.tolist(), factors, strict=True)
        ]
        np.testing.assert_array_equal(found, expected)


def test_strides_run_backwards_stand_still_and_are_told():
    strides = (-4, -2, -1, 0, 1, 2, 4)
    spec = ClipSpec(1, 16, 112, strides=strides)
    seen, count = set(), count_of(spec)
    rng = np.random.default_rng(0)
    for _ in range(200):
        numbers = rng.random(count, np.float32)
        (times,), (choice,) = sample(spec, 70, numbers)
        stride = strides[choice]
        span = abs(stride) * 15 + 1
        start = min(int(numbers[1] * (70 - span + 1)), 70 - span)
        forwards = start + abs(stride) * np.arange(16)
        expected = forwards[::-1] if stride < 0 else forwards
        np.testing.assert_array_equal(times, expected)
        seen.add(stride)
    assert seen == set(strides)


def test_jitter_leaves_still_clips_still():
    spec = ClipSpec(2, 8, 56, strides=(0, -3, 3), jitter=True)
    rng, count = np.random.default_rng(1), count_of(spec)
    for _ in range(50):
        times, choice = sample(spec, 40, rng.random(count, np.float32))
        for clip, number in zip(times, choice, strict=True):
            stride = spec.strides[number]
            steps = np.diff(clip)
            low, high = stride - (abs(stride) - 1), stride + (abs(stride) - 1)
            if stride == 0:
                low = high = 0
            assert steps.min() >= low and steps.max() <= high


def test_a_task_computes_its_own_frames():
    def backwards_and_forwards(rng, num_frames):
        order = tf.stack([tf.range(4)[::-1], tf.range(4)])
        kind = rng.integer([2], 3)
        return tf.minimum(order, num_frames - 1), kind

    spec = ClipSpec(2, 4, 56, frame_numbers=backwards_and_forwards)
    times, choice = sample(spec, 3, [0.0, 0.9])
    assert times.tolist() == [[2, 2, 1, 0], [0, 1, 2, 2]] and choice.tolist() == [0, 2]
    wrong = dataclasses.replace(spec, num_frames=5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
        sample(wrong, 3, [0.0, 0.9])


@pytest.mark.parametrize("shared", [False, True])
def test_one_window_for_all_clips_of_a_video(shared):
    spec = ClipSpec(4, 2, 32, scales=(40, 48, 56), flip=0.5, shared_window=shared)
    rng = np.random.default_rng(2)
    same = []
    for _ in range(20):
        numbers = Rng(tf.constant(rng.random(64, np.float32)))
        window, flip = clips.sample_window(
            numbers, tf.constant(60), tf.constant(80), spec
        )
        assert window.shape == (4, 4) and flip.shape == (4,)
        rows = np.concatenate([window, flip.numpy()[:, None]], axis=1)
        same.append((rows == rows[0]).all())
    assert all(same) if shared else not any(same)
