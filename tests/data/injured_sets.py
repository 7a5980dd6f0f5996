"""What tests of injured data sets share: opening them, comparing their batches."""

import functools
import itertools

import numpy as np
import tensorflow as tf

from configs import common
from ctp_jax.data import pipeline, records
from ctp_jax.data.batch import ClipSpec
from ctp_jax.tasks import base
from tests.data import make_injuries as injuries
from tests.data.make_injuries import TRAIN

BATCH, STEPS = 4, 3 * TRAIN // 4  # three epochs


class Clips(base.Task):
    """Two clips of half a video, and a plan that depends on the draws alone."""

    def clip_spec(self, train):
        return ClipSpec(2, 6, 24, (1, 2), scales=(24, 28), flip=0.5)

    def plan(self, rng, batch, train):
        return {"number": rng.uniform((2,), 0.0, 1.0)}


def open_records(data_dir, encoding="jpeg", split="train"):
    return records.open_records(f"pictures/{encoding}", split, str(data_dir))


def make_config(data_dir, encoding="jpeg", max_bad=1.0):
    config = common.pretrain(
        f"pictures/{encoding}",
        split="train",
        eval_split="test",
        epochs=1,
        milestones=(),
    )
    config.data.data_dir, config.data.workers = str(data_dir), 2
    config.data.max_bad, config.data.prefetch = max_bad, 1
    config.batch_size = BATCH
    return config


def open_set(data_dir, encoding="jpeg", max_bad=1.0, train=True, share=(0, 1)):
    config = make_config(data_dir, encoding, max_bad)
    return base.open_pipeline(config, Clips(config), train, *share)


def take(opened, count, start=0):
    return list(itertools.islice(opened.train_batches(start), count))


def rows(batches):
    """One example after the other, each a flat list of arrays."""
    for batch in batches:
        flat = tf.nest.flatten(batch)
        for row in range(len(batch["index"])):
            yield [np.asarray(array[row]) for array in flat]


def assert_same(a, b):
    a, b = list(rows(a)), list(rows(b))
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        for p, q in zip(x, y, strict=True):
            np.testing.assert_array_equal(p, q)


def flip_bit(opened, number):
    old = injuries.payload_of(opened, number)[6000:6001]
    injuries.overwrite(opened, number, 6000, bytes([old[0] ^ 16]))


def open_training(config, opened):
    """The training pipeline of records that are open already."""
    task = Clips(config)
    plan = functools.partial(task.plan, train=True)
    return pipeline.Pipeline(config, task.clip_spec(True), plan, opened, True, 0, 1)
