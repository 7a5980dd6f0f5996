"""The folder of a run: made, locked, and its small files written atomically."""

import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ctp_jax.errors import UserError
from ctp_jax.storage import bucket_lock, buckets, files
from ctp_jax.versions import installed

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_PACKAGES += ("tensorflow", "tensorflow-cpu", "tensorflow-datasets", "ml-collections")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes indented JSON; a reader sees the old file or the new one."""
    with files.replacing(path) as new:
        new.write_text(json.dumps(value, indent=2) + "\n")


def write_arrays(path: pathlib.Path, **arrays: Any) -> None:
    """Writes an .npz file; a reader sees the old file or the new one."""
    # NumPy would add an ending to a name, but not to an open file.
    with files.replacing(path) as new, new.open("wb") as file:
        np.savez(file, **arrays)


def versions() -> dict[str, str]:
    """Versions of packages, the commit if there is one, and the devices."""
    return {
        **installed(_PACKAGES),
        "python": platform.python_version(),
        "commit": _commit(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def _commit() -> str:
    """The git commit of this package; empty if it is installed."""
    command = ["git", "-C", os.path.dirname(__file__), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def make_workdir(workdir: str | os.PathLike) -> tuple[pathlib.Path, bool]:
    """Creates the workdir; `UserError` if that fails.

    Returns:
        Its absolute path, of a bucket that of its place on this machine (see
        `ctp_jax.storage.buckets`), and whether it was not there before.
    """
    if "://" in os.fspath(workdir) and not buckets.is_address(workdir):
        raise UserError(
            f"--workdir={workdir}: no such kind of store: name gs://BUCKET/FOLDER, "
            "s3://BUCKET/FOLDER, or a folder on a file system that all processes share"
        )
    path = buckets.place(workdir)
    new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir}: {error.strerror}: name a folder that exists or can be "
            "created"
        ) from error
    if not os.access(path, os.W_OK):
        raise UserError(f"--workdir={workdir}: no write permission: name another")
    buckets.at(path)  # raises if the bucket does not answer
    return path, new


def command() -> list[str]:
    """The command line of this process, from `python` on; [] if it is none of ours."""
    for place, each in enumerate(sys.orig_argv):
        if each.startswith("ctp_jax.") and sys.orig_argv[place - 1] == "-m":
            return ["python", "-m", *sys.orig_argv[place:]]
    return []


@contextlib.contextmanager
def deleted_if_refused(workdir: pathlib.Path) -> Iterator[None]:
    """Deletes a workdir in which there is no run, if the body raises an error.

    A run begins with its `config.json`. What was refused before leaves a lock and an empty
    folder of checkpoints.
    """
    try:
        yield
    except Exception:
        if jax.process_index() == 0 and not (workdir / "config.json").exists():
            with contextlib.suppress(OSError):
                (workdir / "checkpoints").rmdir()
            inside = {path.name for path in workdir.iterdir()}
            if inside <= {".lock", ".shared"}:
                for name in inside:
                    (workdir / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    workdir.rmdir()
        raise


def locked(workdir: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Locks the workdir against a second run, as long as this process lives.

    Raises:
        TryLater: another run holds it.
    """
    if jax.process_index() != 0:
        return contextlib.nullcontext()
    busy = "another run uses this folder"
    remedy = "wait for it, stop it, or use another --workdir"
    if (folder := buckets.at(workdir)) is not None:
        return bucket_lock.held(folder, busy, remedy)
    return files.locked(workdir / ".lock", busy, remedy)
