"""A small data set in several shards, and ways to injure its records.

`overwrite` leaves the checksums as they are, as a failing disk does; `rewrite` puts them
right, as if the data had been prepared like that.
"""

import io
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from ctp_jax.data import records
from tests.prepare.make_videos import picture

TRAIN, TEST, FRAMES, HEIGHT, WIDTH = 20, 7, 12, 36, 48


class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Videos of pictures that all differ, in three shards a split."""

    name = "pictures"
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=encoding, version="1.0.0")
        for encoding in ("jpeg", "png")
    ]

    def _info(self):
        frames = tfds.features.Video(
            (None, HEIGHT, WIDTH, 3), encoding_format=self.builder_config.name
        )
        features = {
            "video": frames,
            "label": tfds.features.ClassLabel(num_classes=TRAIN),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(TRAIN),
            "test": self._generate_examples(TEST),
        }

    def _generate_examples(self, count):
        for i in range(count):
            frames = np.stack([picture(HEIGHT, WIDTH, 12 * k) for k in range(FRAMES)])
            frames[:, :8, :8] = 10 * i
            yield f"v{i}", {"video": frames, "label": i}


def prepare(data_dir) -> None:
    """Prepares both encodings."""
    for encoding in ("jpeg", "png"):
        builder = Pictures(config=encoding, data_dir=data_dir)
        config = tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
        builder.download_and_prepare(download_config=config)
        records.open_records(f"pictures/{encoding}", "all", str(data_dir))


def shard_of(opened: records.Records, number: int) -> pathlib.Path:
    """The file that a record is in."""
    return pathlib.Path(opened.files[opened.file_index[number]])


def overwrite(opened: records.Records, number: int, at: int, data: bytes) -> None:
    """Writes over bytes of a record; `at` counts from its payload's first."""
    with shard_of(opened, number).open("r+b") as file:
        file.seek(int(opened.offset[number]) + at)
        file.write(data)


def payload_of(opened: records.Records, number: int) -> bytes:
    """A record's payload, read without TensorFlow."""
    data = shard_of(opened, number).read_bytes()
    start = int(opened.offset[number])
    return data[start : start + int(opened.length[number])]


def rewrite(opened: records.Records, number: int, payload: bytes) -> None:
    """Puts another payload of the same length in the place of a record's."""
    assert len(payload) == opened.length[number]
    path, old = shard_of(opened, number), payload_of(opened, number)
    stored = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    size = path.stat().st_size
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in stored:
            writer.write(payload if each == old else each)
    assert path.stat().st_size == size


def frames_of(payload: bytes) -> list[bytes]:
    """The encoded frames in a payload."""
    example = tf.train.Example.FromString(payload)
    return list(example.features.feature["video"].bytes_list.value)


def with_frame(payload: bytes, number: int, frame: bytes) -> bytes:
    """The payload with another frame `number`, filled up with zeros."""
    old = frames_of(payload)[number]
    assert len(frame) <= len(old) and payload.count(old) == 1
    return payload.replace(old, frame.ljust(len(old), b"\0"))


def small_image(encoding: str, height: int, width: int) -> bytes:
    """A grey picture in few bytes."""
    buffer = io.BytesIO()
    picture = Image.new("RGB", (width, height), (99, 99, 99))
    picture.save(buffer, encoding, quality=20)
    return buffer.getvalue()
