"""Reads and parses one record inside a TensorFlow graph."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Int

from ctp_jax.data.records import Records
from ctp_jax.data.tfrecord import FOOTER, HEADER
from ctp_jax.errors import UserError

# TensorFlow may quote damaged bytes in its message, which are then no UTF-8.
READ_ERRORS = (tf.errors.OpError, UnicodeDecodeError)


def reader(records: Records) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function that reads the payload of one record.

    Its tables become constants here, once, and not in every call.

    Returns:
        Function of an int64 scalar, the record number, that returns a string scalar. It
        raises if the file cannot be read or is truncated, or if a checksum of the
        record is wrong.
    """
    # String tensors exist on the CPU only.
    with tf.device("/CPU:0"):
        files = tf.constant(records.files)
        file_index = tf.constant(records.file_index, tf.int32)
        offset = tf.constant(records.offset, tf.int64)
        length = tf.constant(records.length, tf.int64)

    def read(number):
        # `TFRecordDataset` itself can only start at the first byte of a file.
        from_here = tf.raw_ops.TFRecordDatasetV2(
            filenames=files[file_index[number]][None],
            compression_type="",
            # One request for the whole record: matters for object stores.
            buffer_size=length[number] + HEADER + FOOTER,
            byte_offsets=offset[number][None] - HEADER,
        )
        spec = tf.TensorSpec([], tf.string)
        dataset = tf.data.experimental.from_variant(from_here, spec)
        return dataset.take(1).get_single_element()

    return read


def parser(records: Records) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function that parses a payload.

    Returns:
        Function of a string scalar that returns a dict, see `read_features`. It raises
        if the payload is no `tf.train.Example` with these features.
    """
    many = functools.partial(tf.io.FixedLenSequenceFeature, allow_missing=True)
    names = {"frames": records.features.frames, "other": records.features.other}
    streams = {stream: name for stream, name in names.items() if name}
    wanted = {name: many([], tf.string) for name in streams.values()}
    if records.features.label:
        wanted[records.features.label] = tf.io.FixedLenFeature([], tf.int64, -1)
    for name, shape in records.features.annotations.items():
        wanted[name] = many(shape, tf.float32)

    def parse(payload):
        example = tf.io.parse_single_example(payload, wanted)
        label = records.features.label
        return {
            **{stream: example[name] for stream, name in streams.items()},
            "label": example[label] if label else tf.constant(-1, tf.int64),
            "annotations": {
                name: example[name] for name in records.features.annotations
            },
        }

    return parse


def checker(records: Records) -> Callable[[tf.Tensor, dict[str, Any]], dict[str, Any]]:
    """A function of a record number and its parsed features, see `parser`.

    Returns:
        Function that returns the features, and raises if the number of frames or
        annotations is not the one in the index.
    """
    with tf.device("/CPU:0"):
        num_frames = tf.constant(records.num_frames, tf.int32)

    def check(number, features):
        counted = {n: features[n] for n in ("frames", "other") if n in features}
        counted |= features["annotations"]
        for name, values in counted.items():
            fits = tf.equal(tf.shape(values)[0], num_frames[number])
            # In a `tf.function` the op runs although its result is not used.
            tf.debugging.Assert(fits, [f"another number of {name} than is indexed"])
        return features

    return check


def read_features(records: Records) -> Callable[[Any], dict[str, Any]]:
    """A function that reads one record inside a TensorFlow graph.

    Returns:
        Function of an int64 scalar tensor, the record number, that returns a dict:
            frames: string (k,), the encoded images.
            other: likewise, if `Features.other` is in the records.
            label: int64 (), -1 if there is none.
            annotations: {name: float32 (k, ...)}, see `ctp_jax.data.tfrecord.Features`.
        It raises `tf.errors.OpError` if the record cannot be read, or if its number of
        frames is not the one in the index.
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
    for number in numbers:
        middle = int(records.num_frames[number]) // 2
        pictures += stored_frames(records, int(number), [middle], read)
    return pictures


def stored_frames(
    records: Records,
    number: int,
    times: Iterable[int],
    read: Callable[[Any], dict[str, Any]] | None = None,
) -> Iterator[np.ndarray]:
    """Frames of a record as they are stored, uint8 (h, w, 3), one after the other.

    Args:
        records: a split.
        number: record number in it.
        times: which frames.
        read: `read_features(records)`, to make it once for several records.

    Raises:
        UserError: the record cannot be read.
    """
    try:
        with tf.device("/CPU:0"):
            read = read or read_features(records)
            frames = read(tf.constant(number, tf.int64))["frames"]
        for time in times:
            with tf.device("/CPU:0"):
                image = tf.io.decode_image(
                    frames[time], channels=3, expand_animations=False
                )
            yield image.numpy()
    except READ_ERRORS as error:
        raise UserError(
            f"{records.directory}: video {records.id_of(number)} cannot be read: "
            "prepare the data set again"
        ) from error
