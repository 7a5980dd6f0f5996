"""Recognition against OpenCV, PyTorch and its own description."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.ops import colour
from ctp_jax.tasks import recognition, render
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, state, step
from tests.tasks import made_clips
from tests.tasks.made_clips import CLASSES, CLIPS, FRAMES, SIZE, VIDEOS


@pytest.fixture(scope="module")
def task():
    return made_clips.make_task()


@pytest.fixture(scope="module")
def weights(task):
    return made_clips.make_weights(task)


def torch_logits(weights, clips, train):
    """The whole network in PyTorch, on normalised clips (n, t, s, s, 3)."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.models import torch_networks

    params, model_state = weights
    strides = (1, 2, 2, 2), (1, 2, 2, 2)
    network = torch_networks.residual("r3d18", (8, 8, 8, 16), *strides)
    stats = model_state["batch_stats"]["encoder"]
    torch_networks.load(network, params["encoder"], stats)
    network.train(train)
    with torch.no_grad():
        maps = network(torch_networks.channels_first(clips))
    pooled = maps.mean(dim=(2, 3, 4))
    head = jax.tree.map(lambda x: torch.tensor(np.array(x)), params["head"])
    return pooled @ head["classifier"]["kernel"] + head["classifier"]["bias"]


def test_training_clips_are_within_one_grey_level_of_opencv(task):
    batch = made_clips.make_batch(task, train=True)
    ours = np.asarray(jax.jit(task.draw)(batch))[:, 0]
    assert ours.shape == (
        VIDEOS,
        FRAMES,
        SIZE,
        SIZE,
        3,
    )
    other_order = 0.0
    for video in range(VIDEOS):
        plan = {name: np.asarray(v[video]) for name, v in batch["plan"].items()}
        clip = made_clips.opencv_clip(batch, video, 0)
        assert np.abs(ours[video] - made_clips.opencv_colours(clip, plan)).max() < 1.0
        other = made_clips.opencv_colours(clip, plan, "hue brightness contrast")
        other_order = max(other_order, np.abs(ours[video] - other).max())
    assert other_order > 5.0


def test_loss_equals_torch(task, weights):
    batch = made_clips.make_batch(task, train=True, seed=2)
    loss, output = jax.jit(task.loss)(weights, batch, 0, jax.random.key(0))
    logits = torch_logits(
        weights, made_clips.normalized(jax.jit(task.draw)(batch)[:, 0]), train=True
    ).numpy()
    label = np.asarray(batch["label"])
    logits = logits.astype(np.float64)
    log_sum = np.log(np.exp(logits).sum(axis=1))
    expected = (log_sum - logits[np.arange(VIDEOS), label]).mean()
    assert expected > 0.1 and float(loss) == pytest.approx(expected, rel=1e-3)
    right = np.mean(logits.argmax(axis=1) == label)
    assert float(output.metrics["top1"]) == pytest.approx(right)
    assert output.metrics["loss"] == loss


def test_prediction_equals_torch_clip_by_clip(task, weights):
    """Logits of every clip; running statistics, centre crops, no colours, no flip."""
    batch = made_clips.make_batch(task, train=False, seed=3)
    assert not batch["plan"] and not batch["flip"].any()
    got = jax.jit(task.predict)(weights, batch)["logits"]
    assert got.shape == (VIDEOS, CLIPS, len(CLASSES)) and got.dtype == jnp.float32
    for video, clip in np.ndindex(VIDEOS, CLIPS):
        drawn = made_clips.normalized(made_clips.opencv_clip(batch, video, clip))[None]
        want = torch_logits(weights, drawn, train=False).numpy()[0]
        np.testing.assert_allclose(got[video, clip], want, rtol=1e-3, atol=1e-3)
    assert np.ptp(got, axis=1).min() > 0.03  # clips differ by more than that


def test_one_clip_at_a_time_is_each_clip_on_its_own(task):
    batch = made_clips.make_batch(task, train=False, seed=4)

    def describe(part):
        clips = colour.normalize(task.draw(part))
        assert clips.shape == (VIDEOS, 1, FRAMES, SIZE, SIZE, 3)
        return clips.mean(axis=(1, 2, 3, 4))

    got = jax.jit(lambda b: render.map_clips(describe, b))(batch)
    assert got.shape == (VIDEOS, CLIPS, 3)
    for video, clip in np.ndindex(VIDEOS, CLIPS):
        want = made_clips.normalized(made_clips.opencv_clip(batch, video, clip)).mean(
            axis=(0, 1, 2)
        )
        np.testing.assert_allclose(got[video, clip], want, atol=2e-3)


def test_dropout_is_drawn_from_the_key_of_the_step(weights):
    task = made_clips.make_task(**{"head.dropout": 0.5})
    batch = made_clips.make_batch(task, train=True)
    loss = jax.jit(lambda seed: task.loss(weights, batch, 0, jax.random.key(seed))[0])
    assert loss(0) == loss(0) and loss(0) != loss(1)


@pytest.mark.parametrize("freeze", ["stem+1", "stem+4"])
def test_what_is_frozen_stays_and_all_else_changes(freeze, weights):
    """After real steps, with weight decay and momentum; statistics included."""
    parts = ["stem", "stage1", "stage2", "stage3", "stage4"]
    still = parts[: {"stem+1": 2, "stem+4": 5}[freeze]]
    task = made_clips.make_task(freeze=freeze)
    batch = made_clips.make_batch(task, train=True)
    mesh = mesh_lib.one_device()
    rule = task.config.optimizer
    rule.weight_decay = 0.1

    def schedule(count):
        return 0.1

    transformation = optimizer.make_optimizer(rule, schedule, task.frozen)
    train_step = step.make_train_step(task, transformation, schedule, 0, mesh)
    before = jax.tree.map(np.array, weights)
    slots = jax.jit(transformation.init)(before[0])
    first = state.TrainState(np.int32(0), *before, slots)
    # Where the step leaves it, too: otherwise the second compiles it anew.
    now = jax.device_put(first, mesh_lib.replicated(mesh))
    for _ in range(3):
        now, metrics = train_step(now, batch)
    assert metrics["finite"] == 1
    leaves, _ = jax.tree_util.tree_flatten_with_path((now.params, now.model_state))
    changed = dict.fromkeys([*parts, "classifier"], False)
    for (path, new), old in zip(leaves, jax.tree.leaves(before), strict=True):
        names = [p.key for p in path if hasattr(p, "key")]
        part = next(n for n in (name.split("_")[0] for name in names) if n in changed)
        differs = (np.asarray(new) != old).any()
        assert differs == (part not in still), names
        changed[part] |= differs
    assert [part for part, did in changed.items() if not did] == still


def test_as_many_classes_as_the_data_set_has():
    task = made_clips.make_task()
    params, _ = jax.eval_shape(task.init, jax.random.key(0), {})
    assert params["head"]["classifier"]["kernel"].shape[1] == 3
    exact = recognition.Task(made_clips.make_config(num_classes=3))
    exact.see_data(made_clips.make_split([0, 1, 2]), None)


@pytest.mark.parametrize(
    ("num_classes", "train", "held_out", "message"),
    [
        (2, [0, 1], [0], "made has 3 classes, config.num_classes is 2.*=3"),
        (4, [0, 1], None, "made has 3 classes, config.num_classes is 4.*=3"),
        (0, [0, -1, -1], [0], "2 of 3 videos of split 'train' have no label"),
        (0, [0, 1], [0, -1], "1 of 2 videos of split 'test' have no label"),
        (0, [1, 1], [0], "all 2 videos of split 'train' are of class 'run', but"),
    ],
)
def test_data_that_cannot_be_learnt_are_refused(num_classes, train, held_out, message):
    task = recognition.Task(made_clips.make_config(num_classes=num_classes))
    held_out = None if held_out is None else made_clips.make_split(held_out, "test")
    with pytest.raises(UserError, match=message):
        task.see_data(made_clips.make_split(train), held_out)


def test_one_class_is_enough_to_look_at():
    task = recognition.Task(made_clips.make_config())
    task.see_data(made_clips.make_split([1, 1], "test"), None)
    assert len(task.class_names) == 3


def test_data_without_labels_are_refused():
    task = recognition.Task(made_clips.make_config())
    with pytest.raises(UserError, match="2 of 2 videos of split 'train' have no label"):
        task.see_data(made_clips.make_split([-1, -1], class_names=()), None)


def test_videos_to_test_on_are_not_those_trained_on():
    task = recognition.Task(made_clips.make_config())
    train, test = (
        made_clips.make_split([0, 1, 2]),
        made_clips.make_split([0, 1], "test"),
    )
    test.id_bytes = np.array([b"test0", b"train1"])
    with pytest.raises(UserError, match="1 video, train1 the first, .*eval_split"):
        task.see_data(train, test)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("freeze", "stem1", r"config\.freeze = 'stem1': .*'', 'stem', 'stem\+1'"),
        ("freeze", "stem+5", r"config\.freeze = 'stem\+5'"),
        ("clip.size", 8, r"config\.clip\.size = 8: needs at least 16"),
        ("model.name", "r3d34", "r3d18, r2plus1d18"),
    ],
)
def test_contradictions_are_refused(field, value, message):
    with pytest.raises(UserError, match=message) as caught:
        recognition.Task(made_clips.make_config(**{field: value}))
    assert "\n" not in str(caught.value)
