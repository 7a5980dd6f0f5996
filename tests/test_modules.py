"""Code is imported if this package has it or the user named it, not if a file does."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from ctp_jax import config as config_lib
from ctp_jax import models, modules, visualize
from ctp_jax.errors import UserError
from ctp_jax.evaluators import base as evaluators_base
from ctp_jax.tasks import base
from ctp_jax.train import optimizer
from ctp_jax.train.checkpoints import init_from, manager
from ctp_jax.train.checkpoints.retention import RetentionPolicy
from ctp_jax.train.state import TrainState
from tests.toy_data import toy_config

FIELDS = ("task", "model.name", "optimizer.name", "evaluators.toy_task.module")


def load_all(config):
    """Imports whatever a config names."""
    base.load(config)
    if "name" in config.model:
        models.create(config.model)
    optimizer.make_optimizer(config.optimizer, lambda step: 0.1)
    for name, options in config.evaluators.items():
        evaluators_base.load(name, options)


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """(name of a module that leaves a trace when it is imported, the trace)."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    trace = tmp_path / "trace"
    (folder / "payload.py").write_text(
        f"open({str(trace)!r}, 'w').close()\nfrom tests.toy_task import *\n"
        "LOOKS_AT = 'predictions'\ncreate = make = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "stranger.payload", trace
    for name in ("stranger.payload", "stranger"):
        sys.modules.pop(name, None)
    modules._allowed.discard("stranger.payload")


@pytest.mark.parametrize("field", FIELDS)
def test_a_config_out_of_a_workdir_runs_nothing(tmp_path, payload, field):
    name, trace = payload
    config = toy_config()
    if field == "model.name":
        config.model.name = name
    else:
        config.update_from_flattened_dict({field: name})
    (tmp_path / "config.json").write_text(json.dumps(config_lib.as_dict(config)))
    with pytest.raises(UserError, match=f"{name}.*--allow_code={name}") as caught:
        load_all(visualize.config_of_run(str(tmp_path)))
    assert "\n" not in str(caught.value) and not trace.exists()


def test_a_checkpoint_runs_nothing(tmp_path, payload):
    name, trace = payload
    config = toy_config(task=name)
    meta = {"config": config_lib.as_dict(config), "class_names": []}
    state = TrainState(jnp.int32(3), {"a": jnp.zeros(2)}, {}, ())
    checkpoints = manager.Checkpoints(tmp_path / "run", RetentionPolicy(1))
    checkpoints.save(3, state, meta)
    checkpoints.close()
    with pytest.raises(UserError, match=f"--allow_code={name}"):
        init_from.read(tmp_path / "run")
    assert not trace.exists()
    # With the flag it is imported, and then the arrays are not those of the task.
    modules.allow(name)
    with pytest.raises(UserError, match="not of the task in its config"):
        init_from.read(tmp_path / "run")
    assert trace.exists()


def test_what_the_user_names_is_imported(payload):
    name, trace = payload
    config = toy_config(task=name)
    modules.allow_named_by(config)
    base.load(config)
    assert trace.exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".payload", "a..b", "os", "../x", "a b.c", "base", "sys.\0"]
)
def test_names_that_are_none(name):
    message = (
        "no such task; choose one of .*ctp, |needs a name, or the path of a module"
    )
    with pytest.raises(UserError, match=message) as caught:
        base.load(toy_config(task=name))
    assert "\n" not in str(caught.value)


def test_our_own_modules_are_complete():
    for name in modules.inside("ctp_jax.evaluators", *evaluators_base.NO_EVALUATORS):
        options = toy_config().evaluators.toy_task
        options.module = name
        assert evaluators_base.load("x", options).__name__.endswith(name)


CONFIGS = {
    "empty": "",
    "cut": '{"task": "ct',
    "list": "[1]",
    "deep": "[" * 100_000,
    "lacks everything": "{}",
    "lacks a part": '{"task": "ctp", "data": {}}',
    "part of another kind": '{"task": "ctp", "data": 3, "model": []}',
}


@pytest.mark.parametrize("kind", [*CONFIGS, "binary", "folder", "pipe"])
def test_any_config_json_is_one_line(tmp_path, kind):
    path = tmp_path / "config.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(CONFIGS.get(kind, "").encode() or b"\xff\xfe\0")
    with pytest.raises(UserError) as caught:
        visualize.config_of_run(str(tmp_path))
    assert "\n" not in str(caught.value)


def command(tmp_path, *flags):
    """Exit code 2 and one line, from the command as the user has it."""
    done = subprocess.run(
        [sys.executable, "-m", "ctp_jax.visualize", *flags],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_workdir_is_not_the_user(tmp_path, payload):
    name, trace = payload
    config = config_lib.as_dict(toy_config(task=name))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert f"--allow_code={name}" in command(tmp_path, f"--workdir={tmp_path}")
    assert not trace.exists() and not (tmp_path / "game.png").exists()


def test_the_config_of_the_command_is_the_user(tmp_path, payload):
    name, trace = payload
    flags = ("--config=configs/small.py", f"--config.task={name}", f"--out={tmp_path}")
    # The next error is that of the module.
    assert "config.model.width: the toy needs 2" in command(tmp_path, *flags)
    assert trace.exists()
