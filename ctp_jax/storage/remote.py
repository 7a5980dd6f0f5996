"""Access to paths on file systems and in object stores."""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import IO, Any

from etils import epath

from ctp_jax.errors import UserError, reason
from ctp_jax.storage import files, untrusted

_PATIENCE = 20  # seconds for the first answer of an object store


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is in an object store, `gs://...`."""
    return "://" in os.fspath(path)


def check_reachable(path: str, named: str) -> None:
    """Raises `UserError` unless the object store of a path answers within seconds.

    TensorFlow itself tries for minutes, and then again for every file.

    Args:
        path: on a file system, of which nothing is asked, or in a store.
        named: the flag or field that holds it, for the message.
    """
    if not is_remote(path):
        return
    try:
        place = epath.Path(path)
    except KeyError as error:
        raise UserError(
            f"{named}: no such kind of store: name one as gs://, or a folder"
        ) from error
    answers: list[Exception | None] = []

    def ask():
        try:
            place.exists()
            answers.append(None)
        except Exception as error:  # noqa: BLE001 (every store has its own types)
            answers.append(error)

    # A thread, because no setting limits how long it tries.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    error = answers[0] if answers else TimeoutError(f"no answer in {_PATIENCE} s")
    if error is not None:
        raise UserError(
            f"{named}: cannot be reached ({reason(error)}): check the path, the network "
            "and your credentials"
        ) from error


def size(path: str | os.PathLike) -> int:
    """The size of a file in bytes."""
    if is_remote(path):
        return epath.Path(path).stat().length
    # epath would look up the name of the owner, who may have none.
    return os.path.getsize(path)


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
    """Opens a file to read; on a file system as `ctp_jax.storage.untrusted.opened`."""
    if is_remote(path):
        return epath.Path(path).open("rb")
    return untrusted.opened(path, limit)


read_json = functools.partial(untrusted.read_json, open_file=opened)
"""As `ctp_jax.storage.untrusted.read_json`, also from object stores."""


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
