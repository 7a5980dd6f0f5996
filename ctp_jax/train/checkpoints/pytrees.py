"""Pytrees of arrays on the disk. The only module that imports Orbax."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def start_saving(path: pathlib.Path, tree: Any) -> Callable[[], None]:
    """Writes a tree in the background; every process calls this.

    Args:
        path: must not exist.
        tree: of arrays. May be donated on return: it is off the devices by then.

    Returns:
        A function that waits until all is written, and raises what that met.
    """
    # A new one each time: it would remember an error for ever.
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(path, tree)

    def wait() -> None:
        with checkpointer:
            checkpointer.wait_until_finished()

    return wait


def save(path: pathlib.Path, tree: Any) -> None:
    """Writes a tree of arrays and waits for it. `path` must not exist."""
    start_saving(path, tree)()


def load(path: pathlib.Path) -> Any:
    """Reads what was written there as NumPy arrays, whatever devices it came from."""
    with _reader() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        # NumPy targets, so that the devices it was saved from need not be here.
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
        return checkpointer.restore(path, empty)


def restore(path: pathlib.Path, target: Any) -> Any:
    """Reads what was written there into the shapes, types and shardings of `target`."""
    with _reader() as checkpointer:
        return checkpointer.restore(path, target)


def _reader() -> ocp.StandardCheckpointer:
    """One that waits for no other process: what fails here may not fail there."""
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
