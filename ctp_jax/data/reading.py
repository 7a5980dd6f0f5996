"""One record inside a TensorFlow graph: its bytes, checked, and what is in them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Int

from ctp_jax.data.records import Records
from ctp_jax.errors import UserError

HEADER, FOOTER = 12, 4
"""Bytes of a TFRecord before and behind its payload: length and checksums."""


def reader(records: Records) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function that reads the payload of one record.

    The tables become constants once, here, and not in every call.

    Returns:
        Function of an int64 scalar, the record number, that gives a string scalar. It
        raises where the file cannot be read, ends too early, or where the checksums
        that TFRecord keeps of length and payload do not fit them.
    """
    # On the host whatever else is there: strings live nowhere else.
    with tf.device("/CPU:0"):
        files = tf.constant(records.files)
        file_index = tf.constant(records.file_index, tf.int32)
        offset = tf.constant(records.offset, tf.int64)
        length = tf.constant(records.length, tf.int64)

    def read(number):
        # The op behind `TFRecordDataset`, which itself starts at the first byte only.
        from_here = tf.raw_ops.TFRecordDatasetV2(
            filenames=files[file_index[number]][None],
            compression_type="",
            # One request gets all of it, which matters where files are far away.
            buffer_size=length[number] + HEADER + FOOTER,
            byte_offsets=offset[number][None] - HEADER,
        )
        spec = tf.TensorSpec([], tf.string)
        dataset = tf.data.experimental.from_variant(from_here, spec)
        return dataset.take(1).get_single_element()

    return read


def parser(records: Records) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function that takes a payload apart.

    Returns:
        Function of a string scalar that gives a dict, see
        `read_features`. It raises where the payload is no
        `tf.train.Example` with these features.
    """
    many = functools.partial(tf.io.FixedLenSequenceFeature, allow_missing=True)
    wanted = {records.frames_feature: many([], tf.string)}
    if records.label_feature:
        wanted[records.label_feature] = tf.io.FixedLenFeature([], tf.int64, -1)
    for name, shape in records.annotations.items():
        wanted[name] = many(shape, tf.float32)

    def parse(payload):
        example = tf.io.parse_single_example(payload, wanted)
        result = {"frames": example[records.frames_feature]}
        if records.label_feature:
            result["label"] = example[records.label_feature]
        else:
            result["label"] = tf.constant(-1, tf.int64)
        result["annotations"] = {name: example[name] for name in records.annotations}
        return result

    return parse


def checker(records: Records) -> Callable[[tf.Tensor, dict[str, Any]], dict[str, Any]]:
    """A function of a record number and what `parser` made of its payload.

    Returns:
        Function that gives back what it got, and raises where a record has not as many
        frames, or annotations, as the index says.
    """
    with tf.device("/CPU:0"):
        num_frames = tf.constant(records.num_frames, tf.int32)

    def check(number, features):
        counted = {"frames": features["frames"], **features["annotations"]}
        for name, values in counted.items():
            fits = tf.equal(tf.shape(values)[0], num_frames[number])
            # Inside a function it runs, used or not.
            tf.debugging.Assert(fits, [f"another number of {name} than is indexed"])
        return features

    return check


def read_features(records: Records) -> Callable[[Any], dict[str, Any]]:
    """A function that reads one record inside a TensorFlow graph.

    Returns:
        Function of an int64 scalar tensor, the record number, that gives a dict:
            frames: string (k,), the encoded images.
            label: int64 (), -1 if there is none.
            annotations: {name: float32 (k, ...)}, see `Records.annotations`.
        It raises `tf.errors.OpError` where the record cannot be read, or has not as
        many frames as the index says.
    """
    read, parse = reader(records), parser(records)
    check = checker(records)
    return lambda number: check(number, parse(read(number)))


def middle_frames(
    records: Records, numbers: Sequence[int] | Int[np.ndarray, " n"]
) -> list[np.ndarray]:
    """The middle frame of each record, uint8 (h, w, 3), as it is stored.

    Args:
        records: a split.
        numbers: record numbers in it.

    Raises:
        UserError: a record cannot be read.
    """
    read = read_features(records)
    pictures = []
    with tf.device("/CPU:0"):
        for number in numbers:
            try:
                frames = read(tf.constant(int(number), tf.int64))["frames"]
                middle = frames[len(frames) // 2]
                image = tf.io.decode_image(middle, channels=3, expand_animations=False)
            # TensorFlow may quote the broken bytes, which are then no text.
            except (tf.errors.OpError, UnicodeDecodeError) as error:
                raise UserError(
                    f"{records.directory}: video {records.id_of(int(number))} cannot be "
                    "read; was the data set changed or damaged? prepare it again"
                ) from error
            pictures.append(image.numpy())
    return pictures
