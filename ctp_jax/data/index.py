"""The index of a prepared data set, a file beside the shards: where every record is.

`ctp_jax.prepare` writes it from the receipts of the shards. Data sets that TFDS prepared
have none: their shards are scanned when they are first opened.
"""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from ctp_jax.data import storage, tfrecord
from ctp_jax.errors import UserError

INDEX_FILE = "ctp_index.npz"
STORED_SPLIT = "videos"
"""The TFDS split that contains every video of the data sets prepared here."""
VERSION = 3

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
    with storage.replacing(epath.Path(directory) / INDEX_FILE) as file:
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
        with path.open("rb") as file, np.load(io.BytesIO(file.read())) as stored:
            about = json.loads(stored["about"].tobytes())
            if about["version"] != VERSION:
                raise ValueError(f"version {about['version']}, not {VERSION}")
            features = tfrecord.Features(**about["features"])
            shapes = {name: tuple(s) for name, s in features.annotations.items()}
            return Index(
                features=dataclasses.replace(features, annotations=shapes),
                encoding=about["encoding"],
                class_names=tuple(about["class_names"]),
                files=tuple(about["files"]),
                splits={name: stored[f"split:{name}"] for name in about["splits"]},
                file_size=stored["file_size"],
                id_bytes=stored["ids"],
                **{name: stored[name] for name in COLUMNS},
            )
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: this index cannot be read ({error}): prepare the data set again "
            "with --overwrite, or delete the file if TFDS made the data set"
        ) from error


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
            files.append((paths[0].name, storage.size(paths[0])))
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
    numbers = {name.decode(): number for number, name in enumerate(names)}
    if splits is not None:
        ranges = {
            split: np.array([numbers[v] for v in videos if v in numbers], np.int64)
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


def read_features_json(tree: Mapping) -> tfrecord.Features:
    """Finds the frames, label, boxes, name and frame rate in the schema of TFDS.

    Frames are a `Video` or a `Sequence` of `Image`, the label a `ClassLabel` or an
    integer called `label`.

    Raises:
        UserError: no frames, or several candidates for them.
    """
    fields = tree.get("featuresDict", {}).get("features", {})
    frames = [
        name
        for name, feature in fields.items()
        if "video" in feature
        or "image" in feature.get("sequence", {}).get("feature", {})
    ]
    if len(frames) != 1:
        raise UserError(
            f"the data set has the features {', '.join(sorted(fields))}: needs exactly "
            "one that is a video or a sequence of images"
        )
    labels = sorted(name for name in fields if "classLabel" in fields[name])
    if "label" in fields:
        labels.insert(0, "label")
    return tfrecord.Features(
        frames=frames[0],
        label=labels[0] if labels else None,
        annotations={"boxes": (4,)} if "boxes" in fields else {},
        id="video_id" if "video_id" in fields else None,
        fps="fps" if "fps" in fields else None,
    )
