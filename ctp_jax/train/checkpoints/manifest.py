"""A folder with a list of its files: any change to any of them is noticed.

The list, `files.json`, holds the size and the SHA-256 of every file, and the names of
the folders. It is written in one way only, so a change to itself is noticed, too.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ctp_jax.errors import UserError

NAME = "files.json"

LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EBADMSG, errno.EUCLEAN)
LOST += (errno.ELOOP,)
"""What a file system says of a file that is lost, as opposed to one that is refused.

EIO is not among them: a network file system says it of a server that does not answer.
"""

_BLOCK = 1 << 22


class Damage(Exception):
    """What was written is not there any more; the text says what, in a few words."""


def write(folder: pathlib.Path) -> None:
    """Writes the list, and has the disk hold everything before it returns."""
    entries = _entries(folder, sync=True)
    with open(folder / NAME, "wb") as file:
        file.write(_text(entries))
        file.flush()
        os.fsync(file.fileno())
    for name in [*entries, "."]:
        if name.endswith(("/", ".")) and (folder / name).is_dir():
            sync_folder(folder / name)


def _read_list(text: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise Damage(f"{NAME} has changed") from error


def check(folder: pathlib.Path) -> None:
    """Compares the files with the list.

    Raises:
        Damage: a difference, or no list.
        UserError: a file that may not be read here.
    """
    with reading(folder):
        text = (folder / NAME).read_bytes()
        stored = _read_list(text)
        found = _entries(folder)
    for name in dict.fromkeys([*stored, *found]):
        if name not in found:
            raise Damage(f"{name} is missing")
        if name not in stored:
            raise Damage(f"{name} should not be there")
        if stored[name] != found[name]:
            raise Damage(f"{name} has changed")
    if _text(found) != text:
        raise Damage(f"{NAME} has changed")


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
    """Tells files that are lost from files that are kept from this process."""
    try:
        yield
    except OSError as error:
        name = os.path.relpath(error.filename or folder, folder)
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise Damage(f"{name} is missing") from error
        if error.errno in LOST:
            raise Damage(f"{name}: {error.strerror}") from error
        raise UserError(
            f"{folder}: {name} cannot be read here ({error.strerror or error}), which is "
            "no damage: see to it that it can, and run the same command again"
        ) from error


def sync_folder(folder: pathlib.Path) -> None:
    """Has the disk hold the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no such thing.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entries(folder: pathlib.Path, sync: bool = False) -> dict[str, Any]:
    """{'state/d/file': [size, SHA-256], 'state/d/': None}, by name."""
    entries = {}

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        inside = pathlib.Path(place)
        for name in folders:
            entries[f"{(inside / name).relative_to(folder).as_posix()}/"] = None
        for name in names:
            path = inside / name
            if path != folder / NAME:
                entry = _measured(path, sync) if path.is_file() else None
                entries[path.relative_to(folder).as_posix()] = entry
    return dict(sorted(entries.items()))


def _measured(path: pathlib.Path, sync: bool) -> list[int | str]:
    size, sha256 = 0, hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):  # the lock is released while it is hashed
            size += len(block)
            sha256.update(block)
        if sync:
            os.fsync(file.fileno())
    return [size, sha256.hexdigest()]


def _text(entries: dict[str, Any]) -> bytes:
    return (json.dumps(entries, indent=1) + "\n").encode()
