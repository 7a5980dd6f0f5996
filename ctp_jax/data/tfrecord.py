"""TFRecord files of videos: framing of records, and finding what is in a file.

A TFRecord file is a chain of records: 8 bytes of length (little endian), 4 of
checksum, the payload, 4 of checksum. The payloads are `tf.train.Example` messages:
protocol buffers that map the names of features to lists of bytes, floats or integers.
Both are walked here without TensorFlow, and of a mapped file only the pages with
headers are read.
"""

import contextlib
import dataclasses
import io
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import google_crc32c
from etils import epath

from ctp_jax.errors import UserError

BYTES, FLOATS, INTEGERS = 1, 2, 3
"""Kinds of lists, by their field number in `tf.train.Feature`."""


@dataclasses.dataclass(frozen=True)
class Features:
    """Names of the features of a record that are used; None for those it lacks.

    Attributes:
        frames: list of encoded images.
        label: integer, the class.
        annotations: {name: shape of one frame's value} of floats that every frame has;
            `boxes`, of shape (..., 4), are x1 y1 x2 y2 in pixels of the stored frames.
        id: name of the video.
        fps: frames per second.
    """

    frames: str
    label: str | None = None
    annotations: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    id: str | None = None
    fps: str | None = None


class Row(NamedTuple):
    """What the index keeps of one record.

    Attributes:
        offset, length: of the payload in its file, bytes.
        num_frames: number of frames.
        height, width: of the first frame, pixels.
        label: -1 if there is none.
        fps: 0 if it is not known.
        id: UTF-8, empty if there is none.
        encoding: 'jpeg' or 'png'.
    """

    offset: int
    length: int
    num_frames: int
    height: int
    width: int
    label: int
    fps: float
    id: bytes
    encoding: str


def frame(payload: bytes) -> tuple[bytes, bytes]:
    """What stands before and after a payload in a TFRecord file."""
    length = struct.pack("<Q", len(payload))
    return length + _masked_checksum(length), _masked_checksum(payload)


def _masked_checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as the format has it, little endian."""
    checksum = google_crc32c.value(data)
    rotated = checksum >> 15 | checksum << 17
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def scan_file(path: epath.Path, features: Features) -> Iterator[Row]:
    """Yields a row for every record of a file.

    Raises:
        UserError: a file that is truncated or holds something else.
    """
    with _mapped(path) as data:
        position, size = 0, len(data)
        while position < size:
            offset = position + 12
            length = -1
            if offset <= size:
                (length,) = struct.unpack_from("<Q", data, position)
            position = offset + length + 4
            if length < 0 or position > size:
                raise UserError(
                    f"{path}: cut short at byte {size} in a record; "
                    "prepare the data set again"
                )
            try:
                yield _scan_example(data, offset, length, features)
            except (ValueError, IndexError, StopIteration, struct.error) as error:
                raise UserError(
                    f"{path}: the record at byte {offset} cannot be read ({error})"
                ) from error


@contextlib.contextmanager
def _mapped(path: epath.Path):
    """The bytes of a file: mapped where it is local and not empty, else read."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
            yield file.read()
            return
    with data:
        yield data


def _scan_example(data, start: int, length: int, features: Features) -> Row:
    """The row of the `tf.train.Example` in the bytes start : start + length."""
    frames, first, label, fps, name = 0, (0, 0), -1, 0.0, b""
    for key, kind, values in _features(data, start, start + length):
        if (key, kind) == (features.frames, BYTES):
            for span in _fields(data, *values, field=1):
                first = first if frames else span
                frames += 1
        elif (key, kind) == (features.label, INTEGERS):
            label = _first_integer(data, *values)
        elif (key, kind) == (features.fps, FLOATS):
            # A single float is the last thing in its list, packed or not.
            (fps,) = struct.unpack_from("<f", data, values[1] - 4)
        elif (key, kind) == (features.id, BYTES):
            for at, end in _fields(data, *values, field=1):
                name = bytes(data[at:end])
    if not frames:
        raise ValueError(f"no frames under {features.frames!r}")
    height, width, encoding = image_size(data[first[0] : first[1]])
    return Row(start, length, frames, height, width, label, fps, name, encoding)


def _features(data, start: int, end: int) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """Yields (name, kind, span of the list) of every feature."""
    for features in _fields(data, start, end, field=1):
        for entry in _fields(data, *features, field=1):
            key = next(_fields(data, *entry, field=1))
            for value in _fields(data, *entry, field=2):
                for kind in (BYTES, FLOATS, INTEGERS):
                    for values in _fields(data, *value, field=kind):
                        yield bytes(data[key[0] : key[1]]).decode(), kind, values


def _fields(data, start: int, end: int, field: int) -> Iterator[tuple[int, int]]:
    """Yields the spans of a protocol buffer's length-delimited fields of one number."""
    while start < end:
        tag, start = _varint(data, start)
        if tag & 7 == 2:
            size, start = _varint(data, start)
            if tag >> 3 == field:
                yield start, start + size
            start += size
        elif tag & 7 == 0:
            _, start = _varint(data, start)
        elif tag & 7 in (1, 5):
            start += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError(f"protocol buffer tag {tag}")
    if start > end:
        raise ValueError("a field reaches over the end of its message")


def _first_integer(data, start: int, end: int) -> int:
    """The first number of an Int64List, packed or not; -1 if it is empty."""
    if start == end:
        return -1
    tag, start = _varint(data, start)
    if tag & 7 == 2:
        _, start = _varint(data, start)
    value, _ = _varint(data, start)
    return value - (1 << 64) if value >> 63 else value


def _varint(data, position: int) -> tuple[int, int]:
    """(value, position after it)."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def image_size(image: bytes) -> tuple[int, int, str]:
    """(height, width, 'jpeg' or 'png') from the header of an image file.

    Raises:
        ValueError: another format.
    """
    if image[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", image[16:24])
        return height, width, "png"
    position = 2
    while image[:2] == b"\xff\xd8" and position + 9 <= len(image):
        marker, size = struct.unpack_from(">xBH", image, position)
        # Start of frame, of any of JPEG's processes; C4, C8 and CC are other things.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", image, position + 5)
            return height, width, "jpeg"
        position += 2 + size
    raise ValueError("frames are neither JPEG nor PNG")
