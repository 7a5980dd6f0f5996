"""Locks of folders in buckets, by writes that succeed only if nobody wrote in between.

The lock is an object. Whoever creates it, if it is not there, holds the folder, and writes
it again every `_BEAT` seconds, if it still is as he wrote it. A lock that nobody has
written for `_LEASE` seconds is that of a dead process, and is taken over. No clocks of two
machines are compared.
"""

import contextlib
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator

from ctp_jax import terminal
from ctp_jax.errors import TryLater, UserError
from ctp_jax.storage import buckets, untrusted

_BEAT, _LEASE, _POLL = 20.0, 90.0, 2.0  # seconds

_SHAPE = {"holder": str, "machine": str, "pid": int, "token": str}

_held: dict[str, "_Lock"] = {}  # by address


@contextlib.contextmanager
def held(folder: buckets.Folder, busy: str, remedy: str) -> Iterator[None]:
    """Holds the lock of a folder while the body runs.

    Args:
        folder: to lock.
        busy: for the message: what it means that another process holds the lock.
        remedy: for the message: what to do then.

    Raises:
        TryLater: another process holds it.
    """
    lock = _Lock(folder)
    lock.acquire(busy, remedy)
    ended = threading.Event()
    beat = threading.Thread(target=lock.beat, args=(ended,), daemon=True)
    beat.start()
    _held[folder.address] = lock
    try:
        yield
    finally:
        del _held[folder.address]
        ended.set()
        lock.release()


def check(path: pathlib.Path) -> None:
    """Raises `UserError` if another process has taken a lock of this process over.

    Args:
        path: the place of the locked folder; one that is not locked passes.
    """
    folder = buckets.at(path)
    if folder is not None and folder.address in _held:
        _held[folder.address].renew()


class _Lock:
    """The lock of a folder. Several threads may use it."""

    def __init__(self, folder: buckets.Folder):
        self._folder, self._mutex = folder, threading.Lock()
        self._token, self._version = secrets.token_hex(8), buckets.ABSENT
        self._beats = 0

    def acquire(self, busy: str, remedy: str) -> None:
        """Takes the lock, or waits whether its holder is alive; `TryLater` if he is."""
        found, version = self._folder.read(buckets.LOCK)
        since, told = time.monotonic(), False
        while True:
            holder = _parsed(found)
            dead = _is_dead(holder) or time.monotonic() > since + _LEASE
            if found is None or dead:
                if self._write(version):
                    return
                found, version = self._folder.read(buckets.LOCK)  # somebody was faster
                since = time.monotonic()
                continue
            if not told:
                told = True
                terminal.write(
                    f"note: {self._folder.address}: has the lock of {holder['holder']}: "
                    f"waiting up to {_LEASE:.0f} s for a sign of life"
                )
            time.sleep(_POLL)
            found, now = self._folder.read(buckets.LOCK)
            if found is not None and now != version:
                raise TryLater(
                    f"{self._folder.address}: {busy} ({_parsed(found)['holder']}): {remedy}"
                )
            version = now

    def _write(self, version: bytes) -> bool:
        """Writes the lock if it has a version, and says whether it is ours now."""
        # The number makes every content, and so every version in S3, another.
        self._beats += 1
        text = json.dumps(_ourselves() | {"token": self._token, "beat": self._beats})
        written = self._folder.write(buckets.LOCK, text.encode(), version)
        if written is None:
            # Also if an answer was lost, and the second try met what the first had done.
            found, written = self._folder.read(buckets.LOCK)
            if _parsed(found)["token"] != self._token:
                return False
        self._version = written
        return True

    def renew(self) -> None:
        """Writes the lock again; `UserError` if it is another process's by now."""
        with self._mutex:
            if self._write(self._version):
                return
            # Without a lock, too: somebody who thought us dead has been here, and ended.
            found, _ = self._folder.read(buckets.LOCK)
            raise UserError(
                f"{self._folder.address}: another run has taken this folder over "
                f"({_parsed(found)['holder']}): nothing more is saved here"
            )

    def beat(self, ended: threading.Event) -> None:
        """Renews the lock until the end."""
        while not ended.wait(_BEAT):
            with contextlib.suppress(UserError):  # `check` meets it, too
                self.renew()

    def release(self) -> None:
        """Deletes the lock, if it is still ours."""
        with self._mutex, contextlib.suppress(UserError):
            self._folder.delete([buckets.LOCK], self._version)


def _parsed(found: bytes | None) -> dict:
    """What a lock says; for one that is damaged, of an unknown process."""
    try:
        return untrusted.parse_json(found or b"", _SHAPE)
    except ValueError:
        return {"holder": "an unknown process", "machine": "", "pid": 0, "token": ""}


def _ourselves() -> dict:
    name = f"process {os.getpid()} on {socket.gethostname()}"
    return {"holder": name, "machine": _machine(), "pid": os.getpid()}


def _machine() -> str:
    """Identifies what process numbers belong to; empty where it is not known."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_dead(holder: dict) -> bool:
    """Whether a process was of this machine and has ended."""
    if not holder["machine"] or holder["machine"] != _machine():
        return False
    if holder["token"] in [lock._token for lock in _held.values()]:
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return holder["pid"] == os.getpid()  # the number was given again
