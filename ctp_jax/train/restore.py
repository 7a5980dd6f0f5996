"""Reading a run from outside: its newest checkpoint, and nothing changed."""

import os
import pathlib

import jax
from ml_collections import ConfigDict

from ctp_jax.errors import UserError
from ctp_jax.tasks.base import Batch, Task
from ctp_jax.train import checkpoint, optimizer
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import state as state_lib
from ctp_jax.train.epochs import Epochs


def newest(
    config: ConfigDict, task: Task, workdir: str | os.PathLike, batch: Batch
) -> tuple[state_lib.TrainState, int]:
    """The newest checkpoint of a run that may still be going on.

    Args:
        config: of the run.
        task: of that config.
        workdir: of the run.
        batch: one of its batches, for shapes.

    Returns:
        The state on one device, and its step.

    Raises:
        UserError: there is no checkpoint, or not one of this config.
    """
    directory = pathlib.Path(workdir).expanduser().absolute()
    # The rate does not matter, only that the optimiser's state has its shape.
    schedule = optimizer.make_schedule(config.optimizer, Epochs(1, 1), 1)
    transformation = optimizer.make_optimizer(config.optimizer, schedule, task.frozen)
    shapes = jax.eval_shape(
        lambda rng, batch: state_lib.initial(task, transformation, rng, batch),
        jax.random.key(0),
        batch,
    )
    target = state_lib.with_sharding(shapes, mesh_lib.replicated(mesh_lib.one_device()))
    found = checkpoint.read_newest(directory, target)
    if found is None:
        raise UserError(f"{workdir}: no checkpoint there")
    return found, int(found.step)
