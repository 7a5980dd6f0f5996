"""Which videos a run uses: a share of every class, of enough frames, with labels."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from ctp_jax.data import index, records, selection, tfrecord
from ctp_jax.errors import UserError

CLASSES = ("jump", "run", "sit")
SIZES = (40, 7, 12)


def make_records(labels, ids=None, class_names=CLASSES):
    count = len(labels)
    if ids is None:
        ids = [f"{class_names[label]}/video {i}" for i, label in enumerate(labels)]
    # Every column has its own values, so that a mix-up shows.
    columns = {
        name: (np.arange(count) * (k + 1)).astype(dtype)
        for k, (name, dtype) in enumerate(index.COLUMNS.items())
    }
    columns["label"] = np.asarray(labels, columns["label"].dtype)
    return records.Records(
        name="made",
        split="train",
        directory="nowhere",
        files=("a", "b"),
        file_size=np.array([1, 2]),
        **columns,
        class_names=class_names,
        features=tfrecord.Features("frames", "label"),
        encoding="jpeg",
        id_bytes=np.array([id_.encode() for id_ in ids]),
    )


@pytest.fixture
def opened():
    labels = np.repeat(range(3), SIZES)
    return make_records(np.random.default_rng(0).permutation(labels).tolist())


def names(taken):
    return set(taken.ids.tolist())


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.75, 0.99])
def test_every_class_keeps_its_share(opened, fraction):
    taken = selection.take_fraction(opened, fraction, seed=0)
    found = collections.Counter(taken.label.tolist())
    for label, size in enumerate(SIZES):
        # Half of a video counts as one.
        assert abs(found[label] - fraction * size) <= 0.5
    assert len(taken) == sum(found.values()) == len(taken.ids)


def test_records_stay_whole_and_in_order(opened):
    taken = selection.take_fraction(opened, 0.3, seed=0)
    rows = [opened.ids.tolist().index(name) for name in taken.ids]
    assert rows == sorted(rows)
    for name in index.COLUMNS:
        np.testing.assert_array_equal(getattr(taken, name), getattr(opened, name)[rows])
    for name in ("name", "split", "files", "class_names", "encoding", "directory"):
        assert getattr(taken, name) == getattr(opened, name)
    assert taken.file_size is opened.file_size


def test_smaller_shares_are_among_the_larger_ones(opened):
    sets = [
        names(selection.take_fraction(opened, f, seed=3))
        for f in (0.1, 0.2, 0.33, 0.5, 0.8, 1.0)
    ]
    assert all(small < large for small, large in itertools.pairwise(sets))
    assert sets[-1] == names(opened)


def test_which_videos_depends_on_the_seed(opened):
    sets = [names(selection.take_fraction(opened, 0.5, seed)) for seed in range(8)]
    assert sets[0] == names(selection.take_fraction(opened, 0.5, 0))
    assert len(set(map(frozenset, sets))) == 8
    # Each video in about half of the choices of many seeds: 5 standard errors.
    counts = collections.Counter()
    for seed in range(100):
        counts.update(names(selection.take_fraction(opened, 0.5, seed)))
    for name, label in zip(opened.ids.tolist(), opened.label, strict=True):
        share = int(0.5 * SIZES[label] + 0.5) / SIZES[label]
        assert abs(counts[name] - 100 * share) < 5 * np.sqrt(100 * 0.25)


def test_which_videos_does_not_depend_on_their_order(opened):
    order = np.random.default_rng(1).permutation(len(opened))
    shuffled = make_records(opened.label[order].tolist(), opened.ids[order].tolist())
    assert (shuffled.ids != opened.ids).any()
    for fraction in (0.2, 0.6):
        a, b = (selection.take_fraction(r, fraction, 5) for r in (opened, shuffled))
        assert names(a) == names(b)


def test_a_video_more_changes_its_class_alone(opened):
    more = make_records([*opened.label.tolist(), 1], [*opened.ids.tolist(), "run/new"])
    a, b = (selection.take_fraction(r, 0.5, 0) for r in (opened, more))
    others = {name for name in names(a) if not name.startswith("run")}
    assert others == {name for name in names(b) if not name.startswith("run")}


def test_all_of_it_is_what_was_opened(opened):
    assert selection.take_fraction(opened, 1.0, 0) is opened


def test_videos_without_labels_are_one_class():
    opened = make_records([-1] * 10, [f"{i}" for i in range(10)], ())
    assert len(selection.take_fraction(opened, 0.3, 0)) == 3
    with pytest.raises(UserError, match="'unlabelled'.*it has 10 videos"):
        selection.take_fraction(opened, 0.01, 0)


@pytest.mark.parametrize("smallest", range(1, 40))
def test_an_empty_class_is_refused_and_the_hint_is_right(smallest):
    opened = make_records([0] * 60 + [1] * smallest + [2] * 50)
    with pytest.raises(UserError) as caught:
        selection.take_fraction(opened, 0.49 / smallest, 0)
    message = str(caught.value)
    assert f"leaves class 'run' of split 'train' empty: it has {smallest} v" in message
    hint = float(message.partition("; with ")[2].split()[0])
    taken = selection.take_fraction(opened, hint, 0)
    assert set(taken.label.tolist()) == {0, 1, 2}
    assert hint < 0.5 / smallest + 0.0002


def test_videos_of_both_splits_are_counted():
    whole = make_records([0] * 12)

    def split(name, numbers, **changes):
        chosen = records.select(whole, np.array(numbers))
        return dataclasses.replace(chosen, split=name, **changes)

    held_out = [
        split("test", [8, 9]),
        *2 * [split("all", range(12))],
        split("elsewhere", range(12), directory="another"),
    ]
    (line,) = selection.overlaps(split("train", range(8)), held_out)
    assert line.startswith("note: 8 of the 12 videos of split 'all', to evaluate on, ")
    assert line.endswith(" are also in split 'train', to train on")


def make_split(frames):
    opened = make_records([i % 3 for i in range(len(frames))], list("abcdefg"))
    return dataclasses.replace(opened, num_frames=np.array(frames))


def test_short_videos_are_counted_and_the_shortest_are_named():
    opened = make_split([30, 61, 12, 60, 90, 13, 61])
    assert selection.long_enough(opened, 12, skip=False) is opened
    with pytest.raises(UserError) as caught:
        selection.long_enough(opened, 61, skip=False, task=True)
    assert str(caught.value) == (
        "made: 4 of 7 videos of split 'train' have fewer than 61 frames, what this task "
        "needs (c: 12, f: 13, a: 30, ...): leave them out (config.data.skip_short = "
        "True), or use smaller strides or fewer frames"
    )
    with pytest.raises(UserError, match=r"config.data.min_frames \(c: 12\): leave"):
        selection.long_enough(opened, 13, skip=False)


def test_short_videos_are_left_out_where_asked_for():
    opened = make_split([30, 61, 12, 60, 90, 13, 61])
    assert selection.long_enough(opened, 61, skip=True).ids.tolist() == list("beg")
    assert selection.long_enough(opened, 12, skip=True) is opened
    with pytest.raises(
        UserError, match=r"7 of 7 .* 91 .*\.\.\.\): use smaller strides"
    ):
        selection.long_enough(opened, 91, skip=True, task=True)
    with pytest.raises(UserError, match="has no videos"):
        selection.long_enough(records.select(opened, np.array([], int)), 1, skip=True)


def test_labels_to_learn_are_there_and_of_two_classes():
    selection.check_labels(make_records([0, 1]), "x", learn=True)
    selection.check_labels(make_records([1, 1]), "x", learn=False)
    for labels, names, message in (
        ([1, 1], CLASSES, "all 2 videos of split 'train' are of class 'run', but x"),
        ([1, -1], CLASSES, "1 of 2 videos of split 'train' have no label, which x"),
        ([0, 1], (), "2 of 2 videos of split 'train' have no label"),
    ):
        opened = make_records(labels, ["a", "b"], names)
        with pytest.raises(UserError, match=message):
            selection.check_labels(opened, "x", learn=True)
