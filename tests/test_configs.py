"""What configs hold, for whom, and what arguments change; test_ranges.py starts them all."""

import pathlib

import pytest

from benchmarks import methods
from configs import common, small, ucf_r3d
from ctp_jax import cli, models
from ctp_jax import config as config_lib
from ctp_jax.tasks import base

FILES = sorted(pathlib.Path(common.__file__).parent.glob("*.py"))
NAMES = [path.name for path in FILES if path.stem not in ("__init__", "common")]


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
    with pytest.raises(ValueError, match="'batch': not one of backbone, evaluate, r"):
        common.parse_arg("batch=8")
    with pytest.raises(ValueError, match="needs a value of type int"):
        common.parse_arg("x=many", x=1)
    with pytest.raises(ValueError, match="true or false"):
        common.parse_arg("runlocal=maybe")
    with pytest.raises(ValueError, match=r"'x': needs a value, as x=\.\.\."):
        common.parse_arg("x", x="")


def as_flat(config):
    """Lists and tuples alike, for comparison."""
    return config_lib.flatten(config_lib.as_dict(config))


# The authors' release, number by number; what is no part of the experiment
# (where data lie, how often is logged) is left out.
RECOGNITION = {
    "task": "recognition",
    "batch_size": 32,
    "steps": 0,
    "init_from": "",
    "init_head": False,
    "freeze": "",
    "data.fraction": 1.0,
    "data.eval_videos": 0,
    "clip.num_frames": 16,
    "clip.strides": [2],
    "clip.jitter": False,
    "clip.size": 112,
    "clip.scales": [[149, 112], [171, 128], [192, 144]],
    "clip.flip": 0.35,
    "test.num_clips": 10,
    "test.stride": 2,
    "test.scales": [[171, 128]],
    "colour.brightness": 0.2,
    "colour.brightness_delta": 32.0,
    "colour.contrast": 0.2,
    "colour.contrast_delta": 0.2,
    "colour.hue_saturation": 0.2,
    "colour.hue": 24.0,  # 12 of OpenCV's 180 steps
    "colour.saturation": 0.1,
    "model.name": "r3d18",
    "model.width": 1.0,
    "model.spatial_strides": [1, 2, 2, 2],
    "model.temporal_strides": [1, 2, 2, 2],
    "model.epsilon": 1e-3,
    "model.mid_per_block": False,
    "head.dropout": 0.5,
    "head.init_std": 0.001,
    "ema": 0.0,
    "optimizer.name": "sgd",
    "optimizer.nesterov": False,
    "optimizer.exclude_norms_and_biases": False,
    "optimizer.accumulate": 1,
    "optimizer.learning_rate": 0.01,
    "optimizer.base_batch_size": 0,
    "optimizer.schedule": "step",
    "optimizer.decay": 0.1,
    "optimizer.warmup_steps": 0,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "optimizer.clip_norm": 40.0,
}
EACH = {
    "finetune_ucf": {
        "data.name": "ucf101",
        "data.split": "train01",
        "data.eval_split": "test01",
        "num_classes": 101,
        "epochs": 150.0,
        "optimizer.milestones": [60, 120],
    },
    "finetune_hmdb": {
        "data.name": "hmdb51",
        "data.split": "train01",
        "data.eval_split": "test01",
        "num_classes": 51,
        "epochs": 150.0,
        "optimizer.milestones": [60, 120],
    },
    "finetune_ssv1": {
        "data.name": "something_something_v1",
        "data.split": "train",
        "data.eval_split": "val",
        "num_classes": 174,
        "epochs": 90.0,
        "optimizer.milestones": [40, 60, 80],
        "optimizer.warmup_steps": 1000,
        "optimizer.warmup_factor": 0.1,
        "clip.num_frames": 32,
        "clip.strides": [1],
        "clip.scales": [112, 128, 144],
        "clip.flip": 0.0,
        "test.num_clips": 1,
        "test.stride": 1,
        "test.scales": [128],
    },
    "finetune_k400": {
        "data.name": "kinetics400",
        "data.split": "train",
        "data.eval_split": "val",
        "num_classes": 400,
        "epochs": 90.0,
        "optimizer.milestones": [30, 60],
    },
}


def load(name, argument=""):
    path = pathlib.Path(common.__file__).parent / f"{name}.py"
    return cli.load_config(f"{path}:{argument}" if argument else str(path))


@pytest.mark.parametrize("name", EACH)
def test_recognition_as_the_authors_have_it(name):
    flat = as_flat(load(name))
    for field, value in {**RECOGNITION, **EACH[name]}.items():
        assert flat[field] == value, field


@pytest.mark.parametrize("name", EACH)
def test_clips_of_recognition(name):
    config = load(name)
    frames = config.clip.num_frames
    train, test = (base.load(config).clip_spec(train) for train in (True, False))
    assert (train.num_clips, train.num_frames, train.size) == (1, frames, 112)
    assert (train.sampling, train.crop, train.jitter) == ("random", "random", False)
    assert (test.num_frames, test.size, test.flip) == (frames, 112, 0.0)
    assert (test.sampling, test.crop, test.jitter) == ("uniform", "center", False)
    several = (1, (1,)) if name == "finetune_ssv1" else (10, (2,))
    assert (test.num_clips, test.strides) == several


def test_arguments_of_recognition():
    for split in (1, 2, 3):
        for name in ("finetune_ucf", "finetune_hmdb"):
            data = load(name, f"split={split}").data
            assert (data.split, data.eval_split) == (f"train0{split}", f"test0{split}")
    for name in [*EACH, "finetune_small"]:
        assert load(name, "linear").freeze == "stem+4"
        assert load(name, "linear=false").freeze == ""
    for name in [*EACH, "retrieval"]:
        config = load(name, "backbone=r2plus1d18,runlocal")
        assert config.model.name == "r2plus1d18" and config.model.width == 0.125
        assert base.load(load(name, "backbone=s3d")).config.model.name == "s3d"
    assert load("ucf_r2plus1d", "runlocal").model.name == "r2plus1d18"


@pytest.mark.parametrize("name", NAMES)
def test_every_config_takes_every_network(name):
    """With the strides of its paper; the features of Catch-the-Patch stay as far apart."""
    stem = name.removesuffix(".py")
    usual = load(stem)
    for backbone in models.MODULES:
        config = load(stem, f"backbone={backbone}")
        model, published = config.model, models.PUBLISHED.get(backbone)
        assert model.name == backbone
        strides = usual.model.temporal_strides
        if published is None:
            assert (model.temporal_strides, model.epsilon) == (strides, 1e-3)
            continue
        assert model.temporal_strides == (published.temporal_strides or strides)
        assert model.epsilon == published.epsilon
        if usual.task in ("ctp", "tracker"):
            apart = models.create(usual.model).total_stride()[1]
            assert models.create(model).total_stride()[1] == apart
        else:
            assert model.spatial_strides == usual.model.spatial_strides
        config_lib.validate(config)


def test_retrieval_as_the_paper_has_it():
    flat = as_flat(load("retrieval"))
    for field, value in {
        "task": "encoder",
        "epochs": 0.0,
        "steps": 0,
        "data.name": "ucf101",
        "data.split": "train01",
        "data.eval_split": "test01",
        "clip.num_frames": 16,
        "clip.size": 112,
        "evaluators.knn.every": 0.0,
        "evaluators.retrieval.split": "",
        "probe.num_clips": 10,
        "probe.stride": 2,
        "probe.scales": [[171, 128]],
        "probe.spatial_strides": [1, 2, 2, 2],
        "probe.pool": [2, 3, 3],
        "probe.pooling": "average",
        "probe.gallery_videos": 0,
        "model.width": 1.0,
        "model.epsilon": 1e-3,
    }.items():
        assert flat[field] == value, field
    # It trains nothing, not even where a config is shrunk.
    for argument in ("small", "runlocal", "small,runlocal"):
        config = load("retrieval", argument)
        assert (config.steps, config.epochs) == (0, 0)
    named = load("retrieval", "data=mine,train=a,test=b").data
    assert (named.name, named.split, named.eval_split) == ("mine", "a", "b")


def test_what_is_measured_on_held_out_videos():
    assert list(load("ucf_r3d").evaluators) == ["tracking"]
    assert list(load("finetune_ucf").evaluators) == ["recognition"]
    assert list(load("retrieval").evaluators) == ["knn", "retrieval"]
    more = load("ucf_r3d", "evaluate=retrieval+knn").evaluators
    assert list(more) == ["knn", "retrieval", "tracking"]


def test_the_small_game_is_the_papers():
    """In half the pixels and every second frame, on features half as far apart."""
    small_one, full = load("small"), load("ucf_r3d")
    game = full.game.copy_and_resolve_references()
    game.scales = tuple(scale / 2 for scale in game.scales)
    game.size_change *= 2
    assert small_one.game.to_dict() == game.to_dict()
    assert small_one.colour.to_dict() == full.colour.to_dict()
    assert [
        2 * models.create(small_one.model).total_stride()[1],
        2 * small_one.clip.size,
        2 * small_one.clip.num_frames,
    ] == [
        models.create(full.model).total_stride()[1],
        full.clip.size,
        full.clip.num_frames,
    ]


def test_encoders_of_the_small_configs_fit_each_other():
    small_model = load("small").model
    for name, argument in (("finetune_small", ""), ("retrieval", "small")):
        config = load(name, argument)
        base.load(config).check_encoder(models.create(small_model).architecture())
        assert config.clip.size == load("small").clip.size
        assert config.clip.num_frames == load("small").clip.num_frames
    full = load("ucf_r3d").model
    for name in [*EACH, "retrieval"]:
        base.load(load(name)).check_encoder(models.create(full).architecture())


def test_left_and_right_are_not_swapped_where_they_are_classes():
    assert load("finetune_small").clip.flip == 0
    assert load("finetune_small", "data=mine").clip.flip == 0.35
    assert load("finetune_ssv1").clip.flip == 0
    for copy in ("flow", "tracks"):
        assert load("finetune_small", f"data=moving_shapes_{copy}").clip.flip == 0


@pytest.mark.parametrize("kind", ["flow", "tracks"])
@pytest.mark.parametrize("data", ["kinetics400", "ucf101"])
@pytest.mark.parametrize("name", methods.METHODS)
def test_a_copy_of_a_data_set_is_trained_on_as_the_data_set_itself(name, data, kind):
    """As long, with the same strides, queues and splits."""
    plain, copy = (
        as_flat(load(name, f"data={each}")) for each in (data, f"{data}_{kind}")
    )
    assert copy.pop("data.name") == plain.pop("data.name") + f"_{kind}"
    assert copy == plain
