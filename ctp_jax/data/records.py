"""Finds the records of a split of a prepared data set.

`open_records` says where the records are; `ctp_jax.data.reading` reads them. Imports no
TensorFlow.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Sequence

import numpy as np
from etils import epath

from ctp_jax import config as config_lib
from ctp_jax import terminal
from ctp_jax.data import index, tfrecord
from ctp_jax.errors import UserError, reason
from ctp_jax.storage import remote, untrusted


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Records(index.Table):
    """One split of a prepared data set; `files` are paths.

    Attributes:
        name: of the data set, as in the config.
        split: of the data set.
        directory: of the shards.
    """

    name: str
    split: str
    directory: str

    def __len__(self) -> int:
        return len(self.offset)

    def __repr__(self) -> str:
        return f"Records({self.name!r}, {self.split!r}, {len(self)} records)"

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """str (n,), names of the videos; decoded at the first access."""
        return np.char.decode(self.id_bytes, "utf-8", "backslashreplace")

    def digest(self) -> str:
        """12 hexadecimal digits, of the videos' names in their order and of their boxes."""
        names = b"\n".join(self.id_bytes.tolist())
        return hashlib.sha256(names + self.features.digest.encode()).hexdigest()[:12]

    def id_of(self, number: int) -> str:
        """Name of one video, without decoding all of them as `ids` does."""
        return self.id_bytes[number].decode(errors="backslashreplace")


def default_data_dir(data_dir: str = "") -> str:
    """`data_dir`, or else $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    found = os.path.expanduser(data_dir)
    if found.startswith("~"):
        raise UserError(
            f"{data_dir}: no home folder is known for ~: set HOME or TFDS_DATA_DIR, or "
            "give --config.data.data_dir (prepare: --data_dir)"
        )
    return found


def open_records(
    name: str,
    split: str,
    data_dir: str = "",
    stream: str = "rgb",
    needs: Sequence[str] = (),
) -> Records:
    """Opens one split of a prepared data set.

    Args:
        name: `arid6` for a data set of `python -m ctp_jax.prepare`; for one of TFDS
            `ucf101/ucf101_1_256` (data set / config) or `ucf101/ucf101_1_256:2.0.0`, if
            its frames are a `Video` or a `Sequence` of `Image`. The shards of TFDS are
            scanned once and the index is kept beside them.
        split: `all`, or one of the splits of the data set.
        data_dir: empty for $TFDS_DATA_DIR, or else ~/tensorflow_datasets.
        stream: 'rgb', or 'flow': the flow frames are then the frames, and the RGB frames
            the other stream.
        needs: annotations that the records should have, for the command that a message
            names.

    Raises:
        UserError: not prepared, no such split, no flow, missing or truncated shards.
    """
    directory, found = open_index(name, data_dir, needs)
    features = found.features
    if stream == "flow":
        check_other(name, features)
        features = dataclasses.replace(
            features, frames=features.other, other=features.frames
        )
    numbers = found.splits.get(split)
    if numbers is None:
        raise UserError(
            f"data set {name!r} has no split {split!r}; its splits are "
            f"{', '.join(sorted(found.splits))}: name them as arguments of a config that "
            "takes these (:data=NAME,train=...,test=...), or set config.data.split and "
            "config.data.eval_split; where that is empty, nothing is evaluated"
        )
    table = {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(index.Table)
    }
    table["features"] = features
    table["files"] = tuple(os.fspath(directory / file) for file in found.files)
    opened = Records(**table, name=name, split=split, directory=os.fspath(directory))
    return select(opened, numbers)


def check_other(name: str, features: tfrecord.Features) -> None:
    """Raises `UserError` where the records of a data set have no second stream."""
    if not features.other:
        raise UserError(
            f"data set {name!r}: has no stored flow: run `python -m ctp_jax.prepare flow "
            f"--from {name}` and set config.data.name to {name}_flow"
        )


def check_followed(opened: Records, follow: Sequence[str]) -> None:
    """Raises `UserError` for a data set without what `follow` of a `ClipSpec` names."""
    for name in follow:
        if name and name not in opened.features.annotations:
            command = f"tracks --from {opened.name}"
            if name != "tracks":
                command = f"boxes --name {opened.name}_boxes --videos DIR"
            raise UserError(
                f"data set {opened.name!r} has no {name} in its frames, which clips should "
                f"follow: `python -m ctp_jax.prepare {command}` makes one that has"
            )


def open_index(
    name: str, data_dir: str = "", needs: Sequence[str] = ()
) -> tuple[epath.Path, index.Index]:
    """The folder and the index of a prepared data set; raises as `open_records`."""
    root = default_data_dir(data_dir)
    remote.check_reachable(root, f"config.data.data_dir = {root}")
    directory = find_directory(name, root, needs)
    found = index.read(directory) or _scan_foreign(directory, name, data_dir)
    for file, size in zip(found.files, found.file_size, strict=True):
        path = directory / file
        actual = remote.size(path) if path.exists() else None
        if actual != size:
            state = "is missing" if actual is None else f"has {actual} bytes"
            foreign = f"-{index.STORED_SPLIT}." not in file
            again = prepare_command(name, data_dir, needs, foreign=foreign)
            raise UserError(
                f"{path}: {state}, needs {size} bytes: prepare the data set again "
                f"({again} --overwrite)"
            )
    return directory, found


def select(opened: Records, numbers: np.ndarray) -> Records:
    """Only these records of a split, int (m,), in this order."""
    columns = {
        name: getattr(opened, name)[numbers] for name in (*index.COLUMNS, "id_bytes")
    }
    return dataclasses.replace(opened, **columns)


def find_directory(name: str, data_dir: str, needs: Sequence[str] = ()) -> epath.Path:
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
        hint = config_lib.did_you_mean(name, prepared(data_dir))
        raise UserError(
            f"data set {name!r} is not prepared in {data_dir}: run "
            f"`{prepare_command(name, data_dir, needs)}`, or say where it is: "
            f"--config.data.data_dir (of commands without a config: --data_dir){hint}"
        )
    return versions[max(versions)]


def prepared(data_dir: str) -> list[str]:
    """Names of what may be data sets: none that is hidden, and so unfinished."""
    folder = epath.Path(data_dir)
    try:
        names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        return []
    return [name for name in names if not name.startswith(".")]


def prepare_command(
    name: str,
    data_dir: str = "",
    needs: Sequence[str] = (),
    foreign: bool = False,
    split: str = "",
) -> str:
    """The command that prepares the data set.

    Args:
        name: `config.data.name`.
        data_dir: where to, if not where data are by default.
        needs: annotations that it should have, 'boxes' or 'tracks'.
        foreign: TFDS prepared it.
        split: that is wanted.
    """
    where = f" --data_dir {data_dir}" if data_dir else ""
    if foreign or "/" in name:
        return f"tfds build {name}{where}"
    if name == "moving_shapes":
        return f"python -m ctp_jax.prepare {name}{where}"
    for kind in ("tracks", "flow"):
        if name.endswith(f"_{kind}"):
            source = name.removesuffix(f"_{kind}")
            return f"python -m ctp_jax.prepare {kind} --from {source}{where}"
    if name in ("boxes", "got10k"):
        return f"python -m ctp_jax.prepare {name} --videos DIR{where}"
    builder = re.sub(r"^kinetics(600|700).*", "kinetics400", name)
    if builder in ("ucf101", "hmdb51", "kinetics400", "something_something_v1"):
        named = f" --name {name}" if name != builder else ""
        return f"python -m ctp_jax.prepare {builder}{named} --videos DIR --lists DIR{where}"
    if "boxes" in needs:
        return f"python -m ctp_jax.prepare boxes --name {name} --videos DIR{where}"
    lists = " --lists DIR" * bool(re.fullmatch(r"(train|test)\d\d", split))
    command = f"python -m ctp_jax.prepare video_folder --name {name} --videos DIR"
    return f"{command}{lists}{where}"


def _scan_foreign(directory: epath.Path, name: str, data_dir: str) -> index.Index:
    """Scans a data set that TFDS prepared; stores the index if the folder is writable."""
    again = (
        f"prepare the data set again ({prepare_command(name, data_dir)} --overwrite)"
    )
    info = directory / "dataset_info.json"
    about = remote.read_json(info, again, {"splits": [{"name": str}]})
    lengths = {s["name"]: s.get("shardLengths", []) for s in about["splits"]}
    if index.STORED_SPLIT in lengths:
        # TFDS knows this split only. A run that takes it trains on its test videos.
        raise UserError(
            f"{directory}: {index.INDEX_FILE} is missing, which says which videos are for "
            f"training: {again}"
        )
    command = prepare_command(name, data_dir, foreign=True)
    again = f"prepare the data set again ({command} --overwrite)"
    terminal.announce(f"{directory}: reading all of it once, to make an index")
    if about.get("fileFormat", "tfrecord") != "tfrecord":
        raise UserError(
            f"{directory}: stored as {about['fileFormat']}, but only tfrecord can be "
            "read: build it again with --file_format=tfrecord"
        )
    try:
        untrusted.check_shape(lengths, {str: [str]})
        lengths = {split: list(map(int, each)) for split, each in lengths.items()}
    except ValueError as error:
        raise UserError(f"{info}: shardLengths: {error}: {again}") from error
    shape = {"featuresDict": {"features": {str: dict}}}
    features = tfrecord.read_features_json(
        remote.read_json(directory / "features.json", again, shape)
    )
    names = _read_lines(directory / f"{features.label}.labels.txt", again)
    found = index.scan(directory, lengths, features, class_names=names)
    # In a read-only folder, the data set is scanned again next time.
    with contextlib.suppress(OSError):
        index.write(directory, found)
    return found


def _read_lines(path: epath.Path, remedy: str) -> list[str]:
    """The lines of a file that are not empty; [] if there is no file."""
    if not path.exists():
        return []
    try:
        with remote.opened(path) as file:
            return [line for line in file.read().decode().split("\n") if line]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {reason(error)}: {remedy}") from error
