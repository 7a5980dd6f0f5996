"""Every task: eight devices take the steps of one, up to rounding, and two processes, also
resumed, make the batches of one. A run of one task resumes to the bit."""

import functools

import numpy as np
import pytest

from benchmarks import methods
from configs import finetune_small, small
from ctp_jax.prepare import __main__ as prepare
from ctp_jax.train import loop
from tests import forks
from tests.train.distributed.toy_processes import assert_same_run, copy_until

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
WHOLE_RUNS = ("ctp_cycle",)
"""Resumed from a checkpoint, with evaluations and log."""


def make_pace_contrast():
    config = methods.make_config("pace", "moving_shapes")
    config.pace.contrast = 0.1
    return config


def make_coclr():
    config = methods.make_config("coclr", "moving_shapes_flow")
    config.coclr.sampler, config.contrast.queue = "random", 16  # full in two steps
    return config


def make_config(name, data_dir, steps):
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
    config.batch_size, config.steps, config.log_every = 8, steps, 1
    config.optimizer.learning_rate, config.optimizer.schedule = 0.001, "constant"
    # Adam would divide rounding by rounding where a gradient is nearly 0.
    config.optimizer.name = "sgd"
    config.checkpoint_every, config.eval_every = 1.0, 0.0
    config.keep_checkpoints = 3  # of steps 2, 3 and 4
    return config


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("data"))
    flags = ["--train_videos=12", "--test_videos=4", "--data_dir", directory]
    prepare.main(["moving_shapes", *flags])
    flags = ["--from=moving_shapes", "--method=dis", "--data_dir", directory]
    prepare.main(["flow", *flags])
    return directory


@pytest.fixture(scope="module")
def straight(data_dir, tmp_path_factory):
    """The folder of runs of four steps on one device."""
    folder = tmp_path_factory.mktemp("straight")
    for name in WHOLE_RUNS:
        loop.train(make_config(name, data_dir, 4), folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_steps_on_eight_devices_are_the_same(name, data_dir, tmp_path):
    """Up to the rounding of float32 drawing; batches in parts to the bit."""
    flags = "--xla_force_host_platform_device_count=8"
    arguments = [name, data_dir, tmp_path / "runs.npz"]
    forks.run(["-m", "tests.every_task_steps", *arguments], {"XLA_FLAGS": flags})
    runs = {"one": {}, "eight": {}}
    for path, value in np.load(tmp_path / "runs.npz").items():
        run, _, own = path.partition("/")
        runs[run][own] = value
    assert runs["one"].keys() == runs["eight"].keys()
    for own, value in runs["one"].items():
        np.testing.assert_allclose(
            value, runs["eight"][own], rtol=2e-4, atol=1e-5, err_msg=own
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE_RUNS)
def test_resumed_it_is_the_same_run(name, data_dir, straight, tmp_path):
    copy_until(straight / name, 2, tmp_path)
    loop.train(make_config(name, data_dir, 4), tmp_path)
    assert_same_run(straight / name, tmp_path)
