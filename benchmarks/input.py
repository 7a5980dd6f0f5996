"""Clips per second and core of the input pipeline, beside a loader of the usual kind.

    python -m benchmarks.input --data_dir DIR --name arid6 --split train01

Both sides read the same frames of the same prepared data set and make full-size clips
(16 frames, 112 pixels, three trajectories), on one core, in turn, in one run:

    ours    the host's part of ctp_jax: read, decode the windows, sample the plan
    usual   everything on the host, one clip after the other: read, OpenCV decode and
            resize, NumPy crop, paste, colour, normalise; no framework around it

Ours leaves the drawing to the accelerator; `draw` is what that costs on this CPU.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import cv2
import jax
import numpy as np
import tensorflow as tf

from configs import common
from ctp_jax.data import draws, pipeline, records
from ctp_jax.ops.colour import MEAN, STD
from ctp_jax.tasks import ctp
from tests import opencv_drawing


class Usual:
    """A loader as one would write it with OpenCV and NumPy."""

    def __init__(self, config, task, opened):
        self._config, self._opened = config, opened
        self._rng = np.random.default_rng(0)
        self._task = task
        self._numbers = draws.count_draws(lambda d: task.plan(d, {}, True))
        self._plan = tf.function(
            lambda numbers: task.plan(draws.Draws(numbers), {}, True), autograph=False
        )
        self._plans = []

    def _next_plan(self):
        # Planned a thousand at a time: the peer is not charged for its random numbers.
        if not self._plans:
            shape = (1000, self._numbers)
            plan = self._plan(tf.constant(self._rng.random(shape, np.float32)))
            plan = {name: value.numpy() for name, value in plan.items()}
            self._plans = [{n: v[i] for n, v in plan.items()} for i in range(1000)]
        return self._plans.pop()

    def _frames(self, number):
        opened = self._opened
        with open(opened.files[opened.file_index[number]], "rb") as file:
            file.seek(opened.offset[number])
            payload = file.read(opened.length[number])
        feature = tf.train.Example.FromString(payload).features.feature
        return feature[opened.frames_feature].bytes_list.value

    def clip(self):
        """One normalised clip, float32 (t, s, s, 3), and its boxes."""
        config, rng = self._config.clip, self._rng
        encoded = self._frames(rng.integers(len(self._opened)))
        stride = rng.choice(config.strides)
        span = stride * (config.num_frames - 1) + 1
        start = rng.integers(max(len(encoded) - span, 0) + 1)
        times = start + stride * np.arange(config.num_frames)
        times = np.minimum(
            times + rng.integers(stride, size=len(times)), len(encoded) - 1
        )
        frames = []
        for time_ in times:
            frame = cv2.imdecode(np.frombuffer(encoded[time_], np.uint8), 1)
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        height, width = frames[0].shape[:2]
        scale = rng.choice(config.scales) / min(height, width)
        size = round(width * scale), round(height * scale)
        x = rng.integers(size[0] - config.size + 1)
        y = rng.integers(size[1] - config.size + 1)
        crop = np.s_[y : y + config.size, x : x + config.size]
        clip = np.stack([cv2.resize(frame, size)[crop] for frame in frames])
        if rng.random() < config.flip:
            clip = clip[:, :, ::-1]
        plan = self._next_plan()
        clip = opencv_drawing.paste(clip.astype(np.float32), plan)
        clip = opencv_drawing.change_colours(clip, plan)
        return (clip / 255 - MEAN) / STD, plan["boxes"]


def rate(make, count):
    """Calls per second of CPU time and of wall time."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        make()
    return count / (time.process_time() - cpu), count / (time.perf_counter() - wall)


def split_costs(config, task, opened, rounds):
    """Milliseconds of CPU per clip of reading, decoding and planning, each alone."""
    read = records.read_features(opened)
    number = tf.Variable(0, dtype=tf.int64)
    batch = config.batch_size
    run_read = tf.function(lambda: tf.size(read(number)["frames"]), autograph=False)
    encoded = [read(tf.constant(i, tf.int64))["frames"] for i in range(8)]

    def decode(frames):
        return [tf.io.decode_jpeg(frames[i]) for i in range(config.clip.num_frames)]

    run_decode = tf.function(decode, autograph=False)
    count = draws.count_draws(lambda d: task.plan(d, {}, True))
    numbers = tf.random.stateless_uniform([batch, count], [1, 2])
    run_plan = tf.function(
        lambda: task.plan(draws.Draws(numbers), {}, True), autograph=False
    )
    costs = {}
    for name, call, clips in (
        ("read", run_read, 1),
        ("decode whole frames", lambda: run_decode(encoded[0]), 1),
        ("plan", run_plan, batch),
    ):
        call()
        costs[name] = min(1e3 / (rate(call, 40)[0] * clips) for _ in range(rounds))
    return costs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="arid6")
    parser.add_argument("--split", default="train01")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=15, help="of ours, a round")
    parser.add_argument("--json", default="", help="write the figures there")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)

    config = common.pretrain(
        arguments.name, split=arguments.split, eval_split="", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers = arguments.data_dir, 1
    config.batch_size = 16
    task = ctp.Task(config)
    ours = pipeline.open_pipeline(config, task, True)
    usual = Usual(config, task, ours.records)
    batches = ours.train_batches()
    draw = jax.jit(task.draw)
    for _ in range(config.data.prefetch + 2):
        batch = next(batches)
    first = batch

    def draw_once():
        draw(first).block_until_ready()

    draw_once()
    usual.clip()

    found = {"ours": [], "usual": [], "draw": []}
    for _ in range(arguments.rounds):
        # Drain what was prefetched while the other side ran.
        for _ in range(config.data.prefetch + 2):
            batch = next(batches)
        found["ours"].append(rate(lambda: next(batches), arguments.batches)[1] * 16)
        found["usual"].append(rate(usual.clip, 60)[1])
        found["draw"].append(rate(draw_once, 3)[1] * 16)
    median = {name: statistics.median(values) for name, values in found.items()}
    height, width = ours.records.height[0], ours.records.width[0]
    ratios = [a / b for a, b in zip(found["ours"], found["usual"], strict=True)]
    print(
        f"{arguments.name}: frames of {width}x{height}; clips/s on one core, median of"
    )
    print(f"{arguments.rounds} rounds (range)")
    for name, values in found.items():
        print(
            f"  {name:<6} {median[name]:7.1f}  ({min(values):.1f} to {max(values):.1f})"
        )
    print(
        f"ours / usual: {statistics.median(ratios):.1f} "
        f"({min(ratios):.1f} to {max(ratios):.1f})"
    )
    costs = split_costs(config, task, ours.records, arguments.rounds)
    for name, cost in costs.items():
        print(f"  {name:<20} {cost:6.3f} ms/clip")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"rates": found, "costs": costs}, file, indent=1)


if __name__ == "__main__":
    main()
