"""Files on a disk: written whole or not at all, and locks against other processes."""

import contextlib
import fcntl
import os
import pathlib
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from typing import TextIO

from ctp_jax.errors import TryLater

_PATIENCE = 120  # seconds to wait for the lock of another machine


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A new file to write, which takes the name `path` when nothing went wrong.

    A reader sees the old file or the new one.
    """
    # Beam may have two workers write the same shard: each has a file of its own.
    new = pathlib.Path(f"{os.fspath(path)}.incomplete-{uuid.uuid4().hex}")
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: str | os.PathLike, busy: str, remedy: str) -> Iterator[None]:
    """Holds a lock until the end or the death of this process.

    The lock of a machine that is gone may stay for a while on a network file system, so
    that of another machine is waited for. Without locks there, a note says so.

    Args:
        path: of the lock; the file stays.
        busy: what it means that another process holds it, for the message.
        remedy: what to do then.

    Raises:
        TryLater: another process holds it.
    """
    with open(path, "a+") as lock:
        _take(lock, busy, remedy)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def _take(lock: TextIO, busy: str, remedy: str) -> None:
    folder = os.path.dirname(lock.name)
    deadline = time.monotonic() + _PATIENCE
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
                f"note: {folder}: no locks on this file system ({error.strerror}): see "
                "to it that no second process is started there"
            )
            return
        here = holder.endswith(f" on {socket.gethostname()}")
        if here or time.monotonic() > deadline:
            # The system itself lets go of the lock of a dead process of this machine.
            dead = "" if here else f"; if its machine is dead, delete {lock.name}"
            raise TryLater(f"{folder}: {busy} ({holder}): {remedy}{dead}")
        if not told:
            _say(f"note: {folder}: waiting for {holder} to let go of it")
            told = True
        time.sleep(2)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
