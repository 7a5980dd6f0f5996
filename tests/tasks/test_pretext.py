"""3DRotNet and VCOP: what is drawn, labels, losses and steps, against PyTorch."""

import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from configs import rotation as rotation_config
from configs import vcop as vcop_config
from ctp_jax.data import rng as rng_lib
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.tasks import base, rotation
from tests.tasks import made_clips as made

CONFIGS = {"rotation": rotation_config, "vcop": vcop_config}


def make_task(name, **flat):
    config = CONFIGS[name].get_config("data=none")
    made.shrink(config)
    if name == "rotation":  # always changed
        config.colour.brightness = config.colour.contrast = 1.0
        config.colour.hue_saturation = 1.0
    config.update_from_flattened_dict(flat)
    return base.load(config)


def clips_of(batch, video):
    """The cut clips of a video by OpenCV, (c, t, s, s, 3), before the task's drawing."""
    count = batch["frames"].shape[1]
    return np.stack([made.opencv_clip(batch, video, clip) for clip in range(count)])


def drawn(name, batch):
    """What the network should see, (b, c, t, s, s, 3), by OpenCV and NumPy."""
    found = []
    for video, label in enumerate(np.asarray(batch["plan"]["label"])):
        clips = clips_of(batch, video)
        if name == "rotation":
            plan = {key: np.asarray(v[video]) for key, v in batch["plan"].items()}
            clips = np.stack([made.opencv_colours(clip, plan) for clip in clips])
            clips = np.rot90(clips, label, axes=(2, 3))
        else:
            clips = clips[list(list(itertools.permutations(range(3)))[label])]
        found.append(clips)
    return np.stack(found)


def torch_network(name, weights):
    """The method in PyTorch: it sees drawn clips and learns the label of the plan."""
    from torch import cat, nn, relu, tensor

    from tests.tasks import two_steps

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = two_steps.Encoder()
            self.head = two_steps.Dense(weights.params["head"])

        def forward(self, clips, batch):
            """All clips go through BatchNorm together."""
            pooled = self.encoder(clips.flatten(0, 1)).mean(dim=(2, 3, 4))
            if name == "vcop":
                one, two, three = pooled.unflatten(0, (-1, 3)).unbind(1)
                pairs = ((one, two), (one, three), (two, three))
                pairs = [relu(self.head.pair(cat(pair, dim=1))) for pair in pairs]
                pooled = cat(pairs, dim=1)
            label = tensor(batch["plan"]["label"]).long()
            return nn.functional.cross_entropy(self.head.classifier(pooled), label)

    return Network()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_drawn_clips_are_within_one_grey_level_of_opencv(name):
    task = make_task(name)
    batch = made.make_batch(task, train=True)
    assert len(set(np.asarray(batch["plan"]["label"]).tolist())) > 1
    ours, expected = np.asarray(jax.jit(task.draw)(batch)), drawn(name, batch)
    assert ours.shape == expected.shape and np.abs(ours - expected).max() < 1.0


@pytest.mark.parametrize("name", CONFIGS)
def test_two_steps_equal_torch(name):
    pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    task = make_task(name)
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(2)]
    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, torch_network(name, weights), batches)


@pytest.mark.parametrize(("name", "labels"), [("rotation", 4), ("vcop", 6)])
def test_labels_are_uniform_and_named(name, labels):
    task = make_task(name)
    rng = np.random.default_rng(0)
    count = rng_lib.count_uniforms(lambda numbers: task.plan(numbers, {}, True))
    numbers = rng_lib.Rng(tf.constant(rng.random((6000, count), np.float32)))
    found = np.bincount(task.plan(numbers, {}, True)["label"], minlength=labels)
    # Five standard deviations of a binomial.
    expected = 6000 / labels
    assert len(found) == len(task.class_names) == labels
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected)


def test_labels_of_another_shape_and_missing_names_are_refused():
    task = make_task("rotation")
    batch = dict(made.make_batch(task, train=True))
    batch["plan"] = {**batch["plan"], "label": jnp.zeros((made.VIDEOS, 2), jnp.int32)}
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)

    def loss(variables):
        task.targets = lambda batch: batch["plan"]["label"]
        task.draw = lambda batch: jnp.zeros((made.VIDEOS, 1, 4, 32, 32, 3))
        return task.loss(variables, batch, 0, jax.random.key(0))

    with pytest.raises(UserError, match=r"labels are \(4, 2\), not \(4,\): one per"):
        jax.eval_shape(loss, variables)
    task.class_names = ()
    with pytest.raises(UserError, match="'rotation': no class_names"):
        jax.eval_shape(task.init, jax.random.key(0), batch)


def test_quarters_are_numpys():
    clip = jnp.arange(2 * 4 * 4 * 3.0).reshape(2, 4, 4, 3)
    for quarters in range(4):
        got = rotation.rotate(clip, jnp.int32(quarters))
        np.testing.assert_array_equal(got, np.rot90(clip, quarters, axes=(1, 2)))


def test_the_leaking_border_is_opencvs():
    """The release: `cv2.warpAffine` about (s/2, s/2), border replicated."""
    clip = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    for quarters in range(4):
        matrix = cv2.getRotationMatrix2D((6, 6), 90 * quarters, 1.0)
        options = {"borderMode": cv2.BORDER_REPLICATE}
        wanted = [cv2.warpAffine(each, matrix, (12, 12), **options) for each in clip]
        turned = rotation.rotate(jnp.float32(clip), jnp.int32(quarters))
        got = rotation.shift_into_border(turned, jnp.int32(quarters))
        np.testing.assert_array_equal(got, wanted)
        # What leaks: which border is there twice.
        rows, columns = (
            np.array_equal(got.take(0, axis), got.take(1, axis)) for axis in (1, 2)
        )
        assert (rows, columns) == (quarters in (1, 2), quarters in (2, 3))


@pytest.mark.parametrize("leaking", [False, True])
def test_all_four_rotations_of_a_clip(leaking):
    flat = {"rotation.all_four": True, "rotation.leaking_border": leaking}
    task = make_task("rotation", **flat)
    batch = made.make_batch(task, train=True)
    np.testing.assert_array_equal(batch["plan"]["label"], [[0, 1, 2, 3]] * made.VIDEOS)
    ours = np.asarray(jax.jit(task.draw)(batch))
    for video in range(made.VIDEOS):
        for quarters in range(4):
            want = np.rot90(ours[video, 0], quarters, axes=(1, 2))
            got = ours[video, quarters]
            if leaking and quarters:  # one pixel down, to the right, or both
                down, right = int(quarters < 3), int(quarters > 1)
                got, want = got[:, down:, right:], want[:, : 32 - down, : 32 - right]
            np.testing.assert_array_equal(got, want)
    # Each rotation has its own label.
    logits = np.random.default_rng(0).normal(size=(made.VIDEOS, 4, 4))
    task.logits = lambda *_: (jnp.asarray(logits), {})
    loss, _ = task.loss(base.Variables({}, {}), batch, 0, jax.random.key(0))
    chosen = np.diagonal(logits, axis1=1, axis2=2)
    wanted = np.log(np.exp(logits).sum(-1)) - chosen
    assert float(loss) == pytest.approx(wanted.mean(), rel=1e-5)
    assert task.overlay(jax.tree.map(np.asarray, batch)).captions[0] == (
        "0° / 90° / 180° / 270°"
    )
    assert made.make_batch(task, train=False)["plan"]["label"].shape == (made.VIDEOS,)


def test_heads_have_the_releases_parameters():
    features = jnp.zeros((3, 2, 1, 1, 512))
    for head, count in (
        (heads.OrderHead(6), 534_022),
        (heads.ClassifierHead(4), 2_052),
    ):
        shapes = jax.eval_shape(
            lambda h=head: h.init(jax.random.key(0), features, False)
        )
        params = shapes["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_captions_say_labels_and_predictions():
    task = make_task("vcop")
    batch = {"plan": {"label": np.array([0, 5])}}
    assert task.overlay(batch).captions == ["1-2-3", "3-2-1"]
    logits = np.zeros((2, 1, 6))
    logits[:, 0, 2] = 1.0
    captions = task.overlay(batch, {"logits": logits}).captions
    assert captions == ["1-2-3, predicted: 2-1-3", "3-2-1, predicted: 2-1-3"]
