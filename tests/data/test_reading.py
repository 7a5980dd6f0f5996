"""Middle frames of stored videos."""

import dataclasses
import functools

import numpy as np
import pytest

from ctp_jax.data import reading, records
from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base
from tests.prepare import make_videos


class Numbered(base.VideoBuilder):
    """Videos of 1 to 6 frames; each frame is grey and says its number."""

    @classmethod
    def make_source(cls, arguments, options):
        items = [
            base.Item(f"v{i}", 0, functools.partial(make_videos.encode_numbered, i))
            for i in range(1, 7)
        ]
        return base.Source(items, {"test": ["v6", "v1", "v5", "v2"]}, class_names=["a"])


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    builder = Numbered(data_dir=directory, options=base.Options(progress=False))
    builder.download_and_prepare()
    return records.open_records("numbered", "test", str(directory))


def test_the_middle_frame_of_each_record_in_the_order_asked_for(split):
    order = [3, 0, 1, 2, 0]
    # A video of n frames: frame n // 2, counted from 0.
    expected = [int(split.ids[i][1:]) // 2 for i in order]
    frames = reading.middle_frames(split, np.array(order))
    assert make_videos.numbers(frames) == expected
    assert sorted(set(expected)) == [0, 1, 2, 3]
    for frame in frames:
        assert frame.shape == (8, 8, 3) and frame.dtype == np.uint8


def test_no_records(split):
    assert reading.middle_frames(split, []) == []


def test_a_damaged_record_gets_one_line(split):
    broken = dataclasses.replace(split, offset=split.offset + 7)
    name = split.ids[2]
    with pytest.raises(UserError, match=f"video {name} cannot be read") as raised:
        reading.middle_frames(broken, [2])
    assert "\n" not in str(raised.value)
