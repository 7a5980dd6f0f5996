"""Reads checkpoints of other runs, which may still be training; changes nothing."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError
from ctp_jax.storage import buckets, untrusted
from ctp_jax.tasks.base import Task
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer
from ctp_jax.train import state as state_lib
from ctp_jax.train.checkpoints import digests, pytrees
from ctp_jax.train.checkpoints.bucket_layout import open_layout
from ctp_jax.train.checkpoints.layout import CheckpointLayout
from ctp_jax.train.checkpoints.manifest import Damage
from ctp_jax.train.epochs import Epochs


def newest(
    config: ConfigDict, task: Task, workdir: str | os.PathLike, batch: Batch
) -> tuple[state_lib.TrainState, int]:
    """The newest checkpoint of a run.

    Args:
        config: of the run.
        task: of that config.
        workdir: of the run.
        batch: one of its batches, for shapes.

    Returns:
        The state on one device, and its step.

    Raises:
        UserError: there is no checkpoint, it is damaged, or it is of another config.
    """
    directory = buckets.place(workdir)
    # Only the shape of the optimiser's state matters, not the learning rate.
    schedule = optimizer.make_schedule(config.optimizer, Epochs(1, 1), 1)
    transformation = optimizer.make_optimizer(config.optimizer, schedule, task.frozen)
    shapes = jax.eval_shape(
        lambda rng, batch: state_lib.initial(
            task, transformation, rng, batch, config.ema
        ),
        jax.random.key(0),
        batch,
    )
    target = state_lib.with_sharding(shapes, mesh_lib.replicated(mesh_lib.one_device()))
    folders = open_layout(directory)
    latest = folders.newest()
    if latest is None:
        raise UserError(f"{workdir}: no checkpoint: train there first")

    def read(path: pathlib.Path) -> state_lib.TrainState:
        return pytrees.restore(path, target)

    found, _ = _checked(folders, latest, read, "read into the network of this config")
    return found, int(found.step)


def arrays(
    workdir: pathlib.Path, step: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A step of a run as NumPy arrays, for any network, and its meta.

    Args:
        workdir: of the run.
        step: None for the newest.

    Raises:
        UserError: there is no such step, it cannot be read, or it is damaged.
    """
    folders = open_layout(workdir)
    latest = folders.newest()
    if latest is None:
        raise UserError(
            f"{workdir}: has neither encoder/ nor a checkpoint: name a run that has "
            "trained"
        )
    if step not in (None, *folders.steps()):
        known = ", ".join(map(str, folders.steps()))
        raise UserError(f"{folders.path}: no step {step}: use one of {known}")
    step = latest if step is None else step
    return _checked(folders, step, pytrees.load, "read")


def _checked(
    folders: CheckpointLayout, step: int, read: Callable[[pathlib.Path], Any], what: str
) -> tuple[Any, dict[str, Any]]:
    """(arrays of a step as `read` returns them, its meta), both verified."""
    try:
        meta = folders.read_checked(step)
        tree = read(folders.step(step) / "state")
        if path := digests.difference(meta["digests"], tree):
            raise Damage(f"{path} differs from what was saved")
    except UserError:
        raise
    except Exception as error:
        reason = pytrees.reason(error)
        if step not in folders.steps():
            reason = "its run deleted it meanwhile: try again"
        elif isinstance(error, Damage):
            reason = f"damaged: {reason}; its run moves it away on resume"
        raise UserError(
            f"{folders.path}: step {step} cannot be {what} ({reason})"
        ) from error
    return tree, meta


def check_meta(place: pathlib.Path, meta: Mapping[str, Any], shape: Any) -> None:
    """Raises `UserError` unless the meta of a checkpoint has a shape.

    Args:
        place: for the message.
        meta: of a checkpoint.
        shape: see `ctp_jax.storage.untrusted.check_shape`.
    """
    try:
        untrusted.check_shape(meta, shape)
    except ValueError as error:
        raise UserError(
            f"{place}: a checkpoint there has another kind of meta ({error}): name "
            "another folder"
        ) from error


def check_same_run(
    workdir: pathlib.Path,
    step: int,
    meta: Mapping[str, Any],
    target: state_lib.TrainState,
    config: ConfigDict,
    say: Callable[[str], None] = print,
) -> None:
    """Raises `UserError` unless a run can be resumed with this config."""
    check_meta(workdir, meta, {"config": dict})
    changed, length = config_lib.sort_differences(
        config_lib.differences(meta["config"], config)
    )
    if "task" in changed:  # then everything else differs too
        changed = {"task": changed["task"]}
    fields = ", ".join(f"{name} {text}" for name, text in changed.items())
    stored, wanted = meta["leaves"], state_lib.describe(target)
    for path, here, there in config_lib.changes(wanted, stored):
        why = f"; the config differs in {fields}" if fields else ""
        raise UserError(
            f"{workdir}: the checkpoint of step {step} is of another architecture: "
            f"{path} is {there}, not {here}{why}: use another --workdir"
        )
    if changed:
        raise UserError(
            f"{workdir}: the run there has another config: {fields}: change it back or "
            "use another --workdir"
        )
    for name, text in length.items():
        say(f"config.{name}: {text}, from step {step} on")
