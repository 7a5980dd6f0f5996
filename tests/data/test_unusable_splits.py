"""Splits that a task cannot use: videos that are too short, labels that teach nothing."""

import dataclasses

import numpy as np
import pytest

from ctp_jax.data import records
from ctp_jax.errors import UserError
from tests.data.test_fraction import CLASSES, make_records


def make_split(frames):
    opened = make_records([i % 3 for i in range(len(frames))], list("abcdefg"))
    return dataclasses.replace(opened, num_frames=np.array(frames))


def test_short_videos_are_counted_and_the_shortest_are_named():
    opened = make_split([30, 61, 12, 60, 90, 13, 61])
    assert records.long_enough(opened, 12, skip=False) is opened
    with pytest.raises(UserError) as caught:
        records.long_enough(opened, 61, skip=False, task=True)
    assert str(caught.value) == (
        "made: 4 of 7 videos of split 'train' have fewer than 61 frames, what this task "
        "needs (c: 12, f: 13, a: 30, ...): leave them out (config.data.skip_short = "
        "True), or use smaller strides or fewer frames"
    )
    with pytest.raises(UserError, match=r"config.data.min_frames \(c: 12\): leave"):
        records.long_enough(opened, 13, skip=False)


def test_short_videos_are_left_out_where_asked_for():
    opened = make_split([30, 61, 12, 60, 90, 13, 61])
    assert records.long_enough(opened, 61, skip=True).ids.tolist() == list("beg")
    assert records.long_enough(opened, 12, skip=True) is opened
    with pytest.raises(
        UserError, match=r"7 of 7 .* 91 .*\.\.\.\): use smaller strides"
    ):
        records.long_enough(opened, 91, skip=True, task=True)
    with pytest.raises(UserError, match="has no videos"):
        records.long_enough(records.select(opened, np.array([], int)), 1, skip=True)


def test_labels_to_learn_are_there_and_of_two_classes():
    records.check_labels(make_records([0, 1]), "x", learn=True)
    records.check_labels(make_records([1, 1]), "x", learn=False)
    for labels, names, message in (
        ([1, 1], CLASSES, "all 2 videos of split 'train' are of class 'run', but x"),
        ([1, -1], CLASSES, "1 of 2 videos of split 'train' have no label, which x"),
        ([0, 1], (), "2 of 2 videos of split 'train' have no label"),
    ):
        opened = make_records(labels, ["a", "b"], names)
        with pytest.raises(UserError, match=message):
            records.check_labels(opened, "x", learn=True)
