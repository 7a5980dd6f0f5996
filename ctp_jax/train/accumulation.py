"""Gradient accumulation: a batch is computed in parts, one by one, to save memory.

The parts are micro-batches inside one jitted step; the parameters change once, after the
last part. Whatever a loss computes across the batch (negatives, BatchNorm statistics), it
computes within a part.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ctp_jax.errors import UserError


def value_and_grad(loss: Callable, parts: int, mesh: Mesh) -> Callable:
    """`jax.value_and_grad` of a loss over a batch, computed in parts.

    Args:
        loss: (params, model_state, batch, step, rng) -> (value, (metrics, model_state,
            carry)), see `ctp_jax.tasks.base.StepOutput`; value and metrics are means
            over the rows of the batch.
        parts: number of parts; must divide the rows of each device. With 1 this is
            `jax.value_and_grad` itself.
        mesh: over which the rows are split.

    Returns:
        (params, model_state, batch, step, rng) -> ((value, (metrics, model_state,
        carry)), gradients). Value, metrics and gradients are means over the parts. Row
        i of the batch is in part i modulo `parts`. `model_state` passes through the
        parts in order; each part has its own key. Arrays in `carry` with a row for each
        video are joined in the order of the batch; those of the same shape for any batch
        are means over the parts.
    """
    gradients_of = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return gradients_of

    def run(params, model_state, batch, step, rng):
        def one(state, given):
            model_state, total = state
            number, rows = given
            (value, (metrics, model_state, carry)), gradients = gradients_of(
                params, model_state, rows, step, jax.random.fold_in(rng, number)
            )
            total = jax.tree.map(jnp.add, total, gradients)
            return (model_state, total), (value, metrics, carry)

        zeros = jax.tree.map(jnp.zeros_like, params)
        given = jnp.arange(parts), jax.tree.map(lambda x: _cut(x, parts, mesh), batch)
        (model_state, total), outputs = jax.lax.scan(one, (model_state, zeros), given)
        value, metrics, carry = outputs
        if jax.tree.leaves(carry):
            whole = jax.eval_shape(loss, params, model_state, batch, step, rng)[1][2]
            videos = len(jax.tree.leaves(batch)[0])
            carry = jax.tree.map(lambda p, w: _join(p, w, videos), carry, whole)
        value, metrics = jax.tree.map(lambda x: x.mean(axis=0), (value, metrics))
        gradients = jax.tree.map(lambda x: x / parts, total)
        return (value, (metrics, model_state, carry)), gradients

    return run


def _cut(rows: jax.Array, parts: int, mesh: Mesh) -> jax.Array:
    """(b, ...) -> (parts, b / parts, ...), without sending a row to another device."""
    cut = rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1)
    # Each device keeps its own rows, because they are dealt to the parts in turn.
    sharding = NamedSharding(mesh, PartitionSpec(None, *mesh.axis_names))
    return jax.lax.with_sharding_constraint(cut, sharding)


def _join(pieces: jax.Array, whole: jax.ShapeDtypeStruct, videos: int) -> jax.Array:
    """The reverse of `_cut` for (parts, m, ...), or the mean over the parts.

    Args:
        pieces: one array per part, stacked along the first axis.
        whole: shape that the undivided batch would give.
        videos: rows of the undivided batch.

    Raises:
        UserError: the leading axis is neither the videos' nor the same for any batch:
            of b c rows, nobody could tell whether the clips or the videos come first.
    """
    if pieces.shape[1:] == whole.shape:
        return pieces.mean(axis=0)
    if whole.shape[0] != videos:
        raise UserError(
            f"the task's carry has an array {whole.shape} for {videos} videos: with "
            "config.optimizer.accumulate, its first axis must be the videos"
        )
    return pieces.swapaxes(0, 1).reshape(whole.shape)
