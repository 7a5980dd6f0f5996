"""The index of a prepared data set, a file beside the shards: where every record is.

`ctp_jax.prepare` writes it from the receipts of the shards. Data sets that TFDS prepared
have none: their shards are scanned when they are first opened.
"""

import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from ctp_jax.data import tfrecord
from ctp_jax.errors import UserError, reason
from ctp_jax.storage import remote, untrusted

INDEX_FILE = "ctp_index.npz"
STORED_SPLIT = "videos"
"""The TFDS split that contains every video of the data sets prepared here."""
VERSION = 3
_MAX_BYTES = 1 << 32  # fifty million videos
_MAX_SIDE = 1 << 16  # pixels; JPEG has no larger frames
_MAX_RATIO = 4096  # pixels of a video to its bytes; JPEG has at most a few hundred

COLUMNS = {
    "file_index": np.int32,
    "offset": np.int64,
    "length": np.int64,
    "num_frames": np.int32,
    "height": np.int32,
    "width": np.int32,
    "label": np.int32,
    "fps": np.float32,
}
"""Arrays of the index with one number per record."""


_ABOUT = {
    "features": {"frames": str, "annotations": {str: [int]}},
    "encoding": str,
    "class_names": [str],
    "files": [str],
    "splits": [str],
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Table:
    """n records in m files.

    Attributes:
        features: names of the features in the records.
        encoding: of the frames, 'jpeg' or 'png'.
        class_names: in the order of the labels, () if unlabelled.
        files: (m,) names of the files, relative to the folder of the data set.
        file_size: int64 (m,), bytes.
        file_index: int32 (n,), which file.
        offset, length: int64 (n,), of the record's payload in its file, bytes.
        num_frames, height, width, label: int32 (n,); sizes in pixels of the first
            stored frame; label -1 if there is none.
        fps: float32 (n,), frames per second, 0 if unknown.
        id_bytes: bytes (n,), UTF-8 names of the videos.
    """

    features: tfrecord.Features
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
    fps: np.ndarray
    id_bytes: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Index(Table):
    """The index of a data set: its records, and the record numbers of every split."""

    splits: Mapping[str, np.ndarray]


def write(directory: str | os.PathLike, found: Index) -> None:
    """Writes the index into the folder, atomically. Raises `OSError`."""
    about = {
        "version": VERSION,
        "features": dataclasses.asdict(found.features),
        "encoding": found.encoding,
        "class_names": found.class_names,
        "files": found.files,
        "splits": list(found.splits),
    }
    arrays = {name: getattr(found, name) for name in COLUMNS}
    arrays |= {"file_size": found.file_size, "ids": found.id_bytes}
    arrays |= {f"split:{name}": numbers for name, numbers in found.splits.items()}
    text = json.dumps(about).encode()
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(text, np.uint8), **arrays)
    with remote.replacing(epath.Path(directory) / INDEX_FILE) as file:
        file.write(buffer.getvalue())


def read(directory: str | os.PathLike) -> Index | None:
    """The index of the folder, or None if there is none.

    Raises:
        UserError: a damaged file, or one of another version of this package.
    """
    path = epath.Path(directory) / INDEX_FILE
    if not path.exists():
        return None
    try:
        with remote.opened(path, _MAX_BYTES) as file:
            stored = untrusted.read_arrays(file)
        about = untrusted.parse_json(stored["about"].tobytes(), {"version": int})
        if about["version"] != VERSION:
            raise ValueError(f"version {about['version']}, not {VERSION}")
        untrusted.check_shape(about, _ABOUT)
        features = tfrecord.Features(**about["features"])
        shapes = {name: tuple(s) for name, s in features.annotations.items()}
        found = Index(
            features=dataclasses.replace(
                features,
                annotations=shapes,
                digest=str(features.digest),
                other=str(features.other),
            ),
            encoding=about["encoding"],
            class_names=tuple(about["class_names"]),
            files=tuple(about["files"]),
            splits={name: stored[f"split:{name}"] for name in about["splits"]},
            file_size=stored["file_size"],
            id_bytes=stored["ids"],
            **{name: stored[name] for name in COLUMNS},
        )
        _check(found)
        return found
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise UserError(
            f"{path}: this index cannot be read ({reason(error)}): prepare the "
            "data set again with --overwrite, or delete the file if TFDS made the data "
            "set"
        ) from error


def _check(found: Index) -> None:
    """Raises `ValueError` for numbers that no data set has.

    TensorFlow ends the process, or allocates without limit, where an offset, a length or
    a size is not what a file can hold.
    """
    count = len(found.id_bytes)
    places = {"file_size": (len(found.files), np.int64)}
    places |= {name: (count, dtype) for name, dtype in COLUMNS.items()}
    for name, (length, dtype) in places.items():
        array = getattr(found, name)
        if array.shape != (length,) or array.dtype != dtype:
            raise ValueError(f"{name} has another type or length")
    if found.id_bytes.ndim != 1 or found.id_bytes.dtype.kind != "S":
        raise ValueError("ids has another type or length")
    for name, numbers in found.splits.items():
        if (
            numbers.ndim != 1
            or numbers.dtype.kind != "i"
            or _outside(numbers, 0, count)
        ):
            raise ValueError(f"split {name!r} has other numbers than those of records")
    if _outside(found.file_index, 0, len(found.files)):
        raise ValueError("file_index has other numbers than those of files")
    # In this order, so that no sum overflows.
    size = found.file_size[found.file_index]
    room = size - found.offset - tfrecord.FOOTER
    pixels = found.num_frames * found.height.astype(float) * found.width
    wrong = {
        "offset": _outside(found.offset, tfrecord.HEADER, size + 1),
        "length": _outside(found.length, 1, room + 1),
        "num_frames": _outside(found.num_frames, 1, found.length + 1),
        "height": _outside(found.height, 1, _MAX_SIDE),
        "width": _outside(found.width, 1, _MAX_SIDE),
        "height and width": bool((pixels > _MAX_RATIO * found.length).any()),
        "label": _outside(found.label, -1, len(found.class_names) or 1 << 30),
        "fps": not (np.isfinite(found.fps) & (found.fps >= 0)).all(),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise ValueError(f"{name} has impossible values")


def _outside(numbers: np.ndarray, low: int, high: int | np.ndarray) -> bool:
    """Whether a number is below `low`, or not below `high`."""
    return bool(((numbers < low) | (numbers >= high)).any())


def scan(
    directory: str | os.PathLike,
    shard_lengths: Mapping[str, Sequence[int]],
    features: tfrecord.Features,
    *,
    class_names: Sequence[str] = (),
    splits: Mapping[str, Sequence[str]] | None = None,
) -> Index:
    """Builds the index by reading the shards.

    Args:
        directory: of the shards.
        shard_lengths: number of records in each shard of every TFDS split.
        features: names of the features in the records.
        class_names: in the order of the labels.
        splits: see `build`.

    Raises:
        UserError: missing, truncated or foreign files.
    """
    files, rows, ranges = [], [], {}
    for split, lengths in shard_lengths.items():
        start = sum(map(len, rows))
        for shard, expected in enumerate(lengths):
            pattern = f"*-{split}.tfrecord-{shard:05d}-of-{len(lengths):05d}"
            paths = list(epath.Path(directory).glob(pattern))
            if len(paths) != 1:
                raise UserError(
                    f"{directory}: {'no' if not paths else 'more than one'} file "
                    f"{pattern}; prepare the data set again"
                )
            found = list(tfrecord.scan_file(paths[0], features))
            if len(found) != expected:
                raise UserError(
                    f"{paths[0]}: has {len(found)} records, but TFDS wrote {expected}; "
                    "prepare the data set again"
                )
            rows.append(found)
            files.append((paths[0].name, remote.size(paths[0])))
        ranges[split] = np.arange(start, sum(map(len, rows)))
    return build(
        directory, files, rows, features, ranges, class_names=class_names, splits=splits
    )


def build(
    directory: str | os.PathLike,
    files: Sequence[tuple[str, int]],
    rows: Sequence[Sequence[tfrecord.Row]],
    features: tfrecord.Features,
    ranges: Mapping[str, np.ndarray],
    *,
    class_names: Sequence[str] = (),
    splits: Mapping[str, Sequence[str]] | None = None,
) -> Index:
    """Builds the index from the rows of every file.

    Args:
        directory: of the shards, for error messages.
        files: name and size, in bytes, of every file.
        rows: of the records of every file.
        features: names of the features in the records.
        ranges: record numbers of TFDS's splits.
        class_names: in the order of the labels.
        splits: names of the videos of every split, in its order; None: the splits are
            those of TFDS. Names without a record are left out.

    Raises:
        UserError: frames of several formats, or no records at all.
    """
    file_index = np.repeat(np.arange(len(files)), [len(found) for found in rows])
    records = [row for found in rows for row in found]
    encodings = {row.encoding for row in records}
    if len(encodings) != 1:
        raise UserError(f"{directory}: needs JPEG or PNG frames, has {encodings}")
    names = [
        records[n].id or f"{split}_{i:06d}".encode()
        for split, numbers in ranges.items()
        for i, n in enumerate(numbers)
    ]
    numbers = {name: number for number, name in enumerate(names)}
    if splits is not None:
        ranges = {
            split: np.array(
                [numbers[v] for v in map(str.encode, videos) if v in numbers], np.int64
            )
            for split, videos in splits.items()
        }
    columns = {
        column: np.array([getattr(row, column) for row in records], dtype)
        for column, dtype in COLUMNS.items()
        if column != "file_index"
    }
    return Index(
        features=features,
        encoding=encodings.pop(),
        class_names=tuple(class_names),
        files=tuple(name for name, _ in files),
        file_size=np.array([size for _, size in files], np.int64),
        file_index=file_index.astype(COLUMNS["file_index"]),
        **columns,
        id_bytes=np.array(names, np.bytes_),
        splits={"all": np.arange(len(records)), **ranges},
    )
