"""Small files of a run, written whole or not at all."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any, TextIO

import jax
import numpy as np

import ctp_jax
from ctp_jax.errors import TryLater, UserError

_LOCK_PATIENCE = 120  # seconds
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_PACKAGES += ("tensorflow", "tensorflow-cpu", "tensorflow-datasets", "ml-collections")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes indented JSON; a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def write_arrays(path: pathlib.Path, **arrays: Any) -> None:
    """Writes an .npz file; a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:  # np.savez would add an ending to a name
        np.savez(file, **arrays)
    os.replace(temporary, path)


def versions() -> dict[str, str]:
    """What the run runs on: packages, commit where there is one, devices."""
    found = {"ctp_jax": ctp_jax.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["commit"] = _commit()
    found["devices"] = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return found


def _commit() -> str:
    """The commit of the checkout that runs; empty for an installed package."""
    command = ["git", "-C", os.path.dirname(__file__), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def make_workdir(workdir: str | os.PathLike) -> pathlib.Path:
    """The absolute path of a folder that is there now; `UserError` if it cannot be."""
    if "://" in os.fspath(workdir):
        raise UserError(
            f"--workdir={workdir}: needs a folder of a file system that all processes "
            "share (NFS, Lustre, Filestore); data may lie in a bucket, runs may not"
        )
    path = pathlib.Path(workdir).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir}: {error.strerror}: name a folder that is there or can "
            "be made"
        ) from error
    if not os.access(path, os.W_OK):
        raise UserError(f"--workdir={workdir}: cannot be written to")
    return path


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the workdir against a second run, until the end or the death of this one.

    The lock of a machine that is gone may stay for a while on a network file system, so
    that of another machine is waited for.

    Raises:
        TryLater: another run holds it.
    """
    if jax.process_index() != 0:
        yield
        return
    with open(workdir / ".lock", "a+") as lock:
        _take(lock, workdir)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def _take(lock: TextIO, workdir: pathlib.Path) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
        except OSError as error:
            print(
                f"note: {workdir}: no locks there ({error.strerror}): see to it that no "
                "second run is started in it",
                flush=True,
            )
            return
        here = holder.endswith(f" on {socket.gethostname()}")
        if here or time.monotonic() > deadline:
            # The system itself lets go of the lock of a dead process of this machine.
            dead = "" if here else f"; if its machine is dead, delete {lock.name}"
            raise TryLater(
                f"{workdir}: another run is going on there ({holder}): wait for it, stop "
                f"it, or use another --workdir{dead}"
            )
        if not told:
            print(f"note: {workdir}: waiting for {holder} to let go of it", flush=True)
            told = True
        time.sleep(2)
