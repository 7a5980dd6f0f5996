"""Configs and command lines: errors are one line with the remedy."""

import os
import pathlib
import subprocess
import sys

import pytest

from configs import small
from ctp_jax import cli, ranges
from ctp_jax import config as config_lib
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from tests.toy_data import toy_config

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"--config={ROOT}/configs/ucf_r3d.py"


@pytest.fixture
def parse(monkeypatch):
    """A function from arguments to the config and the positional arguments."""

    def call(*arguments):
        values = Flags()
        config = cli.define_config(values)
        values.string("workdir", None, "Where.")
        monkeypatch.setattr(sys, "argv", ["main", *arguments])
        rest = cli.parse(sys.argv, values, "")
        return config.value, rest

    return call


def test_overrides(parse):
    config, rest = parse(
        f"{CONFIG}:runlocal",
        "--config.batch_size=6",
        "--config.optimizer.learning_rate",
        "1e-3",
        "--config.clip.scales=(120,)",
        "--noconfig.clip.jitter",
        "--config.data.data_dir=a=b",
        "--workdir=w",
        "more",
    )
    assert config.batch_size == 6 and config.steps == 8
    assert config.optimizer.learning_rate == 1e-3
    assert config.clip.scales == (120,) and config.clip.jitter is False
    assert config.data.data_dir == "a=b" and rest == ["more"]


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--config.optimzer.learning_rate=1"], "config.optimizer.learning_rate?"),
        (["--config.bach_size=3"], "did you mean --config.batch_size?"),
        (["--config.learning_rate=1"], "did you mean --config.optimizer.learning_rate"),
        *(
            ([f"--config.{said}=1"], f"did you mean --config.{meant}?")
            for said, meant in (
                ("lr", "optimizer.learning_rate"),
                ("optimizer.lr", "optimizer.learning_rate"),
                ("bs", "batch_size"),
                ("wd", "optimizer.weight_decay"),
                ("num_epochs", "epochs"),
                ("frames", "clip.num_frames"),
                ("data.size", "clip.size"),
                ("crop", "clip.size"),
                ("config.seed", "seed"),
                ("batch_size.x", "batch_size"),
                ("clip.strides[0]", "clip.strides"),
                ("optimizer.learning_rate.x.y", "optimizer.learning_rate"),
            )
        ),
        (["--config.gpus=1"], "CUDA_VISIBLE_DEVICES"),
        *(
            ([f"--config.{name}=1"], "no such field; there are batch_size, ")
            for name in ("", ".x", "x.", "nothing.x.y", "__class__")
        ),
        (["--config.qqqqqq=1"], "there are task, seed|there are batch_size"),
        (["--config.batch-size=3"], "did you mean --config.batch_size?"),
        (["--noconfig.clip.jiter"], "did you mean --config.clip.jitter?"),
        (
            ["--config.batch_size=abc"],
            "--config.batch_size=abc: needs a whole number",
        ),
        (["--config.batch_size=1.5"], "needs a whole number"),
        (["--config.batch_size"], "Missing value for flag --config.batch_size"),
        (
            ["--config.optimizer.learning_rate=fast"],
            "learning_rate=fast: needs a number",
        ),
        (["--config.clip.jitter=maybe"], "jitter=maybe: needs true or false"),
        (["--config.game.scales=(1,x)"], "needs items with commas"),
        (
            ["--config.game.scales=(1,'x')"],
            "(1, 'x'): needs 1 to 100 items, each a num",
        ),
        (["--config.clip.scales=1 2"], "needs items with commas"),
        (["--config.clip.scales=" + 200 * "("], "needs items with commas"),
        (["--config.optimizer=3"], "--config.optimizer=3: Failed to parse"),
        (["--config.optimizer={}"], "config.optimizer.name is missing"),
        (["--config.evaluators={'a': 1}"], "config.evaluators.a = 1: needs fields"),
        (["--config.epochs=nan"], "config.epochs = nan: needs a number in [0, 1e6]"),
        (["--wokdir=x"], "'wokdir'. Did you mean: workdir"),
        (["--zzzzzz"], "'zzzzzz' (see --help)"),
    ],
)
def test_wrong_flags(parse, arguments, message):
    with pytest.raises(UserError) as caught:
        parse(CONFIG, *arguments)
    assert any(part in str(caught.value) for part in message.split("|"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "first,second,field,value",
    [
        ("--config.clip.strides=1", "--config.clip.strides=2", "clip.strides", (2,)),
        (
            "--config.clip.strides=(1,2)",
            "--config.clip.strides=[3]",
            "clip.strides",
            (3,),
        ),
        ("--config.seed=1", "--config.seed=2", "seed", 2),
        ("--config.clip.jitter", "--noconfig.clip.jitter", "clip.jitter", False),
        ("--config.clip.scales=(149,)", f"{CONFIG}:runlocal", "clip.scales", (149,)),
        ("--config.seed=1", f"{CONFIG}:runlocal", "batch_size", 4),
    ],
)
def test_the_last_of_two_equal_flags_counts(parse, first, second, field, value):
    config, _ = parse(CONFIG, first, second)
    assert config_lib.flatten(config)[field] == value


@pytest.mark.parametrize(
    "flag,message",
    [
        ("--config=", "no such file"),
        (CONFIG.replace("ucf_r3d", "ucf_3d"), "did you mean"),
        (f"{CONFIG}:runlocl", "'runlocl': not one of backbone, evaluate, runlocal"),
        ("--config.seed=1", "--config is missing"),
    ],
)
def test_wrong_configs(parse, flag, message):
    with pytest.raises(UserError) as caught:
        parse(flag)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text,message",
    [
        ("x = (", r"c.py \(line 1\): SyntaxError"),
        ("import nothing_like_it", r"c.py \(line 1\): ModuleNotFoundError"),
        ("def get_config(arg=None): return {}", "must return a ConfigDict"),
        (
            "\ndef get_config(arg=None): return 1 / 0",
            r"c.py \(line 2\): ZeroDivisionError",
        ),
        ("def get_config(arg=None): raise ValueError('a=b')", "c.py: a=b"),
        ("x = 1", "c.py: defines no get_config"),
    ],
)
def test_configs_that_do_not_load(parse, tmp_path, text, message):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(UserError, match=message):
        parse(f"--config={tmp_path}/c.py")


def test_a_batch_has_clips_of_every_source():
    def message(**fields):
        config = small.get_config()
        config.batch_size = 8
        config.update_from_flattened_dict(fields)
        with pytest.raises(UserError) as caught:
            config_lib.validate(config)
        return str(caught.value)

    assert message(**{"truth.preset": 0}).startswith("config.truth has only zeros: set")
    assert message(**{"truth.cycle": 2}) == (
        "config.batch_size = 8: needs a multiple of 3, the clips of config.truth (preset "
        "1, cycle 2)"
    )
    parts = {"truth.real": 1, "optimizer.accumulate": 8}
    assert message(**parts).endswith("real 1), times 8, config.optimizer.accumulate")
    groups = {"truth.cycle": 3, "model.batch_norm_groups": 4}
    assert message(**groups).endswith("times 4, config.model.batch_norm_groups")


@pytest.mark.parametrize("field,value", [("name", "adamw"), ("momentum", 0.0)])
def test_nesterov_needs_a_momentum(field, value):
    fields = {"optimizer.nesterov": True, "optimizer.learning_rate": 0.1}
    config_lib.validate(toy_config(**fields))
    with pytest.raises(UserError, match=r"config\.optimizer\.nesterov = True: needs"):
        config_lib.validate(toy_config(**fields, **{f"optimizer.{field}": value}))


@pytest.mark.parametrize("task", ["cep", "pace", "prp", "temptrans"])
def test_frames_that_a_task_chooses_are_not_shifted(task):
    ranges.check({"task": task, "clip": {"jitter": False}})
    with pytest.raises(UserError, match=r"clip\.jitter = True: needs False"):
        ranges.check({"task": task, "clip": {"jitter": True}})


def test_no_length_at_all():
    config_lib.validate(toy_config(steps=0, epochs=0.0))  # only evaluates
    with pytest.raises(UserError, match="epochs"):
        config_lib.validate(toy_config(steps=0, epochs=-1.0))


def test_missing_field():
    config = toy_config()
    del config.optimizer.momentum
    with pytest.raises(UserError, match="config.optimizer.momentum is missing"):
        config_lib.validate(config)


def test_differences_see_through_json():
    old = config_lib.as_dict(toy_config())
    new = toy_config(**{"optimizer.milestones": (1, 2), "seed": 3, "steps": 13})
    fixed, length = config_lib.sort_differences(config_lib.differences(old, new))
    assert fixed == {"seed": "0 -> 3"} and length == {"steps": "12 -> 13"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [CONFIG],
        [CONFIG, "--workdir=w", "--config.bach_size=3"],
        [CONFIG, "--workdir=w", "more"],
        [CONFIG, "--workdir=w", "--config.data.eval_videos=-1"],
    ],
)
def test_command_answers_in_one_line(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ctp_jax.main", *arguments],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
