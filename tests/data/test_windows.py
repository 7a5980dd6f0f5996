"""Windows of whole videos: where each goes, and what the pipeline then reads."""

import pathlib
import shutil

import numpy as np
import pytest

from ctp_jax.data import pipeline, shuffle
from ctp_jax.data.batch import num_windows
from ctp_jax.tasks import ctp, tracker
from tests import made_sequences
from tests.made_sequences import FRAMES, HEIGHT, LENGTHS, SIZE, WIDTH, make_video

data_dir = made_sequences.data_dir  # a fixture


def starts_of(frames, length):
    """By walking: a window begins with the last frame of the one before."""
    starts = [0]
    while starts[-1] + length < frames:
        starts.append(starts[-1] + length - 1)
    return starts


@pytest.mark.parametrize("length", [2, 3, 4, 16])
def test_the_number_of_windows(length):
    frames = np.arange(1, 70)
    expected = [len(starts_of(f, length)) for f in frames]
    assert num_windows(frames, length).tolist() == expected


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_each_row_follows_its_videos(rows):
    rng = np.random.default_rng(rows)
    records, windows = rng.permutation(50)[:20], rng.integers(1, 9, 20)
    table = shuffle.deal(records, windows, rows).reshape(-1, rows, 2)
    seen = []
    for row in table.swapaxes(0, 1):
        used = (row[:, 0] >= 0).sum()
        assert (row[used:, 0] < 0).all()  # padding comes last
        row = row[:used].tolist()
        while row:
            record, count = row[0][0], 0
            while row and row[0] == [record, count]:
                row.pop(0)
                count += 1
            seen.append((record, count))
            assert count
    assert sorted(seen) == sorted(zip(records.tolist(), windows.tolist(), strict=True))
    # No row can be longer than the shortest by more than a video.
    used = (table[..., 0] >= 0).sum(0)
    assert len(table) == used.max() and used.max() - used.min() <= windows.max()


def batches(data_dir, *share, **flat):
    config = made_sequences.make_config(data_dir, **flat)
    view = tracker.Tracker(config, ctp.Task(config))
    opened = pipeline.open_pipeline(
        config, view.clip_spec(False), lambda rng, batch: {}, False, *share
    )
    return list(opened.eval_batches()), opened


def test_every_window_of_every_video(data_dir):
    found, opened = batches(data_dir)
    assert opened.num_examples == 2 * len(found)
    seen = {}
    for batch in found:
        for row in np.flatnonzero(batch["mask"]):
            number = int(batch["index"][row])
            which, times = int(batch["choice"][row, 0]), batch["times"][row, 0]
            assert which == len(seen.setdefault(number, []))
            seen[number].append(times.tolist())
            # The whole frame, each axis by itself.
            boxes = make_video(number)[1][times] * SIZE / np.tile([WIDTH, HEIGHT], 2)
            shown = batch["annotations"]["boxes"][row, 0]
            np.testing.assert_allclose(shown, boxes, atol=1e-3)
            np.testing.assert_array_equal(batch["window"][row, 0, 2:], [HEIGHT, WIDTH])
            assert not batch["flip"][row, 0]
    for number, frames in enumerate(LENGTHS):
        starts = starts_of(frames, FRAMES)
        assert seen[number] == [
            [min(start + i, frames - 1) for i in range(FRAMES)] for start in starts
        ]


def test_two_processes_read_the_batches_of_one(data_dir):
    whole, _ = batches(data_dir)
    halves = [batches(data_dir, index, 2)[0] for index in (0, 1)]
    for one, *parts in zip(whole, *halves, strict=True):
        for name in ("frames", "index", "choice", "mask", "times"):
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(one[name], joined)


def test_some_of_the_videos(data_dir):
    found, _ = batches(data_dir, **{"data.eval_videos": 3})
    index = np.concatenate([batch["index"][batch["mask"] > 0] for batch in found])
    assert sorted(set(index.tolist())) == [0, 2, 4]


def test_windows_of_an_unreadable_video_are_left_out(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    whole, opened = batches(data_dir)
    stored = opened.records
    path = tmp_path / "copy" / pathlib.Path(stored.files[0]).relative_to(data_dir)
    with path.open("r+b") as file:
        file.seek(int(stored.offset[0]) + 100)
        file.write(b"damage")
    found, _ = batches(tmp_path / "copy", **{"data.max_bad": 0.9})
    assert len(found) == len(whole)
    for batch, before in zip(found, whole, strict=True):
        bad = (before["index"] == 0) & (before["mask"] > 0)
        np.testing.assert_array_equal(batch["mask"], before["mask"] * ~bad)
        np.testing.assert_array_equal(
            batch["replaced"][before["mask"] > 0], bad[before["mask"] > 0]
        )
        for name in ("choice", "times", "frames"):
            rows = batch["mask"] > 0
            np.testing.assert_array_equal(batch[name][rows], before[name][rows])
