"""Files of features: written while they are computed, resumed, read.

`features.npz` holds arrays, a row per vector, v videos or segments of them:

    features  float32 (v, d)
    video     str (v,)      path of the video, as it was given
    time      float64 (v,)  seconds from its start to the clip; 0 for a whole video
    size      int64 (v,)    bytes of the file
    about     str           JSON: the encoder and what was measured, see `About`

A `.parquet` file has the same columns. What is not finished lies beside it, in a folder
`<name>.partial` of files of the same form.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ctp_jax import formatting
from ctp_jax.errors import UserError, reason, refusals
from ctp_jax.storage import files, untrusted

_EVERY = 20.0  # seconds between two files of the unfinished part
_COLUMNS = {"features": "f", "video": "U", "time": "f", "size": "i"}


class About(NamedTuple):
    """How features were made: only like ones go into one file.

    Attributes:
        encoder: `Encoder.fingerprint`.
        init_from: where that encoder was read from.
        every: seconds of a segment; 0: a vector for a whole video.
    """

    encoder: str
    init_from: str
    every: float


@dataclasses.dataclass
class Features:
    """The contents of a file, see above."""

    features: np.ndarray
    video: np.ndarray
    time: np.ndarray
    size: np.ndarray
    about: About

    def select(self, rows: Any) -> "Features":
        """Those of some rows."""
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return dataclasses.replace(self, **columns)


def check_name(path: pathlib.Path) -> None:
    """Raises `UserError` unless features can be written to a file of that name."""
    if path.suffix == ".parquet":
        _parquet(path)
    elif path.suffix != ".npz":
        raise UserError(f"--out={path}: needs a name that ends with .npz or .parquet")


def check_videos(path: pathlib.Path, videos: Iterable[str]) -> None:
    """Raises `UserError` unless the file can hold these names."""
    if path.suffix != ".parquet":
        return
    for video in videos:
        try:
            video.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{path}: {formatting.one_line(video)}: .parquet holds names in UTF-8 "
                "only: name a file that ends with .npz, or rename the video"
            ) from None


def read(path: pathlib.Path) -> Features:
    """The features of a file.

    Raises:
        UserError: it is not there, damaged, or no such file.
    """
    again = "name a file that `python -m ctp_jax.features` wrote"
    try:
        if path.suffix == ".parquet":
            columns, about = _read_parquet(path)
        else:
            with untrusted.opened(path, sys.maxsize) as file:
                columns = untrusted.read_arrays(file)
            about = str(columns.pop("about"))
        if {name: kind.dtype.kind for name, kind in columns.items()} != _COLUMNS:
            raise ValueError(f"needs the columns {', '.join(_COLUMNS)}")
        if columns["features"].ndim != 2 or len({*map(len, columns.values())}) != 1:
            raise ValueError("its columns have different lengths")
        shape = {"encoder": str, "init_from": str, "every": float}
        found = untrusted.parse_json(about, shape)
        return Features(**columns, about=About(**{name: found[name] for name in shape}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: {reason(error)}: {again}") from error


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """While entered, no other process writes the file; `TryLater` if one does."""
    folder = _partial(path)
    with refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
    busy = "another command is writing these features"
    lock, remedy = folder / "lock", "wait for it or name another --out"
    with files.locked(lock, busy, remedy, 0):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it has unfinished parts, or is gone
                folder.rmdir()


def _partial(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.partial")


class Writer:
    """Collects features and keeps them safe.

    Attributes:
        known: what an earlier call has left, rows of videos that are not to be computed
            again.
    """

    def __init__(self, path: pathlib.Path, about: About):
        """Reads what is there.

        Args:
            path: of the finished file.
            about: what is to be written.

        Raises:
            UserError: there are features of another kind, or a damaged file.
        """
        self._path, self._about = path, about
        self._partial = _partial(path)
        unfinished = sorted(self._partial.glob("*.npz"))
        found = {path: read(path)} if path.exists() else {}
        for part in unfinished:
            try:
                found[part] = read(part)
            except UserError as error:
                if isinstance(error.__cause__, OSError):
                    raise
                print(  # a power cut leaves such
                    f"note: {part}: is damaged, its videos are computed again",
                    file=sys.stderr,
                )
        for part, each in found.items():
            if each.about._replace(init_from="") != about._replace(init_from=""):
                raise UserError(
                    f"{part}: has features of another encoder, or with another --every: "
                    "name another --out, or delete it"
                )
        self.known = _join([*found.values()], about)
        self._rows: list[Features] = []
        numbers = [int(part.stem) for part in unfinished if part.stem.isdecimal()]
        self._saved, self._next = time.monotonic(), max(numbers, default=-1) + 1

    def add(
        self, video: str, size: int, starts: np.ndarray, features: np.ndarray
    ) -> None:
        """Adds the vectors of a video, (v, d); from time to time, writes them."""
        count = len(features)
        rows = Features(
            features.astype(np.float32),
            np.full(count, video),
            starts.astype(np.float64),
            np.full(count, size, np.int64),
            self._about,
        )
        self._rows.append(rows)
        if time.monotonic() - self._saved > _EVERY:
            self.save()

    def save(self) -> None:
        """Writes what was added since the last time beside the finished file."""
        if self._rows:
            with refusals(self._partial):
                self._partial.mkdir(parents=True, exist_ok=True)
                part = self._partial / f"{self._next:06}.npz"
                _write(part, _join(self._rows, self._about))
            self.known = _join([self.known, *self._rows], self._about)
            self._rows, self._next = [], self._next + 1
        self._saved = time.monotonic()

    def finish(self, videos: Iterable[str]) -> Features:
        """Writes the file, with the videos in this order and then all others."""
        joined = _join([self.known, *self._rows], self._about)
        order = {video: number for number, video in enumerate(videos)}
        known = joined.video.tolist()
        keys = [
            (order.get(video, len(order)), video, time)
            for video, time in zip(known, joined.time.tolist(), strict=True)
        ]
        joined = joined.select(sorted(range(len(keys)), key=keys.__getitem__))
        with refusals(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _write(self._path, joined)
            shutil.rmtree(self._partial, ignore_errors=True)
        return joined


def _join(parts: list[Features], about: About) -> Features:
    """All rows; a later video of the same name replaces an earlier one."""
    parts = [part for part in parts if len(part.video)]
    if not parts:
        none = np.zeros(0)
        return Features(
            np.zeros((0, 0), np.float32),
            none.astype(str),
            none,
            none.astype(int),
            about,
        )
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in _COLUMNS
    }
    whose = np.repeat(np.arange(len(parts)), [len(part.video) for part in parts])
    last = dict(zip(columns["video"].tolist(), whose.tolist(), strict=True))
    rows = whose == [last[video] for video in columns["video"].tolist()]
    return Features(**columns, about=about).select(rows)


def _write(path: pathlib.Path, found: Features) -> None:
    columns = {name: getattr(found, name) for name in _COLUMNS}
    about = json.dumps(found.about._asdict())
    with files.replacing(path) as new:
        if path.suffix == ".npz":
            with new.open("wb") as file:
                np.savez(file, about=np.array(about), **columns)
            return
        pyarrow, parquet = _parquet(path)
        width = found.features.shape[1]
        values = pyarrow.array(found.features.ravel())
        columns["features"] = pyarrow.FixedSizeListArray.from_arrays(values, width)
        table = pyarrow.table(columns).replace_schema_metadata({"about": about})
        parquet.write_table(table, os.fspath(new))


def _read_parquet(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str]:
    _, parquet = _parquet(path)
    with untrusted.opened(path, sys.maxsize) as file:
        table = parquet.read_table(file)
    columns = {name: table[name].combine_chunks() for name in _COLUMNS}
    values = columns.pop("features")
    found = {name: np.array(column.to_pylist()) for name, column in columns.items()}
    flat = values.flatten().to_numpy(zero_copy_only=False)
    found["features"] = flat.reshape(len(values), -1)
    return found, table.schema.metadata[b"about"].decode()


def _parquet(path: pathlib.Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"{path}: needs pyarrow: pip install pyarrow, or name a file that ends with "
            ".npz"
        ) from None
    return pyarrow, pyarrow.parquet
