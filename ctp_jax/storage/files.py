"""Files that are written atomically or published, and locks between processes."""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import Any, TextIO

from ctp_jax.errors import TryLater, UserError

_PATIENCE = 120  # seconds to wait for the lock of another machine
_POLL = 2  # seconds between two looks at it


def absolute(path: str | os.PathLike) -> pathlib.Path:
    """The path from the root, `~` replaced. `UserError` where that is not known."""
    if re.match(r"\w+://", os.fspath(path)):
        raise UserError(f"{path}: must be on a disk: name a file or folder there")
    try:
        return pathlib.Path(path).expanduser().absolute()
    except RuntimeError as error:  # no HOME, and no entry among the users
        raise UserError(
            f"{path}: no home folder is known for ~: set HOME, or write the whole path"
        ) from error
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: the current folder is deleted: change to another one"
        ) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a new file to write, which is renamed to `path` unless the body fails.

    A reader sees the old file or the new one.
    """
    # A unique name, because two workers of Beam may write the same shard.
    new = pathlib.Path(f"{os.fspath(path)}.incomplete-{uuid.uuid4().hex}")
    try:
        yield new
        os.replace(new, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == os.fspath(new):
            error.filename = os.fspath(path)  # for messages
        raise


@contextlib.contextmanager
def replacing_inside(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder, whose files replace those of `folder` unless the body fails.

    Where `folder` has a link of that name, the link is replaced and not what it leads to.
    """
    with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=folder) as new:
        yield pathlib.Path(new)
        for path in pathlib.Path(new).iterdir():
            os.replace(path, folder / path.name)


@contextlib.contextmanager
def locked(
    path: str | os.PathLike, busy: str, remedy: str, patience: float | None = None
) -> Iterator[None]:
    """Holds a lock while the body runs, or until this process dies.

    Network file systems keep the locks of dead machines for a while, so this waits for a
    lock of another machine. On a file system without locks it prints a note.

    Args:
        path: of the lock; the file is not deleted.
        busy: for the message: what it means that another process holds the lock.
        remedy: for the message: what to do then.
        patience: seconds to wait for the lock of another machine; None: two minutes.

    Raises:
        TryLater: another process holds it.
        UserError: `path` is a folder, a link or a pipe.
    """
    try:
        lock = open(path, "a+", opener=_open_itself)  # noqa: SIM115 (closed below)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, None):
            raise
        raise UserError(f"{path}: is not a file, must be one: move it away") from error
    with lock:
        _take(lock, busy, remedy, patience)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def _open_itself(path: str, flags: int) -> int:
    """Opens no link, because the file that it leads to would be emptied; no pipe waits."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _take(lock: TextIO, busy: str, remedy: str, patience: float | None) -> None:
    folder = os.path.dirname(lock.name)
    deadline = time.monotonic() + (_PATIENCE if patience is None else patience)
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
        except OSError as error:
            _say(
                f"note: {folder}: no locks on this file system ({error.strerror}): do "
                "not start a second process there"
            )
            return
        here = holder.endswith(f" on {socket.gethostname()}")
        if here or time.monotonic() > deadline:
            # The system releases the lock of a dead process of this machine itself.
            dead = "" if here else f"; if its machine is dead, delete {lock.name}"
            raise TryLater(f"{folder}: {busy} ({holder}): {remedy}{dead}")
        if not told:
            _say(f"note: {folder}: waiting for the lock of {holder}")
            told = True
        time.sleep(_POLL)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def without_folders(value: Any) -> Any:
    """JSON to publish: of every path that starts at a root, only the last part.

    Other parts are names of users and machines. A relative path stays as it is, unless it
    leads out of its folder.
    """
    if isinstance(value, dict):
        return {name: without_folders(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and re.match(r"[/~\\]|\.\.[/\\]|\w+:[/\\]", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1].lstrip("~")
    return value
