"""Random access to the records of prepared data sets.

`open_records` says where the records are; `ctp_jax.data.reading` reads them. No
TensorFlow here.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from ctp_jax.data import index
from ctp_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Records:
    """One split of one prepared data set; n records in m files.

    Attributes:
        name: of the data set, as the user says it.
        split: of the data set.
        directory: of the shards.
        files: (m,) paths of the shards.
        file_size: int64 (m,), bytes.
        file_index: int32 (n,), which shard.
        offset, length: int64 (n,), bytes: where the payload of the TFRecord begins in
            its shard (behind the record's header), and its length.
        num_frames: int32 (n,).
        height, width: int32 (n,), pixels, of the stored frames.
        label: int32 (n,), -1 if there is none.
        fps: float32 (n,), frames per second, 0 if it is not known.
        class_names: in the order of the labels, () if unlabelled.
        frames_feature, label_feature: names in the records.
        annotations: see `ctp_jax.data.tfrecord.Features`.
        encoding: of the frames, 'jpeg' or 'png'.
        id_bytes: bytes (n,), see `ids`.
    """

    name: str
    split: str
    directory: str
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
    class_names: tuple[str, ...]
    frames_feature: str
    label_feature: str | None
    annotations: Mapping[str, Sequence[int]]
    encoding: str
    id_bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.offset)

    def __repr__(self) -> str:
        return f"Records({self.name!r}, {self.split!r}, {len(self)} records)"

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """str (n,), names of the videos, made when first asked for."""
        return np.char.decode(self.id_bytes, "utf-8")

    def id_of(self, number: int) -> str:
        """Name of one video; of a million, `ids` takes a second and many megabytes."""
        return self.id_bytes[number].decode()


def default_data_dir(data_dir: str = "") -> str:
    """`data_dir`, or else $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return os.path.expanduser(data_dir)


def open_records(name: str, split: str, data_dir: str = "") -> Records:
    """Opens one split of a prepared data set.

    Args:
        name: `arid6` for what `python -m ctp_jax.prepare` made; `ucf101/ucf101_1_256`
            (data set / config) or `ucf101/ucf101_1_256:2.0.0` for what TFDS itself
            made: any set whose frames are a `Video` or a `Sequence` of `Image`. Those
            are scanned once and the index is kept beside the shards.
        split: `all`, or one that the preparation listed.
        data_dir: empty for $TFDS_DATA_DIR, or else ~/tensorflow_datasets.

    Raises:
        UserError: not prepared, no such split, missing or truncated shards.
    """
    directory = find_directory(name, default_data_dir(data_dir))
    found = index.read(directory) or _scan_foreign(directory)
    numbers = found.splits.get(split)
    if numbers is None:
        raise UserError(
            f"data set {name!r} has no split {split!r}; its splits are "
            f"{', '.join(sorted(found.splits))}: set config.data.split and "
            "config.data.eval_split"
        )
    files = tuple(os.fspath(directory / file) for file in found.files)
    for file, size in zip(files, found.file_size):
        path = epath.Path(file)
        actual = path.stat().length if path.exists() else None
        if actual != size:
            state = "is missing" if actual is None else f"has {actual} bytes"
            raise UserError(
                f"{file}: {state} where the index says {size}: prepare the data set "
                f"again ({prepare_command(name, data_dir)} --overwrite)"
            )
    return Records(
        name=name,
        split=split,
        directory=os.fspath(directory),
        files=files,
        file_size=found.file_size,
        **{column: getattr(found, column)[numbers] for column in index.COLUMNS},
        class_names=found.class_names,
        frames_feature=found.features.frames,
        label_feature=found.features.label,
        annotations=found.features.annotations,
        encoding=found.encoding,
        id_bytes=found.ids[numbers],
    )


def take_fraction(opened: Records, fraction: float, seed: int) -> Records:
    """A share of the videos of every class (paper, Fig. 4).

    Which ones is a function of the seed and their names; those of a smaller fraction
    are among those of a larger one.

    Args:
        opened: a split.
        fraction: in (0, 1]; rounded to whole videos, class by class.
        seed: other videos.

    Raises:
        UserError: a fraction out of range, or one that leaves a class empty.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"config.data.fraction = {fraction}: needs 0 < fraction <= 1")
    if fraction == 1:
        return opened
    keys = [hashlib.sha256(b"%d/%s" % (seed, id_)).digest() for id_ in opened.id_bytes]
    order = np.array(sorted(range(len(opened)), key=keys.__getitem__), np.int64)
    labels, counts = np.unique(opened.label, return_counts=True)
    kept = []
    for label in labels:
        rows = order[opened.label[order] == label]
        count = int(fraction * len(rows) + 0.5 + 1e-9)  # half of a video counts as one
        if count == 0:
            name = opened.class_names[label] if label >= 0 else "unlabelled"
            raise UserError(
                f"config.data.fraction = {fraction} leaves class {name!r} of split "
                f"{opened.split!r} empty: it has {len(rows)} videos; with "
                f"{math.ceil(5000 / counts.min()) / 10000} or more every class keeps one"
            )
        kept.append(rows[:count])
    return select(opened, np.sort(np.concatenate(kept)))


def select(opened: Records, numbers: np.ndarray) -> Records:
    """Only these records of a split, int (m,), in this order."""
    columns = {
        name: getattr(opened, name)[numbers] for name in (*index.COLUMNS, "id_bytes")
    }
    return dataclasses.replace(opened, **columns)


def find_directory(name: str, data_dir: str) -> epath.Path:
    """The folder of the newest version, or of the one named, of a data set.

    Raises:
        UserError: there is none.
    """
    match = re.fullmatch(
        r"(?P<path>[\w.-]+(/[\w.-]+)?)(:(?P<version>\d+\.\d+\.\d+))?", name
    )
    if not match:
        raise UserError(
            f"data set {name!r}: needs NAME, or NAME/CONFIG[:VERSION] for a set that "
            "TFDS prepared"
        )
    root = epath.Path(data_dir) / match["path"]
    versions = {}
    if root.exists():
        for folder in root.iterdir():
            is_version = re.fullmatch(r"\d+\.\d+\.\d+", folder.name)
            if is_version and (folder / "dataset_info.json").exists():
                versions[tuple(map(int, folder.name.split(".")))] = folder
    if match["version"]:
        wanted = tuple(map(int, match["version"].split(".")))
        versions = {v: folder for v, folder in versions.items() if v == wanted}
    if not versions:
        raise UserError(
            f"data set {name!r} is not prepared in {data_dir}: run "
            f"`{prepare_command(name, data_dir)}`, or say where it is: "
            "--config.data.data_dir (benchmarks: --data_dir)"
        )
    return versions[max(versions)]


def prepare_command(name: str, data_dir: str = "") -> str:
    """What to type to prepare the data set."""
    where = f" --data_dir {data_dir}" if data_dir else ""
    if "/" in name:
        return f"tfds build {name}{where}"
    if name == "moving_shapes":
        return f"python -m ctp_jax.prepare {name}{where}"
    builder = re.sub(r"^kinetics(600|700).*", "kinetics400", name)
    if builder in ("ucf101", "hmdb51", "kinetics400", "something_something_v1"):
        named = f" --name {name}" if name != builder else ""
        return f"python -m ctp_jax.prepare {builder}{named} --videos DIR --lists DIR{where}"
    return f"python -m ctp_jax.prepare video_folder --name {name} --videos DIR{where}"


def _scan_foreign(directory: epath.Path) -> index.Index:
    """Indexes a data set that TFDS prepared, and keeps the index if it can."""
    about = json.loads((directory / "dataset_info.json").read_text())
    if about.get("fileFormat", "tfrecord") != "tfrecord":
        raise UserError(
            f"{directory}: stored as {about['fileFormat']}, but only tfrecord can be "
            "read: build it again with --file_format=tfrecord"
        )
    features = index.read_features_json(
        json.loads((directory / "features.json").read_text())
    )
    names_file = directory / f"{features.label}.labels.txt"
    names = names_file.read_text().split("\n") if names_file.exists() else []
    found = index.scan(
        directory,
        {
            s["name"]: [int(n) for n in s.get("shardLengths", ())]
            for s in about["splits"]
        },
        features,
        class_names=[name for name in names if name],
    )
    # If it is not our folder to write to, it is scanned again next time.
    with contextlib.suppress(OSError):
        index.write(directory, found)
    return found
