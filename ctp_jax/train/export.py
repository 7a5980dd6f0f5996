"""Exported encoders: what a run leaves behind for other runs to start from.

<workdir>/encoder/arrays         {'params': ..., 'batch_stats': ...}
<workdir>/encoder/encoder.json   format, architecture, provenance
"""

import dataclasses
import datetime
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ctp_jax.errors import UserError
from ctp_jax.tasks.base import Task
from ctp_jax.train import checkpoint, files

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An exported encoder, on the host.

    Attributes:
        params: NumPy arrays by name.
        batch_stats: NumPy arrays by name; may be empty.
        architecture: what builds the network (see `Task.encoder`).
        provenance: how it came about: task, data, config, steps, versions, metrics.
        path: where it was read.
    """

    params: Any
    batch_stats: Any
    architecture: dict[str, Any]
    provenance: dict[str, Any]
    path: str


def export_encoder(
    workdir: pathlib.Path, task: Task, state: Any, provenance: Mapping[str, Any]
) -> pathlib.Path:
    """Writes `<workdir>/encoder`, in place of the one before, whole or not at all.

    Every process calls this; the workdir is one that all of them see.
    """
    params, batch_stats, architecture = task.encoder(state.params, state.model_state)
    place, new, old = (workdir / n for n in ("encoder", ".encoder.new", ".encoder.old"))
    first = jax.process_index() == 0
    if first:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
    _meet("export begins")
    arrays = {"params": params, "batch_stats": batch_stats}
    checkpoint.save_arrays(new / "arrays", arrays)
    if first:
        now = datetime.datetime.now(datetime.UTC)
        date = now.isoformat(timespec="seconds")
        about = {"format": FORMAT, "architecture": architecture}
        about["provenance"] = {**provenance, "date": date}
        files.write_json(new / "encoder.json", about)
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    _meet("export ends")
    return place


def load_encoder(path: str | pathlib.Path) -> Encoder:
    """Reads an exported encoder, given its folder or the workdir that holds it.

    Raises:
        UserError: nothing is there, or it is not a whole encoder.
    """
    given = pathlib.Path(path).expanduser().absolute()
    if not given.exists():
        raise UserError(f"{path}: no such folder; expected an exported encoder")
    place = given if (given / "encoder.json").exists() else given / "encoder"
    if not (place / "encoder.json").exists():
        raise UserError(
            f"{path}: not an exported encoder (no encoder.json): a run exports one "
            "when it finishes"
        )
    about = _read_about(place / "encoder.json")
    try:
        arrays = checkpoint.load_arrays(place / "arrays")
        params, batch_stats = arrays["params"], arrays["batch_stats"]
    except Exception as error:  # whatever Orbax makes of injured files
        raise UserError(
            f"{place}: the arrays of the encoder are missing or damaged: delete the "
            "folder and run the command of its run again, which exports it anew"
        ) from error
    return Encoder(
        params=params,
        batch_stats=batch_stats,
        architecture=about["architecture"],
        provenance=about.get("provenance", {}),
        path=str(place),
    )


def start_from(task: Task, state: Any, path: str) -> tuple[Any, list[str]]:
    """Puts an exported encoder into a fresh state.

    Args:
        task: says where it goes (`Task.load_encoder`).
        state: a `TrainState` before its first step.
        path: what `load_encoder` takes.

    Returns:
        The state, and lines that say what was loaded and what stays random.
    """
    encoder = load_encoder(path)
    params, model_state = task.load_encoder(
        state.params,
        state.model_state,
        encoder.params,
        encoder.batch_stats,
        encoder.architecture,
    )
    before = {"params": state.params, "model_state": state.model_state}
    after = {"params": params, "model_state": model_state}
    loaded, random = _compare(before, after, path)
    if not loaded:
        raise UserError(f"{path}: nothing in it fits the network of this config")
    # Copies: the step donates the state, so no array may stand in it twice.
    after = jax.tree.map(
        lambda old, new: jnp.array(new, dtype=old.dtype, copy=True), before, after
    )
    lines = [f"init_from {path}: loaded {', '.join(loaded)}"]
    lines += [f"  as initialised: {', '.join(random)}"] if random else []
    return state.replace(**after), lines


def _compare(before: Any, after: Any, path: str) -> tuple[list[str], list[str]]:
    """Names (three levels deep) of what was replaced and of what was not."""
    old, old_structure = jax.tree_util.tree_flatten_with_path(before)
    new, new_structure = jax.tree_util.tree_flatten_with_path(after)
    if old_structure != new_structure:
        raise UserError(f"{path}: its names are not those of the network here")
    groups = {}
    for (keys, a), (_, b) in zip(old, new, strict=True):
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        if a.shape != b.shape:
            raise UserError(f"{path}: {name} is {b.shape} there, {a.shape} here")
        group = "/".join(name.split("/")[:3])
        done, total = groups.get(group, (0, 0))
        groups[group] = (done + int(a is not b), total + 1)
    loaded = [
        name if done == total else f"{name} ({done} of {total})"
        for name, (done, total) in groups.items()
        if done
    ]
    return loaded, [name for name, (done, _) in groups.items() if not done]


def _read_about(path: pathlib.Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text())
        version = about["format"]
        about["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: damaged: delete the folder and run the command of its run again, "
            "which exports it anew"
        ) from error
    if version != FORMAT:
        raise UserError(
            f"{path}: format {version}, this version of ctp_jax reads {FORMAT}"
        )
    return about


def _meet(name: str) -> None:
    """Waits for the other processes, if there are any."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
