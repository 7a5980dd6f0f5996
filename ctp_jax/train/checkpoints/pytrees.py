"""Reads and writes pytrees of arrays. The only module that imports Orbax."""

import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ctp_jax.storage import buckets, untrusted

_MAX_RATIO = 1000  # of arrays to their files; those of a network compress to a half


def start_saving(path: pathlib.Path, tree: Any) -> Callable[[], None]:
    """Starts to write a tree in the background; every process calls this.

    Args:
        path: must not exist.
        tree: of arrays; already copied off the devices on return, may be donated.

    Returns:
        A function that waits until all is written, and raises the errors of that.
    """
    # A new one each time, because a checkpointer keeps raising an earlier error.
    checkpointer = ocp.StandardCheckpointer()
    if jax.process_count() > 1 and buckets.at(path) is not None:
        # No folder that the processes share, in which each could write a part.
        if jax.process_index() != 0:
            return lambda: None
        checkpointer = _alone()
        tree = jax.tree.map(_own_copy, tree)
    checkpointer.save(path, tree)

    def wait() -> None:
        with checkpointer:
            checkpointer.wait_until_finished()

    return wait


def _own_copy(leaf: Any) -> np.ndarray:
    """A copy of an array that is whole on each of this process's devices."""
    return np.array(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)


def save(path: pathlib.Path, tree: Any) -> None:
    """Writes a tree of arrays to publish, and waits for it. `path` must not exist."""
    start_saving(path, tree)()
    mark = path / "commit_success.txt"
    if mark.exists() and jax.process_index() == 0:
        mark.write_text("complete\n")  # Orbax writes the whole path into it


def load(path: pathlib.Path) -> Any:
    """Reads a tree as NumPy arrays, whatever devices it was saved from.

    Raises:
        Exception: Orbax raises many kinds for damaged files.
    """
    with _alone() as checkpointer:
        stored = _size(path)
        tree = checkpointer.metadata(path).item_metadata.tree
        # A few bytes may declare arrays of any size: what is missing counts as zeros.
        sizes = (
            leaf.dtype.itemsize * math.prod(leaf.shape)
            for leaf in jax.tree.leaves(tree)
        )
        if sum(sizes) > _MAX_RATIO * stored:
            raise ValueError("the arrays are much larger than their files")
        # NumPy targets, because the devices it was saved from may be absent.
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
        return checkpointer.restore(path, empty)


def _size(folder: pathlib.Path) -> int:
    """Bytes of all files in a folder; raises `OSError` if there is anything else."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with untrusted.opened(os.path.join(place, name), sys.maxsize) as file:
                size += os.fstat(file.fileno()).st_size
    return size


def restore(path: pathlib.Path, target: Any) -> Any:
    """Reads a tree into the shapes, types and shardings of `target`."""
    with _alone() as checkpointer:
        return checkpointer.restore(path, target)


def _alone() -> ocp.StandardCheckpointer:
    """A checkpointer without barriers: a process may fail to read, others not."""
    index = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def reason(error: Exception) -> str:
    """Why something cannot be read, in a few words."""
    if "NOT_FOUND" in str(error) or isinstance(error, FileNotFoundError):
        return "files are missing"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 120 else lines[0][:117] + "..."
