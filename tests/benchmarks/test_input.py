"""Benchmark of the input: flags, arithmetic, and that both sides do the same work."""

import argparse
import os
import pickle

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import input as benchmark
from benchmarks import input_split, usual_loader
from configs import common
from ctp_jax.data import clips
from ctp_jax.errors import UserError
from ctp_jax.tasks import base, ctp
from tests.data import make_injuries as injuries


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("input")
    injuries.prepare(directory)
    return str(directory)


@pytest.fixture(scope="module")
def small(data_dir):
    """(config, task, pipeline) of 24-pixel clips of 6 frames."""
    config = common.pretrain(
        "pictures/jpeg", split="train", eval_split="", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers = data_dir, 1
    config.clip.size, config.clip.scales, config.clip.num_frames = 24, (24, 28), 6
    config.clip.strides, config.game.scales = (1,), (8.0,)
    config.batch_size = 4
    task = ctp.Task(config)
    return config, task, base.open_pipeline(config, task, True)


def test_worker_counts_are_those_of_the_machine(capsys):
    assert benchmark.up_to(1) == [1]
    assert benchmark.up_to(6) == [1, 2, 4, 6]
    assert benchmark.up_to(8) == [1, 2, 4, 8]
    for wrong in ("0", "1000000", "1,x"):
        with pytest.raises(SystemExit):
            benchmark.main(["--workers", wrong])
        assert "error: " in (error := capsys.readouterr().err) and "--workers" in error


def test_data_that_is_not_prepared_is_named(tmp_path):
    with pytest.raises(UserError, match="ctp_jax.prepare moving_shapes --data_dir"):
        benchmark.main([f"--data_dir={tmp_path}"])


def test_the_parts_add_up():
    found = {"whole": [2.0, 9.0, 3.0], "nothing": [0.5], "read": [0.75], "decode": [2]}
    parts = input_split.add_up(found)
    assert parts["read"] == 0.25 and parts["decode"] == 1.5
    assert parts["not explained"] == pytest.approx(3 - 0.5 - 0.25 - 1.5)
    assert sum(parts.values()) == pytest.approx(2 * parts["whole"])


def test_the_parts_do_what_the_pipeline_does(small):
    """Same records, times, boxes and pixels as in its batches."""
    config, task, opened = small
    spec = task.clip_spec(True)
    data = opened.records
    canvas = clips.canvas_size(data.height, data.width, spec)
    stages = input_split.make_stages(config, task, data, canvas)
    batch = next(opened.train_batches())
    for row in range(config.batch_size):
        element = tf.constant(row, tf.int64)
        record, times, flip, box, _ = stages["sample"](element)
        assert record == batch["index"][row]
        np.testing.assert_array_equal(times, batch["times"][row])
        np.testing.assert_array_equal(flip, batch["flip"][row])
        np.testing.assert_array_equal(box[:, 2:], batch["extent"][row])
        corners = np.array(stages["decode"](element)[0])
        np.testing.assert_array_equal(corners, batch["frames"][row, 0, :, 0, 0, 0])
        assert stages["read"](element) == data.num_frames[batch["index"][row]]
    assert stages["assemble"](element).shape == (6 * canvas[0], canvas[1], 3)
    plans = input_split.dataset(stages["sample"], 4, task).as_numpy_iterator()
    for name, value in next(plans).items():
        np.testing.assert_array_equal(value, batch["plan"][name])


def test_the_usual_loader_makes_clips(small):
    config, task, opened = small
    plans = usual_loader.make_plans(task, 8)
    usual = usual_loader.Usual(config, opened.records, plans)
    stream = usual_loader.batches(usual, 4, 0)
    clip, boxes = (np.asarray(part) for part in next(stream))
    stream.close()
    assert clip.shape == (4, 6, 24, 24, 3) and clip.dtype == np.float32
    assert np.isfinite(clip).all() and -3 < clip.min() < clip.max() < 3
    np.testing.assert_array_equal(boxes, [plan["boxes"] for plan in plans[:4]])
    # A worker process gets it pickled and makes the same.
    there = pickle.loads(pickle.dumps(usual))
    np.testing.assert_array_equal(clip[2], there[2][0])


def test_decoding_alone_takes_one_clip_after_the_other(small):
    config, task, opened = small
    sides = [
        input_split.decode_alone(opened.records, task, config, library)
        for library in ("OpenCV", "TensorFlow")
    ]
    seen = []
    for _ in range(len(opened.records) + 1):
        ours, theirs = (np.stack(side()).astype(int) for side in sides)
        assert ours.shape == (6, injuries.HEIGHT, injuries.WIDTH, 3)
        assert abs(ours - theirs).max() < 12  # another inverse transform
        seen.append(ours)
    np.testing.assert_array_equal(seen[0], seen[-1])
    assert (seen[0] != seen[1]).any()


def test_a_side_runs_on_its_cores(data_dir):
    class Connection:
        def __init__(self):
            self.asked, self.sent = iter([1, 0]), []

        def recv(self):
            return next(self.asked)

        def send(self, what):
            self.sent.append(what)

    arguments = argparse.Namespace(
        name="pictures/jpeg", split="train", data_dir=data_dir
    )
    before = os.sched_getaffinity(0)
    try:
        benchmark.serve(benchmark.OURS, arguments, 1, connection := Connection())
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        os.sched_setaffinity(0, before)
    ready, (seconds, ahead) = connection.sent
    assert ready == "ready" and seconds > 0 and ahead > 0
