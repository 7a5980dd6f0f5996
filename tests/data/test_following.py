"""Clips that follow objects, against all pairs of starts and objects in Python loops."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from ctp_jax.data import clips, following
from ctp_jax.data.batch import ClipSpec
from ctp_jax.data.rng import Rng

FRAMES, OBJECTS, SAMPLES = 11, 3, 4000
SPEC = ClipSpec(1, 4, 32, strides=(1, -2), follow=("boxes", ""))


def known_objects():
    """Boxes (k, n, 4) and visibility (k, n); no object is there all the time."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (FRAMES, OBJECTS, 2))
    boxes = np.concatenate([low, low + rng.uniform(3, 12, low.shape)], -1)
    visibility = np.zeros((FRAMES, OBJECTS))
    visibility[2:9, 0] = 0.5  # starts 2..5 of stride 1, frames 8..2 of stride -2
    visibility[5:, 1] = 1.0
    visibility[[0, 3, 7], 2] = 1.0
    boxes[6, 0, 2] = boxes[6, 0, 0]  # a box without area
    return boxes.astype(np.float32), visibility.astype(np.float32)


def sample_many(function, seed=0):
    """Samples of a function of an `Rng`, stacked, as NumPy arrays."""
    numbers = np.random.default_rng(seed).random((SAMPLES, 16), np.float32)

    @tf.function(autograph=False)
    def run(rows):
        shapes = tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), function(Rng(rows[0]))
        )
        return tf.map_fn(
            lambda row: function(Rng(row)), rows, fn_output_signature=shapes
        )

    return [value.numpy() for value in run(tf.constant(numbers))]


def sample(annotations, position, frames=FRAMES, spec=SPEC):
    annotations = {name: tf.constant(each) for name, each in annotations.items()}
    return sample_many(
        lambda rng: following.sample_followed(
            rng, tf.constant(position, tf.int64), annotations, tf.constant(frames), spec
        )
    )


def probabilities(visible, frames):
    """{(times, object): probability} by the rules, pair by pair."""
    found = collections.Counter()
    for stride in SPEC.strides:
        pairs = {}
        for start in range(max(frames - abs(stride) * 3, 1)):
            times = [min(start + abs(stride) * i, frames - 1) for i in range(4)]
            times = tuple(times[::-1] if stride < 0 else times)
            for number in range(visible.shape[1]):
                if visible[times[0], number]:
                    count = sum(visible[time, number] for time in set(times))
                    pairs[times, number] = count
        best = [pair for pair, count in pairs.items() if count == max(pairs.values())]
        objects = {number for _, number in best}
        for times, number in best:
            own = sum(each == number for _, each in best)
            found[times, number] += 1 / len(SPEC.strides) / len(objects) / own
    return found


def assert_frequencies(seen, expected):
    """Counts within five standard deviations, and nothing else."""
    counts = collections.Counter(seen)
    assert set(counts) <= set(expected)
    for each, p in expected.items():
        off = abs(counts[each] - len(seen) * p)
        assert off < 5 * np.sqrt(len(seen) * p * (1 - p)) + 1, (each, p)


def test_pairs_are_as_probable_as_the_rules_say():
    boxes, visibility = known_objects()
    found = sample({"boxes": boxes, "visibility": visibility}, position=2)
    times, choice, followed, hold = found
    area = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    visible = (visibility > 0) & area
    expected = probabilities(visible, FRAMES)
    assert len(expected) > 5 and sum(expected.values()) == pytest.approx(1)
    rows = [tuple(row) for row in times[:, 0].tolist()]
    assert_frequencies(list(zip(rows, followed[:, 0, 1], strict=True)), expected)
    assert (followed[:, 0, 0] == 0).all()
    assert (np.sign(np.diff(times[:, 0])) == np.where(choice, -1, 1)).all()
    for row, number, (first, around) in zip(
        times[:200, 0], followed[:200, 0, 1], hold[:200, 0], strict=True
    ):
        seen = boxes[row, number][visible[row, number]]
        np.testing.assert_array_equal(first, boxes[row[0], number])
        low, high = seen[:, :2].min(0), seen[:, 2:].max(0)
        np.testing.assert_array_equal(around, [*low, *high])


def test_in_short_videos_a_repeated_frame_counts_once():
    boxes, visibility = known_objects()
    boxes, visibility = boxes[3:6], visibility[3:6]
    times, _, followed, _ = sample(
        {"boxes": boxes, "visibility": visibility}, 0, frames=3
    )
    area = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    expected = probabilities((visibility > 0) & area, 3)
    rows = [tuple(row) for row in times[:, 0].tolist()]
    assert_frequencies(list(zip(rows, followed[:, 0, 1], strict=True)), expected)


def test_other_positions_and_empty_videos_start_anywhere():
    boxes, visibility = known_objects()
    for position, known in ((1, visibility), (0, visibility * 0)):
        annotations = {"boxes": boxes, "visibility": known}
        times, _, followed, hold = sample(annotations, position)
        assert (followed[:, 0] == [position, -1]).all()
        starts = times[:, 0].min(axis=-1).tolist()
        expected = collections.Counter()
        for span in (4, 7):
            for start in range(FRAMES - span + 1):
                expected[start] += 0.5 / (FRAMES - span + 1)
        assert_frequencies(starts, expected)
        # It is inside any window.
        assert (hold[..., :2] == np.inf).all() and (hold[..., 2:] == -np.inf).all()


def test_clips_of_another_sampling_follow_what_they_show():
    """Tracks, and boxes of one object without a visibility, at fixed times."""
    boxes, visibility = known_objects()
    spec = ClipSpec(2, 4, 32, sampling="uniform", follow=("tracks", "boxes"))
    annotations = {
        "boxes": boxes[:, 0],
        "tracks": boxes,
        "tracks_visibility": visibility,
    }
    for position, expected in ((0, [0, 1]), (1, [0, 0])):
        times, _, followed, _ = sample(annotations, position, spec=spec)
        assert (times == times[0]).all() and times[0, :, 0].tolist() == [2, 6]
        if position:
            # In frame 6 the only object has no area.
            expected = [0, -1]
        assert (followed[:, :, 1] == expected).all()


HEIGHT, WIDTH, SIZE = 60, 90, 32


def held(start, end, offset):
    """Whether a window at an offset holds an interval, cut to the frame."""
    return offset <= start + 1e-3 and end - 1e-3 <= offset + SIZE


def windows(hold, scale, seed):
    """Offsets (samples, 2), y x, of windows in frames of a short side of `scale`."""
    spec = ClipSpec(1, 4, SIZE, scales=(scale,))
    hold = tf.constant(hold, tf.float32)[None]
    (window, _) = sample_many(
        lambda rng: clips.sample_window(
            rng, tf.constant(HEIGHT), tf.constant(WIDTH), spec, hold
        ),
        seed,
    )
    pixel = np.array([HEIGHT / scale, WIDTH / round(WIDTH * scale / HEIGHT)])
    np.testing.assert_allclose(window[:, 0, 2:], np.tile(SIZE * pixel, (SAMPLES, 1)))
    return window[:, 0, :2] / pixel


@pytest.mark.parametrize("scale", [36, 50])
@pytest.mark.parametrize(
    ("first", "around"),
    [
        ((30, 20, 45, 28), (24, 20, 50, 30)),  # both fit
        ((30, 20, 45, 28), (5, 18, 50, 45)),  # the second is too wide
        ((-9, 50, 12, 66), (-9, 40, 12, 66)),  # partly outside the frame
        ((2, 5, 77, 55), (0, 5, 77, 58)),  # larger than the window
    ],
)
def test_windows_hold_boxes_at_every_possible_offset(first, around, scale):
    offsets = windows([first, around], scale, seed=scale)
    np.testing.assert_allclose(offsets, offsets.round(), atol=1e-3)
    for axis, (side, stored) in enumerate(((scale, HEIGHT), (None, WIDTH))):
        side = side or round(WIDTH * scale / HEIGHT)
        possible = range(side - SIZE + 1)
        cut = np.clip(np.array([first, around]) * side / stored, 0, side)
        one, every = (
            [o for o in possible if held(box[1 - axis], box[3 - axis], o)]
            for box in cut
        )
        if not one:
            middle = (cut[0, 1 - axis] + cut[0, 3 - axis]) / 2
            off = abs(offsets[:, axis] + SIZE / 2 - middle)
            assert (
                off <= min(abs(o + SIZE / 2 - middle) for o in possible) + 0.01
            ).all()
            continue
        expected = collections.Counter(dict.fromkeys(one, 0.1 / len(one)))
        for offset in every or one:
            expected[offset] += 0.9 / len(every or one)
        assert_frequencies(offsets[:, axis].round().astype(int).tolist(), expected)
