"""TFRecord files of videos: their framing, and a scan of what they contain.

A TFRecord file is a sequence of records: 8 bytes of length (little endian), 4 of
checksum, the payload, 4 of checksum. The payloads are `tf.train.Example` messages,
which map the names of features to lists of bytes, floats or integers. Only a scan
imports TensorFlow.
"""

import dataclasses
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import google_crc32c
from etils import epath
from PIL import Image

from ctp_jax.errors import UserError
from ctp_jax.storage import remote

HEADER, FOOTER = 12, 4
"""Bytes of a record before and after its payload: length and checksums."""


@dataclasses.dataclass(frozen=True)
class Features:
    """Names of the features of a record; None for those that it lacks.

    Attributes:
        frames: list of encoded images.
        label: integer, the class.
        annotations: {name: shape per frame} of float features with a value per frame;
            `boxes`, of shape (..., 4), are x1 y1 x2 y2 in pixels of the stored frames.
        id: name of the video.
        fps: frames per second.
        digest: of what the annotations were made from; empty if that is not known.
        other: list of encoded images, as many as frames and of the same size: the same
            frames in another stream, which is optical flow; empty if there is none.
    """

    frames: str
    label: str | None = None
    annotations: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    id: str | None = None
    fps: str | None = None
    digest: str = ""
    other: str = ""


class Row(NamedTuple):
    """The entry of one record in the index.

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
    """The bytes before and after a payload in a TFRecord file."""
    length = struct.pack("<Q", len(payload))
    return length + _masked_checksum(length), _masked_checksum(payload)


def _masked_checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as the format requires, little endian."""
    checksum = google_crc32c.value(data)
    rotated = checksum >> 15 | checksum << 17
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def scan_file(path: epath.Path, features: Features) -> Iterator[Row]:
    """Yields a row for every record of a file.

    Raises:
        UserError: a file that is truncated or contains something else.
    """
    position, size = 0, remote.size(path)
    with path.open("rb") as file:
        while position < size:
            header, length = file.read(HEADER), -1
            if len(header) == HEADER:
                (length,) = struct.unpack_from("<Q", header)
            offset = position + HEADER
            position = offset + length + FOOTER
            if length < 0 or position > size:
                raise UserError(
                    f"{path}: cut short at byte {size} in a record; "
                    "prepare the data set again"
                )
            payload, _ = file.read(length), file.read(FOOTER)
            try:
                yield _row(payload, offset, features)
            # Protocol buffers have an error of their own for bytes that are none.
            except Exception as error:
                raise UserError(
                    f"{path}: the record at byte {offset} cannot be read ({error}); "
                    "prepare the data set again"
                ) from error


def _row(payload: bytes, offset: int, features: Features) -> Row:
    """The row of a serialized `tf.train.Example` at a byte of its file."""
    import tensorflow as tf

    stored = tf.train.Example.FromString(payload).features.feature

    def values(name: str | None, kind: str) -> Sequence:
        return getattr(stored[name], kind).value if name and name in stored else ()

    frames = values(features.frames, "bytes_list")
    if not frames:
        raise ValueError(f"no frames under {features.frames!r}")
    height, width, encoding = image_size(frames[0])
    return Row(
        offset=offset,
        length=len(payload),
        num_frames=len(frames),
        height=height,
        width=width,
        label=next(iter(values(features.label, "int64_list")), -1),
        fps=next(iter(values(features.fps, "float_list")), 0.0),
        id=next(iter(values(features.id, "bytes_list")), b""),
        encoding=encoding,
    )


def image_size(image: bytes) -> tuple[int, int, str]:
    """(height, width, 'jpeg' or 'png') from the header of an image file.

    Raises:
        ValueError: another format.
    """
    try:
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as opened:
            encoding = "png" if opened.format == "PNG" else "jpeg"
            return opened.height, opened.width, encoding
    except OSError as error:
        raise ValueError("frames are neither JPEG nor PNG") from error


def read_features_json(tree: Mapping) -> Features:
    """Finds the frames, label, boxes, name and frame rate in the schema of TFDS.

    Frames are a `Video` or a `Sequence` of `Image`, the label a `ClassLabel` or an
    integer called `label`.

    Args:
        tree: {'featuresDict': {'features': {name: an object}}}.

    Raises:
        UserError: no frames, or several candidates for them.
    """
    fields = tree["featuresDict"]["features"]
    frames = [
        name
        for name, feature in fields.items()
        if "video" in feature or "image" in _inside(feature, "sequence", "feature")
    ]
    if len(frames) != 1:
        raise UserError(
            f"the data set has the features {', '.join(sorted(fields))}: needs exactly "
            "one that is a video or a sequence of images"
        )
    labels = sorted(name for name in fields if "classLabel" in fields[name])
    if "label" in fields:
        labels.insert(0, "label")
    return Features(
        frames=frames[0],
        label=labels[0] if labels else None,
        annotations={"boxes": (4,)} if "boxes" in fields else {},
        id="video_id" if "video_id" in fields else None,
        fps="fps" if "fps" in fields else None,
    )


def _inside(tree: Any, *names: str) -> Mapping:
    """The object at a place of nested ones; {} if there is none."""
    for name in names:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}
