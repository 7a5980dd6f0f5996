"""The training state: everything that a run carries from one step to the next."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Sharding

from ctp_jax.data.batch import Batch
from ctp_jax.tasks.base import Task, Variables


class TrainState(struct.PyTreeNode):
    """What a checkpoint holds. No random key is stored: keys are derived from the step.

    Attributes:
        step: int32 scalar, steps done.
        params: parameters that gradients change.
        model_state: variables without a gradient (see `tasks.base.Variables`).
        opt_state: state of the optimiser.
    """

    # Any, because JAX also fills this class with shapes, shardings and tracers.
    step: Any
    params: Any
    model_state: Any
    opt_state: Any

    @property
    def variables(self) -> Variables:
        """The variables to evaluate and export."""
        return Variables(self.params, self.model_state)


class AveragedTrainState(TrainState):
    """The state of a run with `config.ema`.

    Attributes:
        ema: exponential moving average of `params`, float32 like them; it starts as the
            initial parameters.
    """

    ema: Any

    @property
    def variables(self) -> Variables:
        """The moving average, with the batch statistics of the last step."""
        return Variables(self.ema, self.model_state)

    def averaged(self, keep: float) -> "AveragedTrainState":
        """Updates the average with `params`: keep * old + (1 - keep) * new."""
        # In this form, frozen parameters stay bit for bit as they are.
        ema = jax.tree.map(
            lambda old, new: old + (1 - keep) * (new - old), self.ema, self.params
        )
        return self.replace(ema=ema)


def initial(
    task: Task,
    optimizer: optax.GradientTransformation,
    rng: jax.Array,
    batch: Batch,
    ema: float = 0.0,
) -> TrainState:
    """The state before the first step, with a moving average if `ema`; traceable."""
    params, model_state = task.init(rng, batch)
    fields = {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "model_state": model_state,
        "opt_state": optimizer.init(params),
    }
    if ema:
        # A copy: a step donates the state, so no array may be in it twice.
        return AveragedTrainState(**fields, ema=jax.tree.map(jnp.copy, params))
    return TrainState(**fields)


def with_sharding(tree: Any, sharding: Sharding) -> Any:
    """Shapes and types of a tree with a sharding: a target to restore into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def describe(tree: Any) -> dict[str, str]:
    """{path of a leaf: 'float32(3, 64)'}, to compare trees and to name leaves."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): _kind(leaf)
        for path, leaf in leaves
    }


def count(params: Any) -> int:
    """How many numbers a tree of arrays holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}({', '.join(str(side) for side in leaf.shape)})"
