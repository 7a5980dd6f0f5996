"""The two compiled programs of a run: a training step and an evaluation step."""

import functools
import os
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError
from ctp_jax.tasks.base import Task, Variables
from ctp_jax.train import accumulation
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train.state import AveragedTrainState, TrainState, describe


def stream_key(seed: int, stream: str, step: Any = 0) -> jax.Array:
    """The random key of a named stream at a step; depends on nothing else."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def all_finite(*trees: Any) -> jax.Array:
    """Whether no float in the trees is NaN or infinite."""
    leaves = [x for x in jax.tree.leaves(trees) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
    mesh: Mesh,
    accumulate: int = 1,
    ema: float = 0.0,
) -> Callable:
    """Compiles one step of training.

    Args:
        task: has the loss.
        optimizer: see `ctp_jax.train.optimizer.make_optimizer`.
        schedule: of the learning rate, for the log.
        seed: of the run.
        mesh: of the run.
        accumulate: parts that the batch is computed in (`config.optimizer`).
        ema: decay of the moving average of the parameters per step (`config.ema`); 0:
            there is none.

    Returns:
        A function (state, batch) -> (state, metrics). The given state is donated: it
        must not be used again. Metrics are scalars on the device: those of the task
        and `loss`, `grad_norm` (before clipping), `learning_rate` and `finite`, 1
        unless the loss, a parameter or a model statistic is NaN or infinite.
    """

    def loss_fn(params, model_state, batch, step, rng):
        # BatchNorm asks for the mesh, to send fewer messages.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            loss, out = task.loss(Variables(params, model_state), batch, step, rng)
        return loss, (dict(out.metrics), out.state, out.carry)

    value_and_grad = accumulation.value_and_grad(loss_fn, accumulate, mesh)

    def train_step(state: TrainState, batch):
        rng = stream_key(seed, "loss", state.step)
        (loss, (metrics, model_state, carry)), grads = value_and_grad(
            state.params, state.model_state, batch, state.step, rng
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        model_state = task.after_step(Variables(params, model_state), carry, state.step)
        _check_same_tree(state.model_state, model_state)
        metrics |= {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": schedule(state.step),
            "finite": all_finite(loss, params, model_state).astype(jnp.float32),
        }
        if "replaced" in batch:
            metrics["replaced"] = batch["replaced"].sum()
        state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
        )
        if isinstance(state, AveragedTrainState):
            state = state.averaged(ema)
        return state, metrics

    everywhere = mesh_lib.replicated(mesh)
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(everywhere, mesh_lib.over_batch(mesh)),
        out_shardings=everywhere,
        compiler_options=compiler_options(task, mesh),
    )


_CHANNELS_LAST = "xla_gpu_force_conv_nhwc"


def compiler_options(task: Task, mesh: Mesh) -> dict[str, bool]:
    """Options of XLA for programs of a task on a mesh.

    On GPUs XLA computes 3-D convolutions channels first, whatever their type. In bfloat16
    the tensor cores want channels last, as our activations are; cuDNN would transpose
    them, and back. In float32 it is left to XLA, and to whoever names the option in
    `XLA_FLAGS`.
    """
    on_gpu = mesh.devices.flat[0].platform in ("gpu", "cuda", "rocm")
    dtype = task.config.get("model", {}).get("dtype", "auto")
    if not on_gpu or dtype == "float32" or _CHANNELS_LAST in os.getenv("XLA_FLAGS", ""):
        return {}
    return {_CHANNELS_LAST: True} if knows(_CHANNELS_LAST, mesh) else {}


@functools.cache
def knows(option: str, mesh: Mesh) -> bool:
    """Whether the compiler has a switch of this name; versions of XLA differ."""
    nothing = jax.jit(
        lambda: jnp.zeros(()),
        out_shardings=mesh_lib.replicated(mesh),
        compiler_options={option: True},
    )
    try:
        nothing.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            return False
        raise
    return True


def _check_same_tree(old: Any, new: Any) -> None:
    """Raises `UserError` where a task loses, adds or reshapes an entry of its state.

    The next step would fail, in places that say nothing about the reason.
    """
    before, after = describe(old), describe(new)
    for name, was, now in config_lib.changes(before, after):
        raise UserError(
            f"the task's state has {name} {now} after a step, {was} before: "
            "return {**variables.state, ...} from loss and after_step"
        )


def make_eval_step(task: Task, mesh: Mesh) -> Callable:
    """Compiles prediction on one batch.

    Returns:
        A function (state, batch, carried) -> (batch without its frames, predictions,
        carried). The first two are of the global batch and whole on every device, so
        that each process can read them; see `Task.first_carry` for the third.
    """

    def eval_step(state: TrainState, batch, carried):
        outputs = dict(task.predict(state.variables, {**batch, **carried}))
        carried = {name: outputs.pop(name) for name in carried}
        small = {name: value for name, value in batch.items() if name != "frames"}
        return small, outputs, carried

    everywhere, split = mesh_lib.replicated(mesh), mesh_lib.over_batch(mesh)
    return jax.jit(
        eval_step,
        in_shardings=(everywhere, split, split),
        out_shardings=(everywhere, everywhere, split),
        compiler_options=compiler_options(task, mesh),
    )
