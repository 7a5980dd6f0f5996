"""Access to paths on file systems and in object stores."""

import contextlib
import os
from collections.abc import Iterator
from typing import IO

from etils import epath

from ctp_jax import files


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
