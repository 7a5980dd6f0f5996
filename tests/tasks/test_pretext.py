"""3DRotNet and VCOP: what is drawn, labels, losses and steps, against PyTorch."""

import itertools

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
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, state, step
from tests.tasks import made_clips as made

CONFIGS = {"rotation": rotation_config, "vcop": vcop_config}


def make_task(name, **flat):
    config = CONFIGS[name].get_config("data=none")
    config.clip.size, config.clip.num_frames = made.SIZE, made.FRAMES
    config.clip.scales = ((48, 34), (51, 38))
    config.model.width, config.model.conv = 0.03, "direct"
    config.head.dropout, config.head.init_std = 0.0, 0.5
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
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.models import torch_networks

    class Network(torch.nn.Module):
        """Encoder and head; the parameters of the head are copied from ours."""

        def __init__(self):
            super().__init__()
            widths = (8, 8, 8, 16)
            self.encoder = torch_networks.Encoder(widths, (1, 2, 2, 2), (1, 2, 2, 2))
            stats = weights.state["batch_stats"]["encoder"]
            torch_networks.load(self.encoder, weights.params["encoder"], stats)
            self.head = torch.nn.ModuleDict()
            for key, value in weights.params["head"].items():
                kernel = torch.tensor(np.array(value["kernel"]).T)
                self.head[key] = torch.nn.Linear(*kernel.shape[::-1])
                self.head[key].weight.data = kernel
                self.head[key].bias.data = torch.tensor(np.array(value["bias"]))

        def forward(self, clips):
            """(b, c, 3, t, s, s): all clips go through BatchNorm together."""
            pooled = self.encoder(clips.flatten(0, 1)).mean(dim=(2, 3, 4))
            if name == "rotation":
                return self.head["classifier"](pooled)
            one, two, three = pooled.unflatten(0, (-1, 3)).unbind(1)
            pairs = [
                torch.relu(self.head["pair"](torch.cat(pair, dim=1)))
                for pair in ((one, two), (one, three), (two, three))
            ]
            return self.head["classifier"](torch.cat(pairs, dim=1))

    return torch, Network().train()


def torch_clips(torch, clips):
    normal = made.normalized(clips)
    return torch.tensor(normal).permute(0, 1, 5, 2, 3, 4)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_drawn_clips_are_within_one_grey_level_of_opencv(name):
    task = make_task(name)
    batch = made.make_batch(task, train=True)
    assert len(set(np.asarray(batch["plan"]["label"]).tolist())) > 1
    ours, expected = np.asarray(jax.jit(task.draw)(batch)), drawn(name, batch)
    assert ours.shape == expected.shape and np.abs(ours - expected).max() < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_two_steps_equal_torch(name):
    """Losses, and parameters after SGD with momentum and decay."""
    task = make_task(name)
    weights = made.make_weights(task)
    torch, network = torch_network(name, weights)
    rule = task.config.optimizer
    rule.weight_decay, rule.clip_norm = 1e-2, 0.0
    theirs = torch.optim.SGD(
        network.parameters(), lr=0.001, momentum=rule.momentum, weight_decay=1e-2
    )

    def schedule(count):
        return 0.001

    transformation = optimizer.make_optimizer(rule, schedule)
    mesh = mesh_lib.one_device()
    train_step = step.make_train_step(task, transformation, schedule, 0, mesh)
    slots = transformation.init(weights.params)
    # Copies: the step donates them.
    own = jax.tree.map(jnp.copy, weights)
    now = state.TrainState(np.int32(0), *own, slots)
    now = jax.device_put(now, mesh_lib.replicated(mesh))
    for seed in range(2):
        batch = made.make_batch(task, train=True, seed=seed)
        label = torch.tensor(np.asarray(batch["plan"]["label"]), dtype=torch.long)
        clips = torch_clips(torch, np.asarray(task.draw(batch)))
        loss = torch.nn.functional.cross_entropy(network(clips), label)
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        now, metrics = train_step(now, batch)
        # The second loss has gone through BatchNorm of a few positions twice, in float32.
        assert float(metrics["loss"]) == pytest.approx(
            loss.item(), rel=1e-4 * 100**seed
        )
        for key, value in now.params["head"].items():
            want = network.head[key].weight.detach().numpy().T
            moved = want - np.asarray(weights.params["head"][key]["kernel"])
            error = np.linalg.norm(value["kernel"] - want) / np.linalg.norm(moved)
            assert error < 1e-4 * 100**seed


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
    batch["plan"] = {**batch["plan"], "label": jnp.zeros((made.VIDEOS, 1), jnp.int32)}
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)

    def loss(variables):
        task.targets = lambda batch: batch["plan"]["label"]
        task.draw = lambda batch: jnp.zeros((made.VIDEOS, 1, 4, 32, 32, 3))
        return task.loss(variables, batch, 0, jax.random.key(0))

    with pytest.raises(UserError, match=r"labels are \(4, 1\), not \(4,\)"):
        jax.eval_shape(loss, variables)
    task.class_names = ()
    with pytest.raises(UserError, match="'rotation': no class_names"):
        jax.eval_shape(task.init, jax.random.key(0), batch)


def test_quarters_are_numpys():
    clip = jnp.arange(2 * 4 * 4 * 3.0).reshape(2, 4, 4, 3)
    for quarters in range(4):
        got = rotation.rotate(clip, jnp.int32(quarters))
        np.testing.assert_array_equal(got, np.rot90(clip, quarters, axes=(1, 2)))


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
