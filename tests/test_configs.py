"""Every config loads, is valid, and makes a task; arguments are read or refused."""

import pathlib

import pytest

from configs import common, small, ucf_r3d
from ctp_jax import command
from ctp_jax import config as config_lib
from ctp_jax.tasks import base

FILES = sorted(pathlib.Path(common.__file__).parent.glob("*.py"))
NAMES = [path.name for path in FILES if path.stem not in ("__init__", "common")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("argument", ["", ":runlocal"])
def test_config_loads_and_makes_a_task(name, argument):
    path = pathlib.Path(common.__file__).parent / name
    config = command.load_config(f"{path}{argument}")
    config_lib.validate(config)
    spec = base.load(config).clip_spec(train=True)
    assert spec.num_frames == config.clip.num_frames


def test_the_authors_numbers():
    config = ucf_r3d.get_config()
    assert (config.batch_size, config.epochs) == (32, 300)
    assert config.optimizer.milestones == (100, 200)
    assert config.optimizer.learning_rate == 0.01
    assert config.optimizer.weight_decay == 1e-4
    assert config.optimizer.clip_norm == 40
    assert config.head.target_scale == (0.8, 0.8, 0.04, 0.04)
    assert config.model.spatial_strides == (1, 2, 2, 1)


def test_arguments():
    assert small.get_config("data=mine,train=a,test=b").data.name == "mine"
    assert common.parse_arg("runlocal,x=3", x=1).x == 3
    with pytest.raises(ValueError, match="'batch': not one of runlocal"):
        common.parse_arg("batch=8")
    with pytest.raises(ValueError, match="needs a value of type int"):
        common.parse_arg("x=many", x=1)
    with pytest.raises(ValueError, match="true or false"):
        common.parse_arg("runlocal=maybe")
