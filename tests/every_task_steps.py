"""Steps of a task, run by `tests/test_every_task.py` where there are eight devices.

In float64: in float32, relus switch at rounding errors, and batches of a few positions
magnify them to a percent after two steps.
"""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np

from ctp_jax import modules
from ctp_jax.tasks import base
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, step
from ctp_jax.train import state as state_lib
from ctp_jax.train.epochs import Epochs
from tests import float64


class Runner:
    """Training steps of a task on some devices."""

    def __init__(self, config, task, mesh):
        schedule = optimizer.make_schedule(config.optimizer, Epochs(16, 8), 4)
        transformation = optimizer.make_optimizer(
            config.optimizer, schedule, task.frozen
        )
        self.mesh = mesh
        self._step = step.make_train_step(task, transformation, schedule, 0, mesh)
        rng = step.stream_key(config.seed, "init")
        self._initial = lambda batch: state_lib.initial(
            task, transformation, rng, batch
        )

    def initial(self, batch):
        state = jax.jit(lambda: self._initial(batch))()
        state = jax.device_get(jax.tree.map(_wide, state))
        rng = np.random.default_rng(0)

        def move(leaf):
            return leaf + 0.01 * rng.normal(size=leaf.shape)

        # Biases that are 0, under features that are: a relu would switch at rounding.
        return state.replace(params=jax.tree.map(move, state.params))

    def _put(self, state):
        # A copy: the step donates it.
        return jax.device_put(jax.device_get(state), mesh_lib.replicated(self.mesh))

    def __call__(self, state, batch):
        """(state, metrics) after a step, as NumPy."""
        return jax.device_get(
            self._step(self._put(state), mesh_lib.put(batch, self.mesh))
        )


def take_steps(config):
    """{name of the run and of the array: array} after two steps.

    The runs: on 'one' device and on 'eight'.
    """
    modules.allow_named_by(config)
    task = base.load(config)
    task._encoder = task._encoder.clone(dtype=jnp.float64)

    def batches(first, *share):
        pipeline = base.open_pipeline(config, task, True, *share)
        task.see_data(pipeline.whole, None)
        return list(itertools.islice(pipeline.train_batches(first), 2 - first))

    whole, found = batches(0, 0, 1), {}
    # Each of two processes, resumed, makes its half of the second batch without the first.
    halves = [batches(1, process, 2)[0] for process in (0, 1)]
    both = jax.tree.map(lambda *rows: np.concatenate(rows), *halves)
    jax.tree.map(np.testing.assert_array_equal, whole[1], both)
    meshes = {"one": mesh_lib.one_device(), "eight": mesh_lib.make_mesh()}
    assert meshes["eight"].size == 8
    runners = {k: Runner(config, task, mesh) for k, mesh in meshes.items()}
    initial = runners["one"].initial(whole[0])
    for name, run in runners.items():
        after_one, _ = run(initial, whole[0])
        found[name] = run(after_one, whole[1])
    flat, _ = jax.tree_util.tree_flatten_with_path(found)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in flat
    }


def _wide(leaf):
    return (
        leaf.astype(jnp.promote_types(leaf.dtype, jnp.float64))
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else leaf
    )


def main(name, data_dir, file):
    from tests.test_every_task import make_config

    jax.config.update("jax_enable_x64", True)
    with float64.quick_convolutions():
        np.savez(file, **take_steps(make_config(name, data_dir, 4)))


if __name__ == "__main__":
    main(*sys.argv[1:])
