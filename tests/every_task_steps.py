"""Steps of a task, run by `tests/test_every_task.py` where there are eight devices.

In float64: in float32, relus switch at rounding errors, and batches of a few positions
magnify them to a percent after two steps.
"""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import methods
from configs import finetune_small, small
from ctp_jax import modules
from ctp_jax.tasks import base
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, step
from ctp_jax.train import state as state_lib
from ctp_jax.train.epochs import Epochs
from tests import float64

CONFIGS = {
    "ctp": lambda: small.get_config(),
    "ctp_cycle": lambda: small.get_config("truth=cycle"),
    "recognition": lambda: finetune_small.get_config(),
    "pace_contrast": lambda: make_pace_contrast(),
    "coclr": lambda: make_coclr(),
    **{
        name: functools.partial(methods.make_config, name, "moving_shapes")
        for name in methods.METHODS
    },
}
WIDTHS = (
    ("head", "channels"),
    ("head", "hidden"),
    ("head", "memory"),
    ("contrast", "dim"),
    ("cep", "hidden"),
)
"""Of layers above the encoder; narrow ones do."""


def make_pace_contrast():
    config = methods.make_config("pace", "moving_shapes")
    config.pace.contrast = 0.1
    return config


def make_coclr():
    config = methods.make_config("coclr", "moving_shapes_flow")
    config.coclr.sampler, config.contrast.queue = "random", 16  # full in two steps
    return config


def make_config(name, data_dir):
    config = CONFIGS[name]()
    config.data.data_dir, config.data.workers = data_dir, 2
    config.clip.size, config.clip.num_frames = 32, 4
    config.clip.scales = (32, 40)
    if "test" in config:
        config.test.scales, config.test.num_clips = (36,), 2
    if "blocks" in config:
        config.blocks.count, config.blocks.predicted = 3, 1
    # The tasks are the subject, not the encoder.
    config.model.name, config.model.conv = "tests.tiny_network", "direct"
    if "cep" in config:
        config.cep.layers = 2  # of networks that are called twelve times
    for group, field in WIDTHS:
        if field in config.get(group, ()):
            config[group][field] = min(config[group][field], 16)
    config.batch_size, config.steps = 8, 4
    config.optimizer.learning_rate, config.optimizer.schedule = 0.001, "constant"
    # Adam would divide rounding by rounding where a gradient is nearly 0.
    config.optimizer.name = "sgd"
    return config


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
    jax.config.update("jax_enable_x64", True)
    with float64.quick_convolutions():
        np.savez(file, **take_steps(make_config(name, data_dir)))


if __name__ == "__main__":
    main(*sys.argv[1:])
