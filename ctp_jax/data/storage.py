"""Access to paths on file systems and in object stores."""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import IO, Any

from etils import epath

from ctp_jax import files, untrusted


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is in an object store, `gs://...`."""
    return "://" in os.fspath(path)


def absolute(path: str) -> str:
    """The path from the root; that of an object store as it is."""
    return path if is_remote(path) else os.path.abspath(path)


def walk_store(folder: str) -> Iterator[tuple[str, list[str]]]:
    """The folders below one of an object store, and the names of the files in each."""
    top = folder.rstrip("/")
    inside = top.partition("://")[2]
    for parent, _, names in epath.Path(top).walk():
        # Some of epath's backends lose the scheme.
        path = os.fspath(parent).rpartition("://")[2].strip("/")
        yield top + path.removeprefix(inside), names


def opened(path: str | os.PathLike, limit: int = untrusted.JSON_BYTES) -> Any:
    """Opens a file to read; on a file system as `ctp_jax.untrusted.opened`."""
    if is_remote(path):
        return epath.Path(path).open("rb")
    return untrusted.opened(path, limit)


read_json = functools.partial(untrusted.read_json, open_file=opened)
"""As `ctp_jax.untrusted.read_json`, also from object stores."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when it is complete.

    Objects in a store appear when they are closed, so they are written directly.
    """
    if is_remote(path):
        with epath.Path(path).open("wb") as file:
            yield file
        return
    with files.replacing(path) as new, new.open("wb") as file:
        yield file
