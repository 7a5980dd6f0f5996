"""Small files of a run, written whole or not at all."""

import contextlib
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax
import numpy as np

from ctp_jax import files
from ctp_jax.errors import UserError
from ctp_jax.versions import installed

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_PACKAGES += ("tensorflow", "tensorflow-cpu", "tensorflow-datasets", "ml-collections")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes indented JSON; a reader sees the old file or the new one."""
    with files.replacing(path) as new:
        new.write_text(json.dumps(value, indent=2) + "\n")


def write_arrays(path: pathlib.Path, **arrays: Any) -> None:
    """Writes an .npz file; a reader sees the old file or the new one."""
    # To a file, for to a name NumPy would add an ending.
    with files.replacing(path) as new, new.open("wb") as file:
        np.savez(file, **arrays)


def versions() -> dict[str, str]:
    """What the run runs on: packages, commit where there is one, devices."""
    return {
        **installed(_PACKAGES),
        "python": platform.python_version(),
        "commit": _commit(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


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


def locked(workdir: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Holds the workdir against a second run, until the end or the death of this one.

    Raises:
        TryLater: another run holds it.
    """
    if jax.process_index() != 0:
        return contextlib.nullcontext()
    return files.locked(
        workdir / ".lock",
        "another run is going on there",
        "wait for it, stop it, or use another --workdir",
    )
