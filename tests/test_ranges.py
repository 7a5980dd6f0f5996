"""No value of any field ends in another exception than one line for the user."""

import contextlib
import math
import pathlib
import re

import numpy as np
import pytest

from configs import common, ucf_r3d
from ctp_jax import cli, modules, ranges
from ctp_jax import config as config_lib
from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from ctp_jax.train import loop, optimizer
from ctp_jax.train.epochs import Epochs

CONFIGS = pathlib.Path(common.__file__).parent
NAMES = sorted(
    path.stem
    for path in CONFIGS.glob("*.py")
    if path.stem not in ("__init__", "common")
)
NAN, INFINITY = float("nan"), float("inf")
WRONG_TYPES = (None, True, "x", "", b"x", 1j, {"a": 1}, {}, {1}, "x" * 10**4, "a\nb")
NUMBERS = (-1, -1.5, 0, 0.0, 1e-300, 0.3, 1, 7, 10**6, 1e300, 10**400)
NO_NUMBERS = (NAN, INFINITY, -INFINITY)
TUPLES = ((), (1,), (0,), (-1,), (1.5,), (NAN,), ("x",), (None,), (True,), (10**400,))
NESTED = (((1,),), [[1, 2]], [[[]]], ((1, 2), 3), {"a": {"a": 1}}, [{}], ([1] * 10**4,))
VALUES = (*WRONG_TYPES, *NUMBERS, *NO_NUMBERS, *TUPLES, *NESTED)


def load(name, argument=""):
    return cli.load_config(f"{CONFIGS}/{name}.py:{argument}")


def field(config, name):
    """The group that a field is in, and its own name."""
    *groups, own = name.split(".")
    for group in groups:
        config = config[group]
    return config, own


@contextlib.contextmanager
def holding(config, name, value):
    """The config with another value in a field, of whatever type."""
    group, own = field(config, name)
    before = group[own]
    with config.unlocked(), config.ignore_type():
        del group[own]
        group[own] = value
        yield
        del group[own]
        group[own] = before


def start(config):
    """What happens before data are opened: what a value could be wrong for."""
    config_lib.validate(config)
    task = base.load(config)
    for train in (True, False):
        task.clip_spec(train)
    epochs = Epochs(10**6, config.batch_size)
    total = epochs.total_steps(config.epochs, config.steps)
    schedule = optimizer.make_schedule(config.optimizer, epochs, total)
    optimizer.make_optimizer(config.optimizer, schedule)
    for every in (config.eval_every, config.checkpoint_every, config.keep_every):
        assert epochs.passes(100, every) in (True, False)
    return float(schedule(np.int32(min(total, 3))))


def test_every_value_of_every_field():
    tried = set()
    for config in map(load, NAMES):
        start(config)
        plain = config.to_dict()
        for each in config_lib.flatten(config):
            # What all tasks share is tried once.
            owned = each.startswith(
                ("clip.", "head.", "colour.", "jitter.", "test.", "task")
            )
            if (key := (config.task if owned else "", each)) in tried:
                continue
            tried.add(key)
            accepted = [
                value for value in VALUES if is_accepted(config, plain, each, value)
            ]
            assert len(accepted) < len(VALUES) / 2, each


def is_accepted(config, plain, name, value):
    """Whether a run would start with a value; if not, one line says so."""
    group, own = field(plain, name)
    before = group[own]
    try:
        group[own] = value
        ranges.check(plain)
        with holding(config, name, value):
            assert math.isfinite(start(config))
        return True
    except UserError as error:
        message = str(error)
        assert message.startswith("config."), (name, value, message)
        assert "\n" not in message and len(message) < 500
        return False
    finally:
        group[own] = before


def test_the_table_has_the_fields_of_the_configs_and_no_others():
    fields = {
        re.sub(r"^evaluators\.[^.]+", "evaluators.*", field)
        for name in NAMES
        for field in config_lib.flatten(load(name))
    }
    assert fields == {name for name in ranges.RANGES if ": " not in name}
    shared = set.intersection(*(set(config_lib.flatten(load(name))) for name in NAMES))
    assert shared >= set(ranges.SHARED)


@pytest.mark.parametrize(
    "name,argument",
    [
        *((name, "runlocal") for name in NAMES),
        *(("ucf_r3d", f"evaluate={each}") for each in ("knn", "retrieval+knn")),
        *(("vcop", argument) for argument in ("small", "data=mine,small")),
        *(("small", f"truth={each}") for each in ("real", "teacher", "cycle", "mixed")),
        ("finetune_ucf", "linear,backbone=c3d"),
        ("ucf_r3d", "backbone=s3dg,runlocal"),
    ],
)
def test_arguments_that_are_right(name, argument):
    assert math.isfinite(start(load(name, argument)))


@pytest.mark.parametrize(
    "name,argument",
    [
        *(("finetune_ucf", f"split={each}") for each in (-1, 0, 10**30)),
        ("ucf_r3d", "evaluate=+"),
        ("vcop", "data="),
        ("finetune_ucf", "backbone=r3d"),
        ("finetune_ucf", "split=1.5"),
        ("finetune_ucf", "linear=2"),
        ("ucf_r3d", "evaluate=a.b"),
        ("ucf_r3d", "split=1"),
        ("small", "data=a=b,,"),
    ],
)
def test_arguments_that_are_odd_or_wrong(name, argument):
    with contextlib.suppress(UserError):
        assert math.isfinite(start(load(name, argument)))


@pytest.mark.parametrize(
    "name,value",
    [
        *(("game.visible", value) for value in (2.0, -0.1, NAN)),
        *(("game.opacity", value) for value in ((5, 9), (0.9, 0.1), (1.0,), 0.5)),
        *(("game.soft_edge_start", value) for value in ((0.3,), (0.3, 0.6))),
        *(("game.key_frames", value) for value in ((), (0.5, 0.6), (2.0, -1.0))),
        *(("clip.strides", value) for value in ((1.5,), (), 1, (10**9,))),
        *(("clip.scales", value) for value in ((96,), ((112,),), ((149, 111),), ())),
        *(("data.fraction", value) for value in (0.0, 1.01, NAN, -1.0)),
        *(("model.spatial_strides", value) for value in ((1, 2, 2), (2, 2, 2, 1))),
        *(("optimizer.milestones", value) for value in ((3, 2), (0, 2), (NAN,))),
        ("game.interpolation", (0.5, 0.5)),
        ("game.speed", -1.0),
        ("game.size_change", -0.1),
        ("game.box_jitter", INFINITY),
        ("clip.num_frames", 10**5),
        ("clip.num_frames", 1),
        ("clip.flip", 1.5),
        ("colour.brightness", 50.0),
        ("data.eval_videos", -1),
        ("data.min_frames", -5),
        ("data.prefetch", -1),
        ("data.max_bad", 1.5),
        ("data.stall_after", 0.0),
        ("probe.pool", (2, 3)),
        ("probe.pooling", "mean"),
        ("head.init_std", 0.001),
        ("head.init_std", (-0.001, 0.001)),
        ("head.target_scale", (1, 1, 1)),
        ("model.width", 0.0),
        ("model.width", 1e6),
        ("model.epsilon", 0.0),
        ("model.dtype", "float16"),
        ("evaluators.tracking.every", -1.0),
        ("batch_size", 0),
        ("batch_size", 32.0),
        ("seed", -1),
        ("steps", 99999999999999),
        ("epochs", INFINITY),
        ("epochs", -1.0),
        ("log_every", 0),
        ("keep_every", 1e-300),
        ("keep_best", 1),  # best by what?
        ("optimizer.learning_rate", 0.0),
        ("optimizer.momentum", 1.0),
        ("optimizer.name", "adamax"),
        ("optimizer.accumulate", 3),  # of a batch of 32
        *(("truth.real", value) for value in (-1, 0.5, True, 101)),
        ("truth.cycle_loss", 1.0),  # of no cycles
        ("optimizer.schedule", "steps"),
        ("optimizer.warmup_steps", 2**31),
        ("ema", 1.0),
    ],
)
def test_impossible_values(name, value):
    config = load("ucf_r3d")
    with (
        holding(config, name, value),
        pytest.raises(UserError, match=rf"^config\.{re.escape(name)} = .*") as caught,
    ):
        config_lib.validate(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name,value",
    [
        ("clip.strides", (-2, 0, 3)),
        ("clip.scales", ((149, 112), 128, [171, 128])),
        ("game.key_frames", (1.0,)),
        ("game.opacity", (1, 1)),
        ("optimizer.milestones", ()),
        ("optimizer.name", "my.module"),
        ("optimizer.weight_decay", 0),
        ("evaluators.tracking.module", "my.module"),
        ("data.data_dir", "gs://bucket/a b"),
        ("eval_every", 0.0),
        ("keep_every", 0.25),
        ("epochs", 1),
    ],
)
def test_unusual_values(name, value):
    config = load("ucf_r3d")
    with holding(config, name, value):
        config_lib.validate(config)


@pytest.mark.parametrize("group", ["clip", "optimizer", "data", "model", "evaluators"])
@pytest.mark.parametrize("value", [3, None, "x", (), [1]])
def test_a_group_is_no_value(group, value):
    config = load("ucf_r3d")
    with holding(config, group, value), pytest.raises(UserError, match="needs fields"):
        config_lib.validate(config)


def test_fields_of_others_hold_anything_finite():
    config = load("ucf_r3d").unlock()
    config.mine = {"x": -1, "y": {"z": "a"}}
    config_lib.validate(config)
    config.mine.y.w = NAN
    with pytest.raises(UserError, match=r"config\.mine\.y\.w = nan: needs a finite"):
        config_lib.validate(config)


@pytest.mark.parametrize("value", [0.1, (0.1, 0.2)])
def test_a_task_of_the_users_own_has_the_head_of_either_kind(value):
    """`common.pretrain` gives it one deviation for each of two layers."""
    for name, right in (("ucf_r3d", value != 0.1), ("speednet", value == 0.1)):
        config = load(name)
        with config.unlocked(), config.ignore_type():
            config.head.init_std = value
        if right:
            config_lib.validate(config)
        else:
            with pytest.raises(UserError, match="head.init_std"):
                config_lib.validate(config)
        config.task = "my_tasks.arrow"
        config_lib.validate(config)


@pytest.mark.parametrize("name", ["cep", "vcp"])
def test_methods_of_consecutive_frames_have_no_strides(name):
    config = load(name)
    config_lib.validate(config)
    config.clip.strides = (2,)
    with pytest.raises(UserError, match=r"clip\.strides = \(2,\): needs \(1,\)"):
        config_lib.validate(config)


def test_more_steps_than_devices_can_count():
    assert Epochs(32, 32).total_steps(2**31 - 1, 0) == 2**31 - 1
    with pytest.raises(UserError, match=r"config\.epochs = 2147483648"):
        Epochs(32, 32).total_steps(2**31, 0)


def extremes(name):
    """The smallest and the largest accepted of many values."""
    some = [*np.geomspace(1e-3, 1e4, 400), *range(1, 1024), *np.linspace(0, 1, 101)]
    each = ranges.RANGES[name].holds
    candidates = [0, *sorted(float(value) for value in some)]
    for make in (
        lambda x: x,
        int,
        lambda x: (x, x),
        lambda x: (x,),
        lambda x: (int(x),),
    ):
        found = [make(x) for x in candidates if each(make(x))]
        if found:
            return found[0], found[-1]
    return ()


@pytest.mark.slow
def test_the_ends_of_the_ranges_give_sound_plans():
    """What is accepted in the game and its colours, alone, gives a possible clip."""
    import tensorflow as tf

    from ctp_jax.data import rng

    config = load("small")
    task_of = base.load
    tried = 0
    for name in config_lib.flatten(config):
        if not name.startswith(("game.", "colour.")):
            continue
        for value in extremes(name):
            with holding(config, name, value):
                task, numbers = (
                    task_of(config),
                    tf.random.stateless_uniform([4, 4096], [1, 2]),
                )
                plan = {
                    key: np.asarray(values)
                    for key, values in task.plan(rng.Rng(numbers), {}, True).items()
                }
            tried += 1
            for key, values in plan.items():
                assert np.isfinite(values.astype(float)).all(), (name, value, key)
            boxes, size = plan["boxes"], config.clip.size
            assert (boxes[..., :2] >= 0).all() and (boxes[..., 2:] <= size).all()
            assert (boxes[..., 2:] - boxes[..., :2] >= 1).all(), (name, value)
            assert (plan["opacity"] >= 0).all() and (plan["opacity"] <= 1).all()
    assert tried > 30


@pytest.mark.slow
def test_a_run_with_values_at_the_ends_of_their_ranges(moving_shapes, tmp_path, capsys):
    config = ucf_r3d.get_config("runlocal")
    config.model.name, config.model.conv = "tests.tiny_network", "direct"
    modules.allow_named_by(config)
    config.data.name, config.data.data_dir = "moving_shapes", moving_shapes(12, 6)
    config.data.split, config.data.eval_split = "train", "all"
    config.data.prefetch, config.data.fraction = 0, 0.5
    config.clip.size, config.clip.num_frames, config.steps = 56, 8, 1
    config.clip.strides, config.clip.scales = (-1000, 0, 1000), (56, (8192, 56))
    config.game.opacity, config.game.visible = (0.0, 0.0), 0.0
    config.game.speed, config.game.size_change, config.game.box_jitter = 1e3, 10.0, 10.0
    config.colour.contrast_delta = config.colour.saturation = 10.0
    results = loop.train(config, tmp_path)
    assert 0 <= results["iou"] <= 1
    # One video of each of ten classes is trained on.
    expected = "note: 10 of the 18 videos of split 'all', to evaluate on, are also in"
    assert expected in capsys.readouterr().out
