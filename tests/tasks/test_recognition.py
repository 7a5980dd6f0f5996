"""Recognition against OpenCV, PyTorch and its own description."""

from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from configs import common
from ctp_jax.data import clips, draws
from ctp_jax.errors import UserError
from ctp_jax.tasks import drawing, recognition
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, state, step
from tests import opencv_drawing

HEIGHT, WIDTH, VIDEOS, CLIPS, SIZE, FRAMES = 40, 60, 4, 3, 32, 4
CLASSES = ("jump", "run", "sit")


def make_config(**flat):
    config = common.finetune(
        "none", split="train", eval_split="", num_classes=0, epochs=1, milestones=()
    )
    config.clip.size, config.clip.num_frames = SIZE, FRAMES
    config.clip.scales, config.clip.flip = ((48, 34), (51, 38)), 0.5
    config.test.scales, config.test.num_clips = ((48, 36),), CLIPS
    config.colour.brightness = config.colour.contrast = 1.0
    config.colour.hue_saturation = 1.0
    config.model.width, config.model.conv = 0.03, "direct"
    config.head.dropout, config.head.init_std = 0.0, 0.5
    config.update_from_flattened_dict(flat)
    return config


class Split(SimpleNamespace):
    """What a task reads of `ctp_jax.data.records.Records`."""

    def __len__(self):
        return len(self.label)


def make_split(labels, split="train", class_names=CLASSES):
    ids = np.array([f"{split}{i}".encode() for i in range(len(labels))])
    return Split(
        name="made",
        split=split,
        label=np.array(labels),
        class_names=class_names,
        id_bytes=ids,
    )


def make_task(**flat):
    task = recognition.Task(make_config(**flat))
    task.see_data(make_split([0, 1, 2, 0]), make_split([1, 2], "test"))
    return task


def make_batch(task, train, seed=0):
    """Busy frames in windows of the task's, with a plan of its own."""
    rng = np.random.default_rng(seed)
    spec = task.clip_spec(train)
    shape = (VIDEOS, spec.num_clips, spec.num_frames)
    coarse = rng.integers(0, 256, (*shape, 5, 8, 3), np.uint8)
    frames = np.zeros((*shape, HEIGHT, WIDTH, 3), np.uint8)
    for at in np.ndindex(shape):
        frames[at] = cv2.resize(coarse[at], (WIDTH, HEIGHT))
    windows, flips = [], []
    for _ in range(VIDEOS):
        numbers = draws.Draws(tf.constant(rng.random(32, np.float32)))
        window, flip = clips.sample_window(
            numbers, tf.constant(HEIGHT), tf.constant(WIDTH), spec
        )
        windows.append(window.numpy())
        flips.append(flip.numpy())
    batch = {
        "frames": frames,
        "extent": np.tile(np.float32([HEIGHT, WIDTH]), (*shape[:2], 1)),
        "window": np.stack(windows),
        "flip": np.stack(flips),
        "label": rng.integers(0, len(CLASSES), VIDEOS).astype(np.int32),
        "mask": np.ones(VIDEOS, np.float32),
    }
    count = draws.count_draws(lambda d: task.plan(d, {}, train))
    numbers = draws.Draws(tf.constant(rng.random((VIDEOS, count), np.float32)))
    plan = {name: v.numpy() for name, v in task.plan(numbers, {}, train).items()}
    return jax.tree.map(jnp.asarray, batch | {"plan": plan})


def opencv_clip(batch, video, clip):
    return opencv_drawing.scale_and_crop(
        *(
            np.asarray(batch[name][video, clip])
            for name in ("frames", "window", "flip")
        ),
        SIZE,
    )


def opencv_colours(clip, plan, order="brightness contrast hue"):
    out = []
    for t, frame in enumerate(clip):
        for change in order.split():
            if change == "brightness":
                frame = np.clip(frame + plan["brightness"][t], 0, 255)
            elif change == "contrast":
                frame = np.clip(frame * plan["contrast"][t], 0, 255)
            else:
                hsv = cv2.cvtColor(np.float32(frame) / 255, cv2.COLOR_RGB2HSV)
                hsv[..., 0] -= 360 * (hsv[..., 0] >= 359)
                hsv[..., 0] = np.clip(hsv[..., 0] + plan["hue"], 0, 358)
                hsv[..., 1] = np.clip(hsv[..., 1] * plan["saturation"], 0, 1)
                frame = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        out.append(frame)
    return np.stack(out)


def normalized(clip):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return np.float32((np.float64(clip) / 255 - mean) / std)


@pytest.fixture(scope="module")
def task():
    return make_task()


def make_weights(task):
    """Kaiming kernels; scales, biases and statistics away from 1 and 0."""
    shapes = jax.eval_shape(task.init, jax.random.key(0), {})
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        kind = path[-1].key
        if kind == "kernel":
            return jnp.asarray(
                noise * np.float32(np.sqrt(2 * leaf.shape[-1] / leaf.size))
            )
        return jnp.asarray(
            np.exp(0.2 * noise) if kind in ("scale", "var") else 0.1 * noise
        )

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def weights(task):
    return make_weights(task)


def torch_logits(weights, clips, train):
    """The whole network in PyTorch, on normalised clips (n, t, s, s, 3)."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.models import torch_networks

    params, model_state = weights
    network = torch_networks.Encoder((8, 8, 8, 16), (1, 2, 2, 2), (1, 2, 2, 2))
    stats = model_state["batch_stats"]["encoder"]
    torch_networks.load(network, params["encoder"], stats)
    network.train(train)
    with torch.no_grad():
        maps = network(torch_networks.channels_first(clips))
    pooled = maps.mean(dim=(2, 3, 4))
    head = jax.tree.map(lambda x: torch.tensor(np.array(x)), params["head"])
    return pooled @ head["classifier"]["kernel"] + head["classifier"]["bias"]


def test_training_clips_are_within_one_grey_level_of_opencv(task):
    batch = make_batch(task, train=True)
    ours = np.asarray(jax.jit(task.draw)(batch))
    assert ours.shape == (VIDEOS, FRAMES, SIZE, SIZE, 3)
    other_order = 0.0
    for video in range(VIDEOS):
        plan = {name: np.asarray(v[video]) for name, v in batch["plan"].items()}
        clip = opencv_clip(batch, video, 0)
        assert np.abs(ours[video] - opencv_colours(clip, plan)).max() < 1.0
        other = opencv_colours(clip, plan, "hue brightness contrast")
        other_order = max(other_order, np.abs(ours[video] - other).max())
    assert other_order > 5.0


def test_loss_equals_torch(task, weights):
    batch = make_batch(task, train=True, seed=2)
    loss, output = jax.jit(task.loss)(*weights, batch, jax.random.key(0))
    logits = torch_logits(weights, normalized(task.draw(batch)), train=True).numpy()
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
    batch = make_batch(task, train=False, seed=3)
    assert not batch["plan"] and not batch["flip"].any()
    got = jax.jit(task.predict)(*weights, batch)["logits"]
    assert got.shape == (VIDEOS, CLIPS, len(CLASSES)) and got.dtype == jnp.float32
    for video, clip in np.ndindex(VIDEOS, CLIPS):
        drawn = normalized(opencv_clip(batch, video, clip))[None]
        want = torch_logits(weights, drawn, train=False).numpy()[0]
        np.testing.assert_allclose(got[video, clip], want, rtol=1e-3, atol=1e-3)
    assert np.ptp(got, axis=1).min() > 0.03  # clips differ by more than that


def test_one_clip_at_a_time_is_each_clip_on_its_own(task):
    batch = make_batch(task, train=False, seed=4)

    def describe(clips):
        assert clips.shape == (VIDEOS, FRAMES, SIZE, SIZE, 3)
        return clips.mean(axis=(1, 2, 3)), clips[:, :, 0, 0, 0]

    got = jax.jit(lambda b: drawing.map_clips(lambda c: describe(c)[0], b, SIZE))(batch)
    assert got.shape == (VIDEOS, CLIPS, 3)
    for video, clip in np.ndindex(VIDEOS, CLIPS):
        want = normalized(opencv_clip(batch, video, clip)).mean(axis=(0, 1, 2))
        np.testing.assert_allclose(got[video, clip], want, atol=2e-3)


def test_dropout_is_drawn_from_the_key_of_the_step(weights):
    task = make_task(**{"head.dropout": 0.5})
    batch = make_batch(task, train=True)
    loss = jax.jit(lambda seed: task.loss(*weights, batch, jax.random.key(seed))[0])
    assert loss(0) == loss(0) and loss(0) != loss(1)


@pytest.mark.parametrize("freeze", ["stem+1", "stem+4"])
def test_what_is_frozen_stays_and_all_else_changes(freeze, weights):
    """After real steps, with weight decay and momentum; statistics included."""
    parts = ["stem", "stage1", "stage2", "stage3", "stage4"]
    still = parts[: {"stem+1": 2, "stem+4": 5}[freeze]]
    task = make_task(freeze=freeze)
    batch = make_batch(task, train=True)
    mesh = mesh_lib.one_device()
    rule = task.config.optimizer
    rule.weight_decay = 0.1

    def schedule(count):
        return 0.1

    transformation = optimizer.make_optimizer(rule, schedule, task.frozen)
    train_step = step.make_train_step(task, transformation, schedule, 0, mesh)
    params, model_state = weights
    before = jax.tree.map(np.array, weights)
    now = state.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=jax.tree.map(jnp.copy, params),
        model_state=jax.tree.map(jnp.copy, model_state),
        opt_state=transformation.init(params),
    )
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
    task = make_task()
    params, _ = jax.eval_shape(task.init, jax.random.key(0), {})
    assert params["head"]["classifier"]["kernel"].shape[1] == 3
    exact = recognition.Task(make_config(num_classes=3))
    exact.see_data(make_split([0, 1, 2]), None)


@pytest.mark.parametrize(
    ("num_classes", "train", "held_out", "message"),
    [
        (2, [0, 1], [0], "made has 3 classes, config.num_classes is 2.*=3"),
        (4, [0, 1], None, "made has 3 classes, config.num_classes is 4.*=3"),
        (0, [0, -1, -1], [0], "2 of 3 videos of split 'train' have no label"),
        (0, [0, 1], [0, -1], "1 of 2 videos of split 'test' have no label"),
    ],
)
def test_data_that_cannot_be_learnt_are_refused(num_classes, train, held_out, message):
    task = recognition.Task(make_config(num_classes=num_classes))
    held_out = None if held_out is None else make_split(held_out, "test")
    with pytest.raises(UserError, match=message):
        task.see_data(make_split(train), held_out)


def test_data_without_labels_are_refused():
    task = recognition.Task(make_config())
    with pytest.raises(UserError, match="2 of 2 videos of split 'train' have no label"):
        task.see_data(make_split([-1, -1], class_names=()), None)


def test_videos_to_test_on_are_not_those_trained_on():
    task = recognition.Task(make_config())
    train, test = make_split([0, 1, 2]), make_split([0, 1], "test")
    test.id_bytes = np.array([b"test0", b"train1"])
    with pytest.raises(UserError, match="1 videos, train1 the first, .*eval_split"):
        task.see_data(train, test)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("freeze", "stem1", r"config\.freeze = 'stem1': .*'', 'stem', 'stem\+1'"),
        ("freeze", "stem+5", r"config\.freeze = 'stem\+5'"),
        ("head.dropout", 1.0, r"config\.head\.dropout = 1\.0"),
        ("head.dropout", -0.1, r"config\.head\.dropout"),
        ("test.num_clips", 0, r"config\.test\.num_clips = 0"),
        ("test.stride", 0, r"config\.test\.stride = 0"),
        ("num_classes", -1, r"config\.num_classes = -1"),
        ("clip.num_frames", 0, r"config\.clip\.num_frames = 0"),
        ("clip.size", 8, r"config\.clip\.size = 8: needs at least 16"),
        ("clip.strides", (0,), r"config\.clip\.strides"),
        ("clip.strides", (), r"config\.clip\.strides"),
        ("clip.scales", (), r"config\.clip\.scales"),
        ("clip.scales", (31,), r"config\.clip\.scales: .*31.*smaller than the crop"),
        ("clip.scales", ((64, 31),), r"config\.clip\.scales: .*31"),
        ("test.scales", ((31, 64),), r"config\.test\.scales: .*31"),
        ("clip.flip", 1.5, r"config\.clip\.flip = 1\.5: needs a probability"),
        ("colour.brightness", -0.1, r"config\.colour\.brightness = -0\.1"),
        ("colour.contrast", 20.0, r"config\.colour\.contrast = 20\.0"),
        ("model.name", "r3d34", "r3d18, r2plus1d18"),
    ],
)
def test_contradictions_are_refused(field, value, message):
    with pytest.raises(UserError, match=message) as caught:
        recognition.Task(make_config(**{field: value}))
    assert "\n" not in str(caught.value)
