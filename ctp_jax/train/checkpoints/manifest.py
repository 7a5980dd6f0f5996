"""The manifest of a folder, `files.json`: detects any change to any file.

It lists the size and the SHA-256 of every file, and the names of the folders. The same
entries always give the same bytes, so a change to the manifest is detected too.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from ctp_jax.errors import UserError
from ctp_jax.storage import untrusted

NAME = "files.json"

LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EBADMSG, errno.EUCLEAN)
LOST += (errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.ENXIO)  # see `untrusted.opened`
"""Error numbers of a file that is lost, as opposed to one that cannot be read here.

EIO is not among them: network file systems use it for a server that does not answer.
"""

_BLOCK = 1 << 22


class Damage(Exception):
    """Something differs from what was written; the text names it."""


def write(folder: pathlib.Path) -> None:
    """Writes the manifest and flushes the whole folder to the disk."""
    entries = _entries(folder, sync=True)
    with open(folder / NAME, "wb") as file:
        file.write(_text(entries))
        file.flush()
        os.fsync(file.fileno())
    for name in [*entries, "."]:
        if name.endswith(("/", ".")) and (folder / name).is_dir():
            sync_folder(folder / name)


def check(folder: pathlib.Path) -> None:
    """Compares the files with the manifest.

    Raises:
        Damage: they differ, or there is no manifest.
        UserError: a file cannot be read here, and is not known to be damaged.
    """
    with reading(folder):
        text = untrusted.read_bytes(folder / NAME)
        found = _entries(folder)
    try:
        stored = untrusted.parse_json(text)
    except ValueError as error:
        raise Damage(f"{NAME} has changed") from error
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
    """Raises `Damage` for files that are lost, `UserError` for unreadable ones."""
    try:
        yield
    except OSError as error:
        name = os.path.relpath(error.filename or folder, folder)
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise Damage(f"{name} is missing") from error
        if error.errno in LOST:
            raise Damage(f"{name}: {error.strerror}") from error
        raise UserError(
            f"{folder}: {name} cannot be read ({error.strerror or error}), which does "
            "not mean damage: fix access and run the same command again"
        ) from error


def sync_folder(folder: pathlib.Path) -> None:
    """Flushes the entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems do not support it.
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
                entries[path.relative_to(folder).as_posix()] = _measured(path, sync)
    return dict(sorted(entries.items()))


def _measured(path: pathlib.Path, sync: bool) -> list[int | str]:
    size, sha256 = 0, hashlib.sha256()
    with untrusted.opened(path, sys.maxsize) as file:
        while block := file.read(_BLOCK):  # hashing releases Python's lock
            size += len(block)
            sha256.update(block)
        if sync:
            os.fsync(file.fileno())
    return [size, sha256.hexdigest()]


def _text(entries: dict[str, Any]) -> bytes:
    return (json.dumps(entries, indent=1) + "\n").encode()
