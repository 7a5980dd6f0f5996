"""The input pipeline on a small generated data set."""

import itertools

import cv2
import numpy as np
import pytest
import tensorflow as tf

from configs import common
from ctp_jax.data import clips, decode, reading
from ctp_jax.data import shuffle as shuffle_lib
from ctp_jax.data.batch import ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import moving_shapes
from ctp_jax.tasks import base, ctp

VIDEOS = 13


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    arguments = moving_shapes.Builder.read_flags(
        f"--train_videos={VIDEOS}", "--test_videos=7"
    )
    builder = moving_shapes.Builder(arguments=arguments, data_dir=directory)
    builder.download_and_prepare()
    return str(directory)


def make_config(data_dir, **changes):
    config = common.pretrain(
        "moving_shapes", split="train", eval_split="test", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers = data_dir, 2
    config.clip.size, config.clip.scales, config.clip.num_frames = 40, (40, 48), 6
    config.game.scales = (8.0, 16.0)
    config.batch_size = 4
    config.update(changes)
    return config


def open_train(config, process_index=0, process_count=1):
    task = ctp.Task(config)
    return base.open_pipeline(config, task, True, process_index, process_count)


@pytest.fixture(scope="module")
def train(data_dir):
    return open_train(make_config(data_dir))


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(a, b):
    flat_a, flat_b = tf.nest.flatten(a), tf.nest.flatten(b)
    assert len(flat_a) == len(flat_b)
    for x, y in zip(flat_a, flat_b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_batch_depends_on_the_step_alone(data_dir, train):
    from_start = take(train.train_batches(0), 6)
    from_four = take(open_train(make_config(data_dir)).train_batches(4), 2)
    assert_same(from_start[4:], from_four)
    other = make_config(data_dir, seed=1)
    another = take(open_train(other).train_batches(0), 1)[0]
    assert (another["index"] != from_start[0]["index"]).any()
    # A late step is as near as the first.
    assert len(take(train.train_batches(10**12), 1)[0]["frames"]) == 4


def test_processes_share_the_same_global_batch(data_dir, train):
    config = make_config(data_dir)
    whole = take(train.train_batches(1), 3)
    for index in (0, 3):  # of four, one video each
        share = take(open_train(config, index, 4).train_batches(1), 3)
        for batch, part in zip(whole, share, strict=True):
            row = tf.nest.map_structure(lambda x, i=index: x[i : i + 1], batch)
            assert_same(row, part)


def test_every_epoch_shows_every_video_once_in_another_order(train):
    batches = take(train.train_batches(0), VIDEOS)
    order = np.concatenate([b["index"] for b in batches]).reshape(4, VIDEOS)
    for epoch in order:
        assert sorted(epoch) == list(range(VIDEOS))
    assert len({tuple(epoch) for epoch in order.tolist()}) == 4


@tf.autograph.experimental.do_not_convert
def orders(total, epochs):
    """The order of every epoch, (epochs, total)."""
    positions = tf.data.Dataset.range(epochs * total)
    records = positions.map(lambda position: shuffle_lib.shuffled(position, total, 0))
    return np.array(list(records.batch(total).as_numpy_iterator()))


def test_orders_are_as_of_a_fair_shuffle():
    """`index_shuffle` alone gives the identity 200 times too often for 8 videos."""
    found = orders(8, 2000)
    assert (np.sort(found, axis=1) == np.arange(8)).all()
    assert (found == np.arange(8)).all(axis=1).sum() <= 2  # 0.05 expected
    # Four videos have 24 orders, each as likely as any other: 5 standard deviations.
    counts = np.unique(orders(4, 2400), axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 100.0) ** 2 / 100).sum() < 23 + 5 * np.sqrt(2 * 23)


def test_orders_of_epochs_are_independent():
    """Each video stands at each place of an epoch equally often."""
    epochs = 400
    positions = tf.range(VIDEOS * epochs, dtype=tf.int64)

    @tf.function
    def shuffle():
        return tf.map_fn(lambda p: shuffle_lib.shuffled(p, VIDEOS, 0), positions)

    found = shuffle().numpy().reshape(epochs, VIDEOS)
    counts = np.zeros((VIDEOS, VIDEOS))
    for epoch in found:
        counts[epoch, np.arange(VIDEOS)] += 1
    expected = epochs / VIDEOS
    chi2 = ((counts - expected) ** 2 / expected).sum() / (VIDEOS - 1) ** 2
    assert chi2 < 1.5  # 1 +- 0.12 if uniform; 2.6 with the epoch for a key
    ranks = np.corrcoef(np.argsort(found, axis=1))
    assert ranks[np.triu_indices(epochs, 1)].std() < 1.3 / (VIDEOS - 1) ** 0.5


def test_evaluation_counts_every_video_once(data_dir):
    config = make_config(data_dir)
    task = ctp.Task(config)
    for count in (1, 2):
        parts = [
            list(base.open_pipeline(config, task, False, i, count).eval_batches())
            for i in range(count)
        ]
        rows = [batch for part in parts for batch in part]
        mask = np.concatenate([b["mask"] for b in rows])
        index = np.concatenate([b["index"] for b in rows])
        assert len(mask) == 8 and mask.sum() == 7
        assert sorted(index[mask > 0]) == list(range(7))
    config.data.eval_videos = 3
    batches = list(base.open_pipeline(config, task, False).eval_batches())
    assert sum(b["mask"].sum() for b in batches) == 3


def test_windows_hold_the_pixels_of_the_frames(train):
    """What is read of them equals the whole frames of the same records."""
    read = reading.read_features(train.records)
    for batch in take(train.train_batches(0), 8):
        for row in range(4):
            encoded = read(tf.constant(batch["index"][row], tf.int64))["frames"]
            y, x, h, w = batch["window"][row, 0]
            first, last = (
                np.array([y, x]) + np.array([h, w]) * (at + 0.5) / 40 - 0.5
                for at in (0, 39)
            )
            extent = batch["extent"][row, 0]
            first = np.maximum(np.floor(first), 0).astype(int)
            last = np.minimum(np.ceil(last), extent - 1).astype(int)
            for t, frame in zip(
                batch["times"][row, 0], batch["frames"][row, 0], strict=True
            ):
                whole = tf.io.decode_jpeg(encoded[t]).numpy()
                part = frame[first[0] : last[0] + 1, first[1] : last[1] + 1]
                match = cv2.matchTemplate(whole, part, cv2.TM_SQDIFF)
                top, left = np.unravel_index(match.argmin(), match.shape)
                found = whole[top : top + part.shape[0], left : left + part.shape[1]]
                np.testing.assert_array_equal(found, part)


def test_boxes_follow_crop_and_flip():
    window = tf.constant([[10.0, 20.0, 50.0, 25.0]])
    boxes = tf.constant([[[20.0, 10.0, 45.0, 60.0], [25.0, 20.0, 30.0, 30.0]]])
    plain = decode.boxes_in_clip(boxes, window, tf.constant([False]), 100)
    np.testing.assert_allclose(plain[0], [[0, 0, 100, 100], [20, 20, 40, 40]])
    mirrored = decode.boxes_in_clip(boxes, window, tf.constant([True]), 100)
    np.testing.assert_allclose(mirrored[0], [[0, 0, 100, 100], [60, 20, 80, 40]])


def draws_of(numbers):
    from ctp_jax.data import rng as rng_lib

    return rng_lib.Rng(tf.constant(numbers, tf.float32))


SPEC = ClipSpec(1, 16, 112, (1, 2, 3, 4, 5), True, scales=(112, 128, 144))


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17, 100])
def test_times_stay_in_the_video_and_keep_their_stride(frames):
    rng = np.random.default_rng(0)
    for _ in range(200):
        numbers = draws_of(rng.random(1 + 1 + 16))
        times = clips.sample_times(numbers, tf.constant(frames), SPEC)[0].numpy()[0]
        assert times.min() >= 0 and times.max() <= frames - 1
        assert (np.diff(times) >= 0).all()
    # The largest numbers: stride 5, last start, largest jitter.
    numbers = draws_of(np.full(18, np.nextafter(np.float32(1), np.float32(0))))
    times = clips.sample_times(numbers, tf.constant(100), SPEC)[0].numpy()[0]
    expected = np.minimum(100 - 76 + 5 * np.arange(16) + 4, 99)
    np.testing.assert_array_equal(times, expected)


def test_ten_clips_start_where_the_test_protocol_says():
    spec = ClipSpec(10, 16, 112, (2,), sampling="uniform", crop="center")
    for frames in (20, 32, 100, 331):
        times, _ = clips.sample_times(draws_of([0.0]), tf.constant(frames), spec)
        times = times.numpy()
        free = max(frames - 32 + 1, 0)
        for i in range(10):
            start = int(free / 20 + i * free / 10 + 1e-9)
            expected = np.minimum(start + 2 * np.arange(16), frames - 1)
            np.testing.assert_array_equal(times[i], expected)


def test_windows_of_every_size_fit_the_canvas():
    rng = np.random.default_rng(1)
    sizes = [(144, 256), (256, 144), (128, 170), (64, 64), (144, 145), (300, 257)]
    for spec in (
        SPEC,
        ClipSpec(1, 16, 112, scales=((171, 128), (149, 112)), crop="center"),
    ):
        heights, widths = np.array(sizes).T
        canvas = clips.canvas_size(heights, widths, spec)
        for height, width in sizes:
            for _ in range(50):
                window, _ = clips.sample_window(
                    draws_of(rng.random(8)),
                    tf.constant(height),
                    tf.constant(width),
                    spec,
                )
                y, x, h, w = window.numpy()[0]
                assert y >= 0 and x >= 0
                assert y + h <= height + 1e-3 and x + w <= width + 1e-3
                for start, length, size, limit, margin in (
                    (y, h, height, canvas[0], 0),
                    (x, w, width, canvas[1], 1),
                ):
                    points = start + (np.arange(112) + 0.5) * length / 112 - 0.5
                    points = np.clip(points, 0, size - 1)
                    first = max(np.floor(points[0]) - margin, 0)
                    last = min(np.ceil(points[-1]) + margin, size - 1)
                    assert last - first + 1 <= limit


def test_portrait_videos_swap_the_resizing_sides():
    spec = ClipSpec(1, 16, 112, scales=((171, 128),), crop="center")
    for height, width, expected in ((240, 320, (210, 112 * 320 / 171)),):
        for turned in (False, True):
            h, w = (width, height) if turned else (height, width)
            window, _ = clips.sample_window(
                draws_of(np.zeros(8)), tf.constant(h), tf.constant(w), spec
            )
            size = window.numpy()[0, 2:]
            np.testing.assert_allclose(size[::-1] if turned else size, expected)


def test_mistakes_are_named(data_dir, tmp_path):
    config = make_config(data_dir)
    config.data.split = "trian"
    with pytest.raises(UserError, match=r"no split 'trian'; its splits are .*train"):
        open_train(config)
    config.data.split, config.data.min_frames = "train", 1000
    with pytest.raises(UserError, match=r"13 of 13 videos .* config.data.min_frames"):
        open_train(config)
    config.data.skip_short = True
    with pytest.raises(UserError, match=r"13 of 13 videos .*: lower min_frames"):
        open_train(config)
    config.data.data_dir = str(tmp_path)
    with pytest.raises(UserError, match=r"python -m ctp_jax\.prepare moving_shapes"):
        open_train(config)
