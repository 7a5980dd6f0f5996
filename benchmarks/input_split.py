"""What the parts of making a clip cost, each alone, in CPU time.

Each part is a pipeline of the real one's build (same options, same batches) that does
nothing else; what a pipeline that does nothing costs is taken off and is a part itself.
"""

import os
import statistics
import time

import numpy as np
import tensorflow as tf

from ctp_jax.data import clips, reading, shuffle
from ctp_jax.data import decode as decode_lib
from ctp_jax.data import rng as rng_lib

KEPT = 64
"""Clips whose encoded frames are held in memory, to be decoded again and again."""


def make_stages(config, task, opened, canvas):
    """{part: function of an element, an int64 scalar}; `config` as for training."""
    spec, seed = task.clip_spec(True), config.seed
    read = reading.read_features(opened)
    sizes = tf.constant(np.stack([opened.height, opened.width], axis=-1))
    num_frames = tf.constant(opened.num_frames)
    jpeg = opened.encoding == "jpeg"
    narrow = bool(opened.width.min() < canvas[1])

    def decide(numbers, size, frames):
        times = clips.sample_times(numbers, frames, spec)
        window, flip = clips.sample_window(numbers, *tf.unstack(size, num=2), spec)
        return times, window, flip

    some = tf.constant([99, 99])
    clip_draws = rng_lib.count_uniforms(lambda n: decide(n, some, some[0]))
    plan_draws = rng_lib.count_uniforms(lambda n: task.plan(n, {}, True))

    def sample(element):
        record = shuffle.shuffled(element, len(opened), seed)
        numbers = rng_lib.Rng(rng_lib.uniforms(seed, "train/clip", element, clip_draws))
        times, window, flip = decide(
            numbers, tf.gather(sizes, record), tf.gather(num_frames, record)
        )
        box = decode_lib.boxes_to_decode(window, tf.gather(sizes, record), canvas, spec)
        uniforms = rng_lib.uniforms(seed, "train/plan", element, plan_draws)
        return record, times, flip, box, uniforms

    kept, boxes = [], []
    for element in tf.range(KEPT, dtype=tf.int64):
        record, times, _, box, _ = sample(element)
        kept.append(tf.gather(read(record)["frames"], tf.reshape(times, [-1])))
        boxes.append(box)
    with tf.device("/CPU:0"):
        kept, boxes = tf.stack(kept), tf.stack(boxes)
        in_order = tf.reshape(tf.range(kept.shape[1]), (spec.num_clips, -1))
        decoded = tf.stack(
            decode_lib.decode_boxes(kept[0], in_order, boxes[0], jpeg)[0]
        )
        decoded = tf.stack([decoded] * 4)

    def decode(element):
        frames, all_sizes = decode_lib.decode_boxes(
            kept[element % KEPT], in_order, boxes[element % KEPT], jpeg
        )
        return [frame[0, 0, 0] for frame in frames], all_sizes

    def assemble(element):
        # Views of what is in memory, of other places every time.
        frames = tf.unstack(decoded[element % 4])
        return decode_lib.assemble(frames, boxes[0, 0, 2:], canvas, narrow)

    return {
        "nothing": lambda element: element,
        "read": lambda e: tf.size(
            read(shuffle.shuffled(e, len(opened), seed))["frames"]
        ),
        "decode": decode,
        "sample": sample,
        "assemble": assemble,
    }


def dataset(example, batch, task):
    """A part as a data set on one thread, built as `ctp_jax.data.pipeline` builds its."""
    convert = tf.autograph.experimental.do_not_convert
    found = tf.data.Dataset.range(np.iinfo(np.int64).max)
    found = found.map(convert(example), num_parallel_calls=1, deterministic=True)
    found = found.batch(batch, drop_remainder=True)
    if task is not None:
        found = found.map(
            convert(lambda *parts: task.plan(rng_lib.Rng(parts[-1]), {}, True))
        )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    return found.prefetch(2).with_options(options)


def measure(config, task, pipeline, rounds, count):
    """Milliseconds of CPU per clip, one number a round, in turn: {part: numbers}.

    `whole` is `pipeline.train_batches()`.
    """
    canvas = clips.canvas_size(
        pipeline.records.height, pipeline.records.width, task.clip_spec(True)
    )
    stages = make_stages(config, task, pipeline.records, canvas)
    batch = config.batch_size
    streams = {"whole": pipeline.train_batches()}
    for name, example in stages.items():
        plan = task if name == "sample" else None
        streams[name] = dataset(example, batch, plan).as_numpy_iterator()
    for stream in streams.values():
        for _ in range(config.data.prefetch + 2):
            next(stream)
    found = {name: [] for name in streams}
    for _ in range(rounds):
        for name, stream in streams.items():
            time.sleep(0.1)
            start = time.process_time()
            for _ in range(count):
                next(stream)
            time.sleep(0.1)  # until as much is ready again as was before
            found[name].append((time.process_time() - start) / count / batch * 1e3)
    return found


def add_up(found):
    """Medians of the parts; what `whole` has beyond them is `not explained`."""
    median = {name: statistics.median(values) for name, values in found.items()}
    whole, nothing = median.pop("whole"), median.pop("nothing")
    parts = {name: value - nothing for name, value in median.items()}
    parts["tf.data itself"] = nothing
    parts["not explained"] = whole - sum(parts.values())
    return {**parts, "whole": whole}


def decode_alone(opened, task, config, library):
    """A function that decodes the whole frames of the next clip, and gives them.

    Args:
        opened: records.
        task: says which frames.
        config: of the run.
        library: 'OpenCV' or 'TensorFlow'.
    """
    from benchmarks import usual_loader

    read = reading.read_features(opened)
    held, rng = [], np.random.default_rng(0)
    count = task.clip_spec(True).num_frames
    for number in rng.permutation(len(opened))[:KEPT]:
        frames = read(tf.constant(number, tf.int64))["frames"].numpy()
        chosen = np.minimum(np.arange(count) * 2, len(frames) - 1)
        held.append([frames[t] for t in chosen])
    if library == "OpenCV":
        work = [lambda f=f: [usual_loader.decode(data) for data in f] for f in held]
    else:
        run = tf.function(
            lambda f: [
                tf.io.decode_image(f[i], channels=3, expand_animations=False)
                for i in range(count)
            ],
            autograph=False,
        )
        work = [lambda f=f: run(f) for f in map(tf.constant, held)]
    position = 0

    def one():
        nonlocal position
        position += 1
        return work[(position - 1) % len(work)]()

    return one


def pin(cores: int) -> None:
    """This process, and what it starts, on so many cores from now on."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
