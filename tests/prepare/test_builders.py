"""What all builders share: encoding in parallel, boxes, use through TFDS.

What they list is in `test_builders_*`, the command in `test_prepare`.
"""

import functools

import numpy as np
import tensorflow as tf

from ctp_jax.data import reading, records
from ctp_jax.prepare import workers as workers_lib
from ctp_jax.prepare.builders import base
from tests.prepare.make_videos import (
    TooLarge,
    crash,
    encode_boxed,
    encode_numbered,
    refuse,
)


def test_encoding_keeps_the_order_and_survives_a_crash():
    items = [
        base.Item(f"v{i}", 0, functools.partial(encode_numbered, i + 1))
        for i in range(9)
    ]
    items[2] = base.Item("broken", 0, crash)
    items[4] = base.Item("large", 0, TooLarge)
    items[6] = base.Item("refused", 0, refuse)
    done = list(workers_lib.encode_in_parallel(items, workers=2))
    assert [item for item, _ in done] == items
    assert done[2][1] == "the decoder crashed"
    assert done[4][1] == "out of memory"
    assert done[6][1] == "no good"
    for i in (0, 1, 3, 5, 7, 8):
        assert len(done[i][1].frames) == i + 1


class Boxed(base.VideoBuilder):
    """Two videos with a box per frame."""

    @classmethod
    def make_source(cls, arguments, options):
        items = [
            base.Item(f"v{i}", -1, functools.partial(encode_boxed, i)) for i in (2, 3)
        ]
        return base.Source(items, {"val": ["v3"]}, annotations={"boxes": (4,)})


def test_a_builder_with_boxes_used_as_tfds_does(tmp_path):
    builder = Boxed(data_dir=tmp_path, options=base.Options(progress=False))
    builder.download_and_prepare()
    opened = records.open_records("boxed", "val", str(tmp_path))
    assert opened.ids.tolist() == ["v3"]
    example = reading.read_features(opened)(tf.constant(0, tf.int64))
    expected = encode_boxed(3)
    assert example["frames"].numpy().tolist() == expected.frames
    np.testing.assert_array_equal(
        example["annotations"]["boxes"], expected.annotations["boxes"]
    )
    assert int(example["label"]) == -1
