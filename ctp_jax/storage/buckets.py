"""Folders in object stores, `gs://BUCKET/FOLDER` and `s3://BUCKET/FOLDER`.

The rest of the package works with files on a disk. A folder in a bucket has a place on
this machine, in a temporary folder that is deleted at the end:

    $TMPDIR/ctp_jax-bucket-*/gs/BUCKET/FOLDER

What is read is copied there first (`opened`, `fetch`), and what was written there is
copied to the bucket afterwards (`push`, `replace`). For folders on a disk, these functions
do nothing. Messages name the address (`ctp_jax.errors.shown`).

An object appears as a whole or not at all, but a folder has no such moment: a folder that
must be whole has a file that is written last and deleted first.
"""

import atexit
import contextlib
import errno
import fcntl
import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from ctp_jax.errors import UserError, name_in_messages, refusals
from ctp_jax.storage import files, object_store

ABSENT = b"\x02"
"""The version of an object that is not there."""

LOCK = ".lock"
"""The name of the lock of a folder, see `bucket_lock`."""

_APART = ("checkpoints", "damaged", "encoder")
"""Folders of a run that are written as a whole, see `replace`."""

_PREFIX = "ctp_jax-bucket-"
_DEADLINE = 1800  # seconds for one object

# Sizes and times of files that the bucket has, by path.
_same: dict[pathlib.Path, tuple[int, int] | None] = {}


def is_address(path: object) -> bool:
    """Whether a path is that of a bucket."""
    starts = tuple(f"{scheme}://" for scheme in object_store.DRIVERS)
    return isinstance(path, str) and path.startswith(starts)


@functools.cache
def root() -> pathlib.Path:
    """The temporary folder of this process, in which buckets have their places."""
    with contextlib.suppress(OSError):
        _delete_left_behind()
    made = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    lock = os.open(made / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends
    os.rename(made / "new", made / LOCK)  # no other process sees it unlocked
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    for scheme in object_store.DRIVERS:
        name_in_messages(f"{made}/{scheme}/", f"{scheme}://")
    return made


def _delete_left_behind() -> None:
    """Deletes the temporary folders of processes that were killed."""
    for path in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
            finally:
                os.close(lock)


def place(path: str | os.PathLike) -> pathlib.Path:
    """Where a path is on this machine: itself, or the place of an address.

    Raises:
        UserError: no such kind of address.
    """
    if not is_address(path):
        return files.absolute(path)
    scheme, _, rest = os.fspath(path).partition("://")
    parts = rest.rstrip("/").split("/")
    if not all(map(_is_name, parts)):
        raise UserError(f"{path}: needs {scheme}://BUCKET/FOLDER")
    return root().joinpath(scheme, *parts)


def _is_name(part: str) -> bool:
    """Whether a part of an object's name can be one of a path."""
    return part not in ("", ".", "..") and "\0" not in part


def at(path: pathlib.Path) -> "Folder | None":
    """The folder of a bucket whose place this is; None for a folder on a disk."""
    if not root.cache_info().currsize or not path.is_relative_to(root()):
        return None
    parts = path.relative_to(root()).parts
    if len(parts) < 2:  # above all buckets
        return None
    return Folder(parts[0], parts[1], "/".join(parts[2:]), path)


class Folder:
    """A folder of a bucket. Names of objects are relative to it.

    All methods raise `UserError` where the store refuses, `TryLater` where it does not
    answer.

    Attributes:
        address: with its scheme.
        place: of the folder on this machine.
    """

    def __init__(self, scheme: str, bucket: str, folder: str, place: pathlib.Path):
        self.address, self.place = f"{scheme}://{bucket}/{folder}".rstrip("/"), place
        self._prefix = f"{folder}/" if folder else ""
        self._store = object_store.connected(scheme, bucket, self._prefix)

    def names(self, inside: str = "") -> list[str]:
        """Names of all objects, sorted; those in a folder inside, if it is given."""
        import tensorstore

        start = self._prefix + inside
        end = start[:-1] + chr(ord(start[-1]) + 1) if start else ""
        listing = self._store.list(tensorstore.KvStore.KeyRange(start, end))
        keys = self._wait(listing, "list")
        if not keys and self.address.startswith("gs:"):
            # TensorStore takes Google's refusal to list for an empty list. But of what
            # is not there, Google tells only those who may list.
            self._wait(self._store.read(f"{start}.lock"), "list")
        names = (key.decode(errors="replace")[len(self._prefix) :] for key in keys)
        # Consoles make objects like `folder/`. Other names cannot be files here.
        return sorted(n for n in names if all(map(_is_name, n.split("/"))))

    def read(self, name: str) -> tuple[bytes | None, bytes]:
        """The contents of an object, None if it is not there, and its version."""
        found = self._wait(self._store.read(self._prefix + name), "read")
        value = None if found.state == "missing" else found.value
        return value, found.stamp.generation

    def write(self, name: str, data: bytes, version: bytes = b"") -> bytes | None:
        """Writes an object.

        Args:
            name: of the object.
            data: its contents.
            version: if given, the object must have it, or be absent for `ABSENT`.

        Returns:
            The new version; None if the object had another than `version`.
        """
        writing = self._store.write(self._prefix + name, data, if_equal=version)
        return self._wait(writing, "write").generation or None

    def delete(self, names: Iterable[str], version: bytes = b"") -> None:
        """Deletes objects, if they have the version; those that are not there, too."""
        doomed = [
            self._store.write(self._prefix + name, None, if_equal=version)
            for name in names
        ]
        for each in doomed:
            self._wait(each, "delete")

    def upload(self, names: Iterable[str]) -> None:
        """Copies files from the place to the bucket."""
        marks, writing = {}, []
        for name in names:
            path = self.place / name
            with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
                marks[path] = _mark(path)
                data = path.read_bytes()
                writing.append(self._store.write(self._prefix + name, data))
        for each in writing:
            self._wait(each, "write")
        _same.update(marks)

    def download(self, names: Iterable[str]) -> None:
        """Copies objects to the place. Those that are not there are left out."""
        reading = {name: self._store.read(self._prefix + name) for name in names}
        for name, each in reading.items():
            found, path = self._wait(each, "read"), self.place / name
            if found.state == "missing":
                continue
            with refusals(disk()):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(found.value)
            _same[path] = _mark(path)

    def _wait(self, future: Any, doing: str) -> Any:
        try:
            return future.result(timeout=_DEADLINE)
        except Exception as error:
            raise object_store.explained(error, self.address, doing) from error


def disk() -> str:
    """For messages: where the copies are on this machine."""
    return f"{root()} (copies of what is in buckets; TMPDIR moves them)"


def opened(path: str | os.PathLike) -> pathlib.Path:
    """`place`, to read a run or an encoder there: with the files that it begins with."""
    found = place(path)
    pull(found)
    return found


def pull(path: pathlib.Path) -> None:
    """Copies the files of a run from the bucket, except checkpoints and arrays."""
    folder = at(path)
    if folder is None:
        return
    names = folder.names()
    small = [n for n in names if "/" not in n and not n.startswith(".")]
    folder.download([*small, *{"encoder/encoder.json"}.intersection(names)])
    for inside in {name.partition("/")[0] for name in names if "/" in name}:
        (path / inside).mkdir(parents=True, exist_ok=True)


def push(path: pathlib.Path) -> None:
    """Copies the files of a run to the bucket that have changed.

    Not those of `_APART`, which have copies of their own. Of TensorBoard's, no other stay.
    """
    folder = at(path)
    if folder is None:
        return
    names = [n for n in _files(path) if n.partition("/")[0] not in _APART]
    board = [name for name in names if name.startswith("tensorboard/")]
    if any(path / name not in _same for name in board):
        # Of a new process, which has written the lines of those before it again.
        folder.delete(set(folder.names("tensorboard/")) - set(board))
    folder.upload(n for n in names if _mark(path / n) != _same.get(path / n))


def replace(
    path: pathlib.Path, last: str, before: Callable[[], None] = lambda: None
) -> None:
    """Makes a folder of the bucket as it is here. A reader finds the old one, or none.

    Args:
        path: of the folder.
        last: the file without which the folder counts as absent.
        before: called before that is written.
    """
    folder = at(path)
    if folder is None:
        return
    there, here = folder.names(), _files(path)
    folder.delete({last}.intersection(there))
    folder.upload(name for name in here if name != last)
    folder.delete(set(there) - set(here))
    before()
    folder.upload([last])


def fetch(path: pathlib.Path) -> pathlib.Path:
    """Copies a whole folder from the bucket; returns its path."""
    folder = at(path)
    if folder is not None:
        shutil.rmtree(path, ignore_errors=True)
        folder.download(folder.names())
    return path


def _files(path: pathlib.Path) -> list[str]:
    """Names of the files in a folder, apart from those that are being written."""
    found = (each for each in path.rglob("*") if each.is_file())
    names = (each.relative_to(path).as_posix() for each in found)
    return sorted(n for n in names if n[0] != "." and ".incomplete-" not in n)


def _mark(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_size, about.st_mtime_ns


def lost(path: pathlib.Path) -> FileNotFoundError:
    """The error of a file that is not there."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
