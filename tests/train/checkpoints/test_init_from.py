"""Starting from other runs: everything `init_from` may name, and the messages."""

import contextlib
import copy
import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax import convert
from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from ctp_jax.train import loop
from ctp_jax.train.checkpoints import export, init_from, pytrees
from ctp_jax.train.state import TrainState
from tests.tasks import made_clips as made
from tests.toy_data import opener, toy_config
from tests.toy_task import Task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the toy, with checkpoints at steps 8 and 12."""
    workdir = tmp_path_factory.mktemp("run")
    loop.train(toy_config(), workdir, opener())
    return workdir


def state_at(run, step):
    tree = pytrees.load(run / "checkpoints" / str(step) / "state")
    return tree["params"], tree["model_state"]


def assert_encoder(encoder, params, model_state):
    for ours, theirs in (
        (encoder.params, params["encoder"]),
        (encoder.batch_stats, model_state["batch_stats"]),
        (encoder.head, params["head"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert encoder.architecture == {"name": "toy", "width": 8}
    assert encoder.head_task == "tests.toy_task"


@pytest.mark.parametrize("step", [8, 12])
def test_a_checkpoint_of_a_run(run, step):
    encoder = init_from.read(run / "checkpoints" / str(step))
    assert_encoder(encoder, *state_at(run, step))
    assert encoder.provenance["steps"] == step
    assert encoder.path.endswith(f"checkpoints/{step}")


@pytest.mark.parametrize("name", ["", "encoder", "encoder/"])
def test_what_a_finished_run_exported(run, name):
    encoder = init_from.read(f"{run}/{name}")
    assert_encoder(encoder, *state_at(run, 12))
    assert encoder.path == str(run / "encoder")


@pytest.mark.parametrize("name", ["", "checkpoints"])
def test_a_run_that_is_not_finished_gives_its_newest_step(run, tmp_path, name):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    # Leftover of a killed save: must not be taken for a step.
    unfinished = tmp_path / "checkpoints/16.writing"
    shutil.copytree(tmp_path / "checkpoints/8", unfinished)
    before = sorted(tmp_path.rglob("*"))
    encoder = init_from.read(tmp_path / name)
    assert_encoder(encoder, *state_at(run, 12))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_from_the_home_folder(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    assert init_from.read(f"~/{run.name}").provenance["steps"] == 12


def test_what_cannot_be_read_is_said_in_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun/checkpoints").mkdir(parents=True)
    (tmp_path / "note.txt").write_text("no")
    for name in ("w.pth", "w.v2.pth.tar", "w.safetensors"):
        (tmp_path / name).write_bytes(b"no")
    broken = tmp_path / "broken/checkpoints"
    shutil.copytree(run / "checkpoints", broken)
    shutil.rmtree(broken / "12/state")
    for path, message in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "nowhere.pth", "no such folder"),
        (tmp_path / "empty", "neither an exported encoder"),
        (tmp_path / "note.txt", "neither an exported encoder"),
        (tmp_path / "begun", "has neither encoder/ nor a checkpoint"),
        (run / "checkpoints/9", "no step 9: use one of 8, 12"),
        (tmp_path / "broken", "step 12 cannot be read"),
        (tmp_path / "w.pth", r"ctp_jax\.convert \S+/w\.pth w$"),
        (tmp_path / "w.v2.pth.tar", r"ctp_jax\.convert \S+/w\.v2\.pth\.tar w\.v2$"),
        (tmp_path / "w.safetensors", r"ctp_jax\.convert \S+ w$"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            init_from.read(path)
        assert str(path) in str(caught.value) or "checkpoints" in str(caught.value)
        assert "\n" not in str(caught.value)


def fresh(task):
    """A state whose values differ from all that are loaded."""
    batch = {"frames": jnp.zeros((1, 2, 3, 8, 8, 3))}
    params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    filled = jax.tree.map(
        lambda x: jnp.full(x.shape, 7, x.dtype), (params, model_state)
    )
    return TrainState(jnp.zeros((), jnp.int32), *filled, ())


def test_the_encoder_goes_in_and_the_rest_stays(run):
    task = Task(toy_config())
    params, model_state = state_at(run, 8)
    state, lines = init_from.start(
        task, fresh(task), init_from.read(run / "checkpoints/8")
    )
    for ours, theirs in (
        (state.params["encoder"], params["encoder"]),
        (state.model_state["batch_stats"], model_state["batch_stats"]),
        (state.model_state["networks"]["key"]["params"], params["encoder"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for random in (state.params["head"], state.model_state["queue"]):
        assert all((np.asarray(leaf) == 7).all() for leaf in jax.tree.leaves(random))
    # The step donates the state: every array is in it once, and owned by JAX.
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)

    loaded, random, unused = lines
    assert "checkpoints/8" in loaded and "loaded" in loaded and "head" not in loaded
    for name in ("params/encoder", "batch_stats", "networks"):
        assert name in loaded and name not in random
    assert "stays random" in random and "params/head" in random and "queue" in random
    head = sum(leaf.size for leaf in jax.tree.leaves(params["head"]))
    assert "unused" in unused and "tests.toy_task" in unused and f"{head:,}" in unused


def test_the_head_comes_along_on_request(run):
    task = Task(toy_config())
    encoder = init_from.read(run)
    state, lines = init_from.start(
        task, fresh(task), encoder, ("slow", "middle", "fast")
    )
    jax.tree.map(np.testing.assert_array_equal, state.params["head"], encoder.head)
    text = "\n".join(lines)
    assert "params/head" in lines[0] and "unused" not in text
    assert "head" not in text.partition("stays random")[2]


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    """An exported recogniser of three classes, its task, and a state of it."""
    task = made.make_task()
    params, model_state = made.make_weights(task)
    state = TrainState(jnp.zeros((), jnp.int32), params, model_state, ())
    workdir = tmp_path_factory.mktemp("recogniser")
    about = {"steps": 1, "class_names": list(made.CLASSES)}
    export.export_encoder(workdir, task, state, about)
    return workdir, task, state


def test_a_head_for_other_classes_is_refused(recogniser):
    workdir, task, state = recogniser
    encoder = init_from.read(workdir)
    init_from.start(task, state, encoder, made.CLASSES)
    more = made.recognition.Task(made.make_config())
    more.see_data(made.make_split([0, 1], class_names=("a", "b", "c", "d")), None)
    other = TrainState(state.step, *made.make_weights(more), ())
    renamed = copy.copy(task)
    renamed.class_names = ("a", "b", "c")
    for now, start_from in ((more, other), (renamed, state)):
        with pytest.raises(UserError, match="init_head.*for other classes"):
            init_from.start(now, start_from, encoder, now.class_names)
    # Of a task that makes its labels, the classes of the data do not matter.
    init_from.start(renamed, state, encoder, ("some", "other", "data"))
    for head, fits in ((["a", "b", "c"], True), (["c", "b", "a"], False)):
        about = encoder.provenance | {"head_classes": head}
        made_here = dataclasses.replace(encoder, provenance=about)
        expected = pytest.raises(
            UserError, match="for other classes, 3, not 3, e.g. 'c'"
        )
        with contextlib.nullcontext() if fits else expected:
            init_from.start(renamed, state, made_here, ("some", "other", "data"))
    # A task without classes of its own, as one that predicts boxes.
    more.class_names = ()
    init_from.start(more, state, encoder, ("a", "b", "c"))
    more.class_names = ("a", "b", "c", "d")
    # An encoder of another stream is no mistake, but said.
    flow = encoder.provenance | {"config": {"data": {"stream": "flow"}}}
    _, said = init_from.start(
        task, state, dataclasses.replace(encoder, provenance=flow)
    )
    assert "  note: it was trained on flow, this run is on rgb" in said
    # An encoder from a PyTorch file does not name its classes.
    silent = dataclasses.replace(encoder, provenance={})
    init_from.start(task, state, silent, ("a", "b", "c"))
    with pytest.raises(UserError, match=r"does not fit.*classifier.*\b3\).*\b4\)"):
        init_from.start(more, other, silent, ("a", "b", "c", "d"))


def damage(encoder, change):
    params = jax.tree.map(np.array, encoder.params)
    change(params)
    return dataclasses.replace(encoder, params=params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("stem"), r"stem/\S+ is absent, not float32"),
        (
            lambda p: p.update(stage5={"kernel": np.zeros(3)}),
            "stage5/kernel is float64",
        ),
        (lambda p: p["stem"]["conv"].update(kernel=np.zeros(3)), r"kernel is \S+\(3\)"),
        (lambda p: p.clear(), "is absent"),
    ],
)
def test_what_would_leave_the_backbone_random_is_refused(recogniser, change, message):
    workdir, task, state = recogniser
    encoder = damage(init_from.read(workdir), change)
    with pytest.raises(UserError, match=f"does not fit the network.*{message}"):
        init_from.start(task, state, encoder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.name", "r2plus1d18", "name is r3d18, config.model.name is r2plus1d18"),
        ("model.width", 0.5, "width is 0.03"),
        ("model.epsilon", 1e-5, "epsilon is 0.001"),
    ],
)
def test_another_family_is_refused_before_data_are_opened(
    recogniser, tmp_path, field, value, message
):
    def no_data(*_):
        raise AssertionError("data were opened")

    config = made.make_config(**{field: value, "init_from": str(recogniser[0])})
    with pytest.raises(UserError, match=f"config.init_from: .*{message}.*it fits"):
        loop.train(config, tmp_path, no_data)
    assert not list(tmp_path.rglob("*.json*"))


def test_a_head_of_another_task_or_none(recogniser, run):
    workdir, task, _ = recogniser
    encoder = init_from.read(workdir)
    config = made.make_config(init_from=str(workdir), init_head=True)
    checked = init_from.read_checked(config, task)
    assert checked is not None and checked.head is not None
    nowhere = made.make_config(init_from="", init_head=True)
    with pytest.raises(UserError, match="init_head = True: needs config.init_from"):
        init_from.read_checked(nowhere, task)
    other = dataclasses.replace(encoder, head_task="ctp")
    with pytest.raises(UserError, match="init_head.*'ctp', not 'recognition'"):
        init_from.check_head(task, other)
    none = dataclasses.replace(encoder, head=None, head_task="")
    with pytest.raises(UserError, match="init_head.*has no head"):
        init_from.check_head(task, none)


def test_a_converted_pytorch_file(tmp_path):
    torch = pytest.importorskip("torch", reason="converts a file of PyTorch")
    from tests.interop import torch_models

    net = torch_models.scramble(
        torch_models.torchvision_classifier((8, 8, 8, 16), 0, 3)
    )
    torch.save(net.state_dict(), tmp_path / "w.pth")
    convert.import_file(tmp_path / "w.pth", tmp_path / "w")
    encoder = init_from.read(tmp_path / "w")
    flat = made.make_config(init_from=str(tmp_path / "w"))
    flat.model.width = encoder.architecture["width"]
    flat.model.epsilon = 1e-5
    task = base.load(flat)
    task.see_data(made.make_split([0, 1, 2]), None)
    checked = init_from.read_checked(flat, task)
    assert checked is not None and checked.head_task == "recognition"
    state = TrainState(jnp.zeros((), jnp.int32), *made.make_weights(task), ())
    state, lines = init_from.start(task, state, encoder, made.CLASSES)
    assert len(lines) == 1  # nothing random, nothing unused
    kernel = state.params["encoder"]["stem"]["conv"]["kernel"]
    weight = net.state_dict()["stem.0.weight"].permute(2, 3, 4, 1, 0)
    np.testing.assert_array_equal(kernel, weight)
