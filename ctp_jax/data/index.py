"""Where every record of a prepared data set lies: the index beside the shards.

A TFRecord file is a chain of records: 8 bytes of length (little endian), 4 of
checksum, the payload, 4 of checksum. The payloads are `tf.train.Example` messages.
The index is made by walking both formats, without TensorFlow, touching only the
headers: that is how TFDS's own data sets, which come without one, can be read too.
"""

import contextlib
import dataclasses
import io
import json
import mmap
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from etils import epath

from ctp_jax.errors import UserError

INDEX_FILE = "ctp_index.npz"
STORED_SPLIT = "videos"
"""The TFDS split that holds every video of the data sets prepared here."""
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Features:
    """Which features of the records are used, by name, and how frames are encoded."""

    frames: str
    label: str | None = None
    boxes: str | None = None
    id: str | None = None


@dataclasses.dataclass(frozen=True)
class Index:
    """The index of a data set with n records in m files.

    Attributes:
        features: names of the features in the records.
        encoding: 'jpeg' or 'png'.
        class_names: in the order of the labels, () if unlabelled.
        files: (m,) file names, relative to the folder of the data set.
        file_size: int64 (m,), bytes.
        file_index: int32 (n,), which file.
        offset, length: int64 (n,), the payload in its file, bytes.
        num_frames, height, width, label: int32 (n,); sizes in pixels of the first
            stored frame; label -1 if there is none.
        ids: bytes (n,), UTF-8 names of the videos.
        splits: record numbers, int64, of every split.
    """

    features: Features
    encoding: str
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    file_size: np.ndarray
    file_index: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    num_frames: np.ndarray
    height: np.ndarray
    width: np.ndarray
    label: np.ndarray
    ids: np.ndarray
    splits: Mapping[str, np.ndarray]


ARRAYS = [
    "file_size",
    "file_index",
    "offset",
    "length",
    "num_frames",
    "height",
    "width",
    "label",
    "ids",
]


def write(directory: str | os.PathLike, found: Index) -> None:
    """Writes the index into the folder, whole or not at all. Raises `OSError`."""
    about = {
        "version": VERSION,
        "features": dataclasses.asdict(found.features),
        "encoding": found.encoding,
        "class_names": found.class_names,
        "files": found.files,
        "splits": list(found.splits),
    }
    arrays = {name: getattr(found, name) for name in ARRAYS}
    arrays |= {f"split:{name}": found.splits[name] for name in found.splits}
    text = json.dumps(about).encode()
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(text, np.uint8), **arrays)
    path = epath.Path(directory) / INDEX_FILE
    temporary = path.parent / f"{INDEX_FILE}.incomplete{os.getpid()}"
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def read(directory: str | os.PathLike) -> Index | None:
    """The index of the folder, or None if it has none that this version can read.

    Raises:
        UserError: a damaged file.
    """
    path = epath.Path(directory) / INDEX_FILE
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(io.BytesIO(file.read())) as stored:
            about = json.loads(stored["about"].tobytes())
            if about["version"] != VERSION:
                return None
            return Index(
                features=Features(**about["features"]),
                encoding=about["encoding"],
                class_names=tuple(about["class_names"]),
                files=tuple(about["files"]),
                splits={name: stored[f"split:{name}"] for name in about["splits"]},
                **{name: stored[name] for name in ARRAYS},
            )
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: the index is damaged ({error}); delete it and prepare again"
        ) from error


def scan(
    directory: str | os.PathLike,
    shard_lengths: Mapping[str, Sequence[int]],
    features: Features,
    *,
    class_names: Sequence[str] = (),
    splits: Mapping[str, Sequence[str]] | None = None,
) -> Index:
    """Makes the index by walking through the shards.

    Args:
        directory: of the shards.
        shard_lengths: numbers of records in the shards of every TFDS split.
        features: names of the features in the records.
        class_names: in the order of the labels.
        splits: names of the videos of every split; None takes TFDS's splits. Names
            that are not in the shards are left out.

    Raises:
        UserError: missing, truncated or foreign files.
    """
    files, rows, ranges = [], [], {}
    for split, lengths in shard_lengths.items():
        start = len(rows)
        for shard, expected in enumerate(lengths):
            path = _shard_path(directory, split, shard, len(lengths))
            found = list(scan_file(path, features))
            if len(found) != expected:
                raise UserError(
                    f"{path}: holds {len(found)} records where TFDS wrote {expected}; "
                    "prepare the data set again"
                )
            rows += [(len(files), *row) for row in found]
            files.append((path.name, path.stat().length))
        ranges[split] = np.arange(start, len(rows))
    names = [
        row[7] or f"{split}_{i:06d}".encode()
        for split, numbers in ranges.items()
        for i, row in enumerate(rows[n] for n in numbers)
    ]
    if splits is None:
        numbers = ranges
    else:
        where = {name.decode(): i for i, name in enumerate(names)}
        numbers = {
            split: np.array([where[v] for v in videos if v in where], np.int64)
            for split, videos in splits.items()
        }
    columns = list(zip(*rows)) or [()] * 9
    encodings = set(columns[8])
    if len(encodings) > 1:
        raise UserError(f"{directory}: both JPEG and PNG frames in one data set")
    return Index(
        features=features,
        encoding=encodings.pop() if encodings else "jpeg",
        class_names=tuple(class_names),
        files=tuple(name for name, _ in files),
        file_size=np.array([size for _, size in files], np.int64),
        file_index=np.array(columns[0], np.int32),
        offset=np.array(columns[1], np.int64),
        length=np.array(columns[2], np.int64),
        num_frames=np.array(columns[3], np.int32),
        height=np.array(columns[4], np.int32),
        width=np.array(columns[5], np.int32),
        label=np.array(columns[6], np.int32),
        ids=np.array(names, np.bytes_),
        splits={"all": np.arange(len(rows)), **numbers},
    )


def _shard_path(directory, split: str, shard: int, count: int) -> epath.Path:
    pattern = f"*-{split}.tfrecord-{shard:05d}-of-{count:05d}"
    paths = list(epath.Path(directory).glob(pattern))
    if len(paths) != 1:
        raise UserError(
            f"{directory}: {'no' if not paths else 'more than one'} file {pattern}; "
            "prepare the data set again"
        )
    return paths[0]


def scan_file(path: epath.Path, features: Features) -> Iterator[tuple]:
    """Yields (offset, length, frames, height, width, label, id, encoding) per record.

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
                yield offset, length, *_scan_example(data, offset, length, features)
            except (ValueError, IndexError, struct.error) as error:
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


def _scan_example(data, start: int, length: int, features: Features) -> tuple:
    """(frames, height, width, label, id, encoding) of a `tf.train.Example`."""
    frames, first, label, name = 0, (0, 0), -1, b""
    for key, kind, values in _features(data, start, start + length):
        if key == features.frames and kind == 1:
            for at, end in _fields(data, *values, field=1):
                first = first if frames else (at, end)
                frames += 1
        elif key == features.label and kind == 3:
            label = _first_int(data, *values)
        elif key == features.id and kind == 1:
            for at, end in _fields(data, *values, field=1):
                name = bytes(data[at:end])
    if not frames:
        raise ValueError(f"no frames under {features.frames!r}")
    height, width, encoding = image_size(data[first[0] : first[1]])
    return frames, height, width, label, name, encoding


def _features(data, start: int, end: int) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """Yields (name, kind, span of the values); kinds: 1 bytes, 2 float, 3 int64."""
    for features in _fields(data, start, end, field=1):
        for entry in _fields(data, *features, field=1):
            key = next(_fields(data, *entry, field=1))
            for value in _fields(data, *entry, field=2):
                for kind in (1, 2, 3):
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


def _first_int(data, start: int, end: int) -> int:
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


def read_features_json(tree: Mapping) -> Features:
    """Finds the frames, label, boxes and name in the schema that TFDS writes.

    Frames are a `Video` or a `Sequence` of `Image`, the label a `ClassLabel` or an
    integer called `label`.

    Raises:
        UserError: no frames, or several candidates for them.
    """
    fields = tree.get("content", {}).get("features", {})
    frames = [
        name
        for name, feature in fields.items()
        if "video" in feature
        or "image" in feature.get("sequence", {}).get("feature", {})
    ]
    if len(frames) != 1:
        raise UserError(
            "the data set has no single feature that is a video or a sequence of "
            f"images; its features are {', '.join(sorted(fields))}"
        )
    labels = sorted(name for name in fields if "classLabel" in fields[name])
    if "label" in fields:
        labels.insert(0, "label")
    return Features(
        frames=frames[0],
        label=labels[0] if labels else None,
        boxes="boxes" if "boxes" in fields else None,
        id="video_id" if "video_id" in fields else None,
    )
