"""Injured data sets: what is wrong is found, named, and replaced the same every time."""

import collections
import dataclasses
import itertools
import os

import numpy as np
import pytest
import tensorflow as tf

from ctp_jax.data import bad_records, reading, records
from tests.data import make_injuries as injuries
from tests.data.injured_sets import (
    BATCH,
    STEPS,
    assert_same,
    flip_bit,
    make_config,
    open_records,
    open_set,
    open_training,
    take,
)
from tests.data.make_injuries import HEIGHT, TEST, TRAIN, WIDTH


def flip_bit_of_length(opened, number):
    injuries.overwrite(opened, number, -11, b"\x7f")


def zero_part(opened, number):
    injuries.overwrite(opened, number, 3000, bytes(3000))


def no_example(opened, number):
    data = bytearray(injuries.payload_of(opened, number))
    data[:4] = b"\xff\xff\xff\xff"
    injuries.rewrite(opened, number, bytes(data))


def no_frames(opened, number):
    old = injuries.payload_of(opened, number)
    injuries.rewrite(opened, number, old.replace(b"video", b"vldeo"))


# What happens to a whole record, whichever frames of it are asked for. First those that
# read all records of the file, while these are sound.
RECORD = {
    no_example: "no record with images under 'video'",
    no_frames: "it has 0 frames, not 12 as indexed",
    flip_bit: "not those that were written",
    flip_bit_of_length: "not those that were written",
    zero_part: "not those that were written",
}
INJURED = (8, 3, 11, 14, 17)


def check_replaced(batches, sound, broken):
    """Rows that are `broken(number, times)` are other records; the rest is as it was.

    Gives {number: those that took its place}.
    """
    replaced = collections.defaultdict(list)
    for batch, before in zip(batches, sound, strict=True):
        for row, number in enumerate(before["index"].tolist()):
            hit = broken(number, before["times"][row])
            assert batch["replaced"][row] == hit, number
            if hit:
                other = int(batch["index"][row])
                assert other != number and not broken(other, batch["times"][row])
                replaced[number].append(other)
            for name in batch if not hit else ():
                tf.nest.map_structure(
                    lambda x, y, row=row: np.testing.assert_array_equal(x[row], y[row]),
                    batch[name],
                    before[name],
                )
    return replaced


def check_pure(data_dir, batches):
    """The same again, from a later step, and on two processes."""
    assert_same(take(open_set(data_dir), 2), batches[:2])
    assert_same(take(open_set(data_dir), 5, STEPS - 5), batches[-5:])
    for i in (0, 1):
        half = slice(i * BATCH // 2, (i + 1) * BATCH // 2)
        part = take(open_set(data_dir, share=(i, 2)), STEPS)
        for ours, whole in zip(part, batches, strict=True):
            assert_same([ours], [tf.nest.map_structure(lambda x, h=half: x[h], whole)])


def check_named(opened, out, reasons):
    """Each of these records is named once, with its reason and its place."""
    assert out.count("\n") == len(reasons)
    for number, reason in reasons.items():
        start = f"note: pictures/{opened.encoding}: video {opened.ids[number]} cannot "
        (line,) = (line for line in out.splitlines() if line.startswith(start))
        assert line.startswith(f"{start}be read: ")
        assert reason in line
        path, offset = injuries.shard_of(opened, number), opened.offset[number]
        assert line.endswith(f"({path}, byte {offset}); another takes its place")


def test_a_bad_record_is_replaced_and_named(injured, sound_batches, capsys):
    opened = open_records(injured)
    for number, injure in zip(INJURED, RECORD, strict=True):
        injure(opened, number)
    train = open_set(injured)
    batches = take(train, STEPS)
    out, _ = capsys.readouterr()
    replaced = check_replaced(
        batches, sound_batches["jpeg"], lambda number, times: number in INJURED
    )
    assert (train.bad_records.examples, train.bad_records.records) == (15, 5)
    for number in INJURED:  # drawn anew in every epoch
        assert len(replaced[number]) == 3 and len(set(replaced[number])) > 1
    check_named(opened, out, dict(zip(INJURED, RECORD.values(), strict=True)))
    for batch in batches:  # a video comes with its own label
        np.testing.assert_array_equal(batch["label"], opened.label[batch["index"]])
    check_pure(injured, batches)


FRAME = 5


def zeros(encoding):
    return b""


def cut_short(encoding):
    return injuries.small_image(encoding, HEIGHT, WIDTH)[:-30]


def larger(encoding):
    return injuries.small_image(encoding, HEIGHT + 4, WIDTH)


def smaller(encoding):
    return injuries.small_image(encoding, HEIGHT, WIDTH - 30)


def of_another_kind(encoding):
    return injuries.small_image("png" if encoding == "jpeg" else "jpeg", HEIGHT, WIDTH)


FRAMES_BROKEN = {
    of_another_kind: "frame 5 is no JPEG, as others are",
    zeros: "frame 5 cannot be decoded",
    cut_short: "frame 5 cannot be decoded",
    larger: "frame 5 is 48x40, not 48x36 as indexed",
    smaller: "frame 5 is 18x36, not 48x36 as indexed",
}


@pytest.mark.parametrize(
    ("encoding", "kinds"), [("jpeg", FRAMES_BROKEN), ("png", (zeros, larger))]
)
def test_a_bad_frame_matters_where_it_is_used(
    encoding, kinds, injured, sound_batches, capsys
):
    opened = open_records(injured, encoding)
    broken = dict(zip(INJURED, kinds, strict=False))
    for number, kind in broken.items():
        old = injuries.payload_of(opened, number)
        new = injuries.with_frame(old, FRAME, kind(encoding))
        injuries.rewrite(opened, number, new)
    train = open_set(injured, encoding)
    batches = take(train, STEPS)
    replaced = check_replaced(
        batches,
        sound_batches[encoding],
        lambda number, times: number in broken and FRAME in times,
    )
    assert replaced.keys() == broken.keys()
    assert sum(map(len, replaced.values())) == train.bad_records.examples
    reasons = {number: FRAMES_BROKEN[kind] for number, kind in broken.items()}
    check_named(opened, capsys.readouterr().out, reasons)
    if encoding == "jpeg":
        check_pure(injured, batches)


def test_every_flipped_bit_is_found(injured):
    """Of 300 bits, of records and of their checksums."""
    opened = open_records(injured)
    read = tf.function(reading.reader(opened))
    rng = np.random.default_rng(0)
    for _ in range(300):
        number = int(rng.integers(TRAIN))
        path, start = injuries.shard_of(opened, number), int(opened.offset[number])
        at = start + int(rng.integers(-12, opened.length[number] + 4))
        bit = 1 << int(rng.integers(8))
        with path.open("r+b") as file:
            for _ in range(2):  # the second time mends it
                file.seek(at)
                (old,) = file.read(1)
                file.seek(at)
                file.write(bytes([old ^ bit]))
                file.flush()
                if old ^ bit != old and _ == 0:
                    with pytest.raises(tf.errors.DataLossError):
                        read(tf.constant(number, tf.int64))
        read(tf.constant(number, tf.int64))


def test_another_number_of_frames_than_indexed_is_an_error(sound):
    opened = open_records(sound)
    more = dataclasses.replace(opened, num_frames=opened.num_frames + 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="number of frames"):
        reading.read_features(more)(tf.constant(0, tf.int64))


@pytest.mark.parametrize("count", [11, 13])
def test_a_record_has_a_box_for_every_frame(sound, count):
    opened = open_records(sound)
    features = reading.read_features(opened)(tf.constant(0, tf.int64))
    check = reading.checker(opened)
    check(0, {**features, "annotations": {"boxes": tf.zeros((12, 4))}})
    with pytest.raises(tf.errors.InvalidArgumentError, match="number of boxes"):
        check(0, {**features, "annotations": {"boxes": tf.zeros((count, 4))}})


def remove(path):
    path.unlink()


def truncate(path):
    os.truncate(path, 1000)


def put_a_folder(path):
    path.unlink()
    path.mkdir()


def forbid(path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path.chmod(0)


WHILE_RUNNING = {
    remove: "its file is gone",
    truncate: "its file ends at byte 1000",
    put_a_folder: "its file",
    forbid: "its file cannot be read",
}


def test_a_store_that_is_away_while_a_record_is_diagnosed(sound, monkeypatch):
    """TensorFlow's error, which is no OSError."""

    def away(path):
        raise tf.errors.UnavailableError(None, None, "try again")

    opened = open_records(sound)
    monkeypatch.setattr(bad_records.remote, "size", away)
    assert bad_records.diagnose(opened, 0) == "its file cannot be reached (try again)"


@pytest.mark.parametrize(
    "injure", WHILE_RUNNING, ids=lambda function: function.__name__
)
def test_a_file_that_goes_while_the_run_reads_it(
    injure, injured, sound_batches, capsys
):
    opened = open_records(injured)
    config = make_config(injured)
    train = open_training(config, opened)
    stream = train.train_batches()
    before = list(itertools.islice(stream, 2))
    lost = injuries.shard_of(opened, 0)
    injure(lost)
    assert_same(before, sound_batches["jpeg"][:2])
    gone = {n for n in range(TRAIN) if injuries.shard_of(opened, n) == lost}
    assert 0 < len(gone) < TRAIN
    for step in itertools.count(2):  # until what was read ahead is over
        next(stream)
        if train.bad_records.examples:
            break
    first = step + 5
    late = list(itertools.islice(stream, 4 + STEPS))[4:]
    for batch in late:
        assert not gone & set(batch["index"].tolist())
    assert {n for b in late for n in b["index"].tolist()} == set(range(TRAIN)) - gone
    assert train.bad_records.records == len(gone)
    out = capsys.readouterr().out
    assert out.count(WHILE_RUNNING[injure]) == out.count("\n") == len(gone)
    again = open_training(config, opened)
    assert_same(take(again, 5, first), late[:5])


def fail_once(read):
    """The same reader; the first time that a record is asked for, it fails."""
    asked = set()

    def ask(number):
        if int(number) not in asked:
            asked.add(int(number))
            raise OSError("the network is gone for a moment")
        return number

    def wrapped(number):
        number = tf.ensure_shape(tf.numpy_function(ask, [number], tf.int64), [])
        return read(number)

    return wrapped, asked


@pytest.mark.parametrize("train", [True, False])
def test_trouble_that_passes_changes_nothing(train, sound, capsys):
    def batches_of(opened):
        return take(opened, STEPS) if train else list(opened.eval_batches())

    opened = open_set(sound, train=train)
    opened._read, asked = fail_once(opened._read)
    assert_same(batches_of(opened), batches_of(open_set(sound, train=train)))
    assert asked == set(range(TRAIN if train else TEST))
    assert opened.bad_records.examples == opened.bad_records.records == 0
    assert capsys.readouterr().out == ""


def evaluate(opened):
    """{record: (flat example)} of what counts, and the batches."""
    batches = list(opened.eval_batches())
    found = {}
    for batch in batches:
        for row in np.flatnonzero(batch["mask"]):
            assert int(batch["index"][row]) not in found
            found[int(batch["index"][row])] = batch["frames"][row]
    return found, batches


@pytest.fixture(scope="module")
def evaluated(sound):
    found, _ = evaluate(open_set(sound, train=False))
    assert sorted(found) == list(range(TEST))
    return found


@pytest.mark.parametrize("bad", [2, TEST - 1])  # the last one is also the padding
def test_an_evaluation_leaves_out_what_is_bad(evaluated, injured, bad, capsys):
    flip_bit(open_records(injured, split="test"), bad)
    expected = {n: frames for n, frames in evaluated.items() if n != bad}
    for count in (2, 1):
        found, batches = {}, []
        for i in range(count):
            held_out = open_set(injured, train=False, share=(i, count))
            part, more = evaluate(held_out)
            assert not found.keys() & part.keys()
            found, batches = found | part, batches + more
        assert found.keys() == expected.keys()
        for number, frames in found.items():
            np.testing.assert_array_equal(frames, expected[number])
        replaced = [
            (b["replaced"], b["mask"], b["index"], b["frames"]) for b in batches
        ]
        replaced, mask, index, frames = map(np.concatenate, zip(*replaced, strict=True))
        assert replaced.sum() == 1 and mask.sum() + replaced.sum() == TEST
        (row,) = np.flatnonzero(replaced)
        assert mask[row] == 0 and index[row] == bad and not frames[row].any()
    single = held_out.bad_records
    assert (single.examples, single.records) == (1, 1)
    evaluate(held_out)
    assert (single.examples, single.records) == (2, 1)
    lines = capsys.readouterr().out.splitlines()
    assert sum("process" in line for line in lines) == 1
    assert all(line.endswith("the evaluation goes on without it") for line in lines)
    assert len(lines) == 2  # one of the two, and the single one once in two passes


def test_many_are_counted_rather_than_named(sound, monkeypatch, capsys):
    opened = open_records(sound)
    many = records.select(opened, np.arange(70) % TRAIN)
    monkeypatch.setattr(bad_records, "diagnose", lambda opened, number: "ill")
    found = bad_records.BadRecords(many, 70, 1.0, "so", "process 3: ")
    for number in [*range(70), *range(70)]:
        found.add([number])
    assert found.records == 70 and found.examples == 140
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("note: process 3: pictures/jpeg: ") for line in lines)
    assert sum("ill" in line for line in lines) == 20
    counted = [line.split("pictures/jpeg: ")[1] for line in lines[20:]]
    assert [text.split(" of 70")[0] for text in counted] == ["21", "32", "64"]


def test_a_record_that_is_good_again_is_said_to_be(sound):
    assert "can be now" in bad_records.diagnose(open_records(sound), 4)
