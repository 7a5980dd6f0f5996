"""DPC and MemDPC: blocks, what is drawn, scores, heads and steps, against PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from configs import dpc as dpc_config
from configs import memdpc as memdpc_config
from ctp_jax import config as config_lib
from ctp_jax.data import clips
from ctp_jax.data import rng as rng_lib
from ctp_jax.errors import UserError
from ctp_jax.models.conv_gru import ConvGRU
from ctp_jax.models.future import FutureHead
from ctp_jax.tasks import base, dpc
from tests.tasks import made_clips as made

CONFIGS = {"dpc": dpc_config, "memdpc": memdpc_config}
BLOCKS, PREDICTED, GROUP, CHANNELS = 4, 2, 2, 4


def make_task(name, **flat):
    config = made.shrink(CONFIGS[name].get_config("data=none"))
    config.batch_size, config.negatives_of = made.VIDEOS, GROUP
    config.blocks.count, config.blocks.predicted = BLOCKS, PREDICTED
    config.head.channels, config.head.dropout = CHANNELS, 0.0
    if name == "memdpc":
        config.head.memory = 6
        config.colour.brightness = config.colour.contrast = 1.0
        config.colour.hue_saturation = 1.0
    config.update_from_flattened_dict(flat)
    return base.load(config)


def test_the_authors_numbers():
    for name, data, own in (
        (
            "memdpc",
            "kinetics400",
            ((3,), 32, 4, 90.0, (30, 60), "sgd", 0.01, 1e-4, 0.1),
        ),
        ("dpc", "kinetics400", ((5,), 128, 64, 300.0, (), "adam", 0.001, 1e-5, 1.0)),
        ("dpc", "ucf101", ((3,), 128, 64, 500.0, (300, 400), "adam", 0.001, 1e-5, 1.0)),
    ):
        config = CONFIGS[name].get_config(f"data={data}")
        rule, head = config.optimizer, config.head
        found = (config.clip.strides, config.batch_size, config.negatives_of)
        found += (config.epochs, rule.milestones, rule.name, rule.learning_rate)
        assert (*found, rule.weight_decay, head.init_gain) == own
        assert (config.blocks.count, config.blocks.predicted) == (8, 3)
        assert (config.clip.num_frames, config.clip.size) == (5, 112)
        assert config.model.temporal_strides == (1, 1, 2, 2)
        assert (head.channels, head.dropout, head.project) == (256, 0.1, True)


def rng_of(seed):
    return rng_lib.Rng(tf.constant(np.random.default_rng(seed).random(64), tf.float32))


def test_frame_numbers_are_the_releases():
    config = memdpc_config.get_config("data=none")
    spec = base.load(config).clip_spec(True)
    assert spec.min_frames == 121 and config.data.skip_short and spec.shared_window
    assert (spec.num_clips, spec.num_frames) == (8, 5)
    starts = {121: set(), 125: set()}
    for frames, found in starts.items():
        for seed in range(60):
            times, choice = clips.sample_times(rng_of(seed), tf.constant(frames), spec)
            start = int(times[0, 0])
            want = [[start + 15 * k + 3 * i for i in range(5)] for k in range(8)]
            np.testing.assert_array_equal(times, want)
            assert choice.numpy().tolist() == [0] * 8
            found.add(start)
    # U{0 .. n - 121}: of 60 draws, each of five is missed once in 130,000 times.
    assert starts == {121: {0}, 125: {0, 1, 2, 3, 4}}


def test_strides_are_drawn_for_a_video_and_jitter_stays_within_a_stride():
    flat = {"clip.strides": (1, 4), "clip.jitter": True}
    spec = make_task("dpc", **flat).clip_spec(True)
    frames = BLOCKS * made.FRAMES
    assert spec.min_frames == 4 * frames + 1
    chosen = set()
    for seed in range(20):
        times, choice = clips.sample_times(
            rng_of(seed), tf.constant(spec.min_frames), spec
        )
        (own,) = set(choice.numpy().tolist())
        stride = (1, 4)[own]
        off = times.numpy().ravel() - stride * np.arange(frames)
        assert off.max() - off.min() == (0 if stride == 1 else stride - 1)
        assert 0 <= times.numpy().min() and times.numpy().max() < spec.min_frames
        chosen.add(own)
    assert chosen == {0, 1}


def test_blocks_of_memdpc_are_cut_alike_and_coloured_alike():
    task = make_task("memdpc")
    batch = made.make_batch(task, train=True)
    found = np.asarray(jax.jit(task.draw)(batch))
    assert found.shape[:3] == (made.VIDEOS, BLOCKS, made.FRAMES)
    for name in ("window", "flip"):
        assert (batch[name] == batch[name][:, :1]).all()
    for video in range(made.VIDEOS):
        plan = {key: np.asarray(v[video]) for key, v in batch["plan"].items()}
        assert len(set(plan["brightness"])) == len(set(plan["contrast"])) == 1
        for block in range(BLOCKS):
            clip = made.opencv_clip(batch, video, block)
            want = made.opencv_colours(clip, plan)
            assert np.abs(found[video, block] - want).max() < 1.0


def test_frames_of_dpc_turn_grey_one_by_one():
    flat = {"jitter.probability": 0.0, "jitter.grey": 0.5}
    task = make_task("dpc", **flat)
    batch = made.make_batch(task, train=True)
    found = np.asarray(jax.jit(task.draw)(batch))
    grey = np.asarray(batch["plan"]["grey"]).reshape(found.shape[:3])
    assert len(np.unique(grey, axis=1)) > 1 and 0.2 < grey.mean() < 0.8
    spread = np.ptp(found, axis=-1).max(axis=(-2, -1))
    np.testing.assert_array_equal(spread < 1e-3, grey)
    for at in np.argwhere(~grey)[:5]:
        want = made.opencv_clip(batch, at[0], at[1])[at[2]]
        assert np.abs(found[tuple(at)] - want).max() < 1.0


def test_scores_are_within_a_group_and_count_each_prediction_once():
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=(2, 2, 4, 3, 2, 1, 5))
    losses, hits = jax.jit(dpc.contrast, static_argnums=2)(predicted, target, 2)
    for video in range(4):
        first = video - video % 2
        loss = [[], []]
        hit = []
        for way, block, row in np.ndindex(2, 3, 2):
            one = predicted[way, video, block, row, 0]
            others = target[way, first : first + 2] @ one
            own = others[video - first, block, row, 0]
            loss[way].append(math.log(np.exp(others).sum()) - own)
            hit.append(own == others.max())
        assert losses[video] == pytest.approx(sum(map(np.mean, loss)), rel=1e-4)
        assert hits[video] == pytest.approx(np.mean(hit))


def test_what_pads_an_evaluation_is_a_negative_of_none():
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=(2, 2, 6, 3, 2, 1, 5)).astype(np.float32)
    predicted[:, 4:], target[:, 4:] = predicted[:, 3:4], target[:, 3:4]  # as padding is
    predicted, target = jnp.array(predicted), jnp.array(target)
    mask = jnp.array([1.0, 1, 1, 1, 0, 0])
    found = dpc.contrast(predicted, target, 6, mask)
    alone = dpc.contrast(predicted[:, :4], target[:, :4], 4)
    for padded, want in zip(found, alone, strict=True):
        np.testing.assert_allclose(padded[:4], want, rtol=1e-6)
    assert not np.allclose(dpc.contrast(predicted, target, 6)[0][:4], alone[0])


@pytest.mark.parametrize("name", CONFIGS)
def test_chance_is_the_loss_of_equal_logits(name):
    config = CONFIGS[name].get_config("data=none")
    task = base.load(config)
    ways, places = {"dpc": (1, 49), "memdpc": (2, 49)}[name]
    count = config.negatives_of * 3 * places
    assert task.chance_loss() == pytest.approx(ways * math.log(count))
    assert {"dpc": 9408, "memdpc": 588}[name] == count
    nothing = jnp.zeros((2, 4, 2, 2, 2, CHANNELS))
    losses, _ = dpc.contrast(nothing, nothing, GROUP)
    np.testing.assert_allclose(losses, make_task("memdpc").chance_loss(), rtol=1e-6)


def test_heads_have_the_releases_parameters():
    features = jnp.zeros((8, 2, 1, 1, 512))

    def counts(head):
        shapes = jax.eval_shape(
            lambda: head.init(jax.random.key(0), features, False)["params"]
        )
        return {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in shapes.items()}

    memdpc = counts(FutureHead(memory=1024, both_ways=True))
    assert memdpc["projection"] == 131_328 and memdpc["memory"] == 262_144
    assert memdpc["gru_forward"] == memdpc["gru_backward"] == 393_984
    assert memdpc["predictor1"] + memdpc["predictor2"] == 328_960
    assert sum(memdpc.values()) == 1_510_400
    # DPC's own: no projection of its 256 channels.
    features = features[..., :256]
    assert set(counts(FutureHead(channels=0))) == {
        "gru_forward",
        "predictor1",
        "predictor2",
    }


def test_kernels_are_orthogonal_times_the_gain():
    head = FutureHead(channels=16, init_gain=0.1)
    features = jnp.zeros((8, 1, 1, 1, 32))
    params = head.init(jax.random.key(0), features, False)["params"]
    for kernel in (
        params["projection"]["kernel"],
        params["gru_forward"]["reset"]["kernel"],
    ):
        product = np.asarray(kernel).T @ np.asarray(kernel)
        np.testing.assert_allclose(product, 0.01 * np.eye(16), atol=1e-7)


def test_dropout_takes_a_share_of_the_state_anew_in_every_step():
    unit = ConvGRU(dropout=0.1)
    x, state = jax.random.normal(jax.random.key(0), (2, 50, 40))
    variables = unit.init(jax.random.key(1), x, state, False)

    def run(unit, train):
        one = unit(x, state, train)
        return one, unit(x, state, train)

    plain, _ = unit.apply(variables, False, method=run)
    one, two = unit.apply(
        variables, True, method=run, rngs={"dropout": jax.random.key(2)}
    )
    for found in (one, two):
        ratio = np.asarray(found / plain)
        dropped = ratio == 0
        np.testing.assert_allclose(ratio[~dropped], 1 / 0.9, rtol=1e-5)
        # Five standard deviations of a binomial.
        assert abs(dropped.mean() - 0.1) < 5 * math.sqrt(0.09 / dropped.size)
    assert ((one == 0) != (two == 0)).any()


@pytest.mark.parametrize(("name", "project"), [("dpc", False), ("memdpc", True)])
@pytest.mark.slow
def test_two_steps_equal_torch(name, project):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    class Head(torch.nn.Module):
        def __init__(self, params):
            super().__init__()
            for key, value in params.items():
                if key == "memory":
                    self.memory = torch.nn.Parameter(torch.empty(value.shape))
                elif "kernel" in value:
                    self.add_module(key, torch.nn.Linear(*value["kernel"].shape))
                else:
                    self.add_module(key, two_steps.Dense(value))

    class Network(torch.nn.Module):
        def __init__(self, params):
            super().__init__()
            self.encoder = two_steps.Encoder(temporal=(1, 1, 2, 2))
            self.head = Head(params["head"])

        def step(self, gru, x, h):
            both = torch.cat([x, h], dim=-1)
            u, r = torch.sigmoid(gru.update(both)), torch.sigmoid(gru.reset(both))
            return h + u * (torch.tanh(gru.candidate(torch.cat([x, r * h], -1))) - h)

        def predict(self, h):
            y = self.head.predictor2(torch.relu(self.head.predictor1(h)))
            return torch.softmax(y, -1) @ self.head.memory if name == "memdpc" else y

        def forward(self, clips, batch):
            features = self.encoder(clips.flatten(0, 1)).movedim(1, -1)
            if project:
                features = self.head.projection(features)
            blocks = features.mean(1).unflatten(0, clips.shape[:2]).unbind(1)
            total = self.way(self.head.gru_forward, blocks)
            if name == "memdpc":
                total = total + self.way(self.head.gru_backward, blocks[::-1])
            return total

        def way(self, gru, blocks):
            h = torch.zeros_like(blocks[0])
            for block in blocks[: BLOCKS - PREDICTED]:
                h = self.step(gru, torch.relu(block), h)
            found = []
            for _ in range(PREDICTED):
                found.append(self.predict(h))
                h = self.step(gru, torch.relu(found[-1]), h)
            found = torch.stack(found, 1)
            wanted = torch.stack(blocks[BLOCKS - PREDICTED :], 1)
            losses = []
            for first in range(0, len(found), GROUP):
                rows = slice(first, first + GROUP)
                scores = found[rows].flatten(0, 3) @ wanted[rows].flatten(0, 3).T
                own = torch.arange(len(scores))
                losses.append(torch.nn.functional.cross_entropy(scores, own))
            return sum(losses) / len(losses)

    task = make_task(name, **{"head.project": project})
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(2)]
    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, Network(weights.params), batches)


def test_captions_name_the_blocks_and_say_what_was_found():
    task = make_task("dpc")
    batch = {"index": np.arange(2)}
    overlay = task.overlay(batch, {"top1": np.array([0.25, 1.0])})
    assert overlay.captions == ["25% of its places found", "100% of its places found"]
    assert overlay.clips[1] == "block 2" and overlay.clips[2] == "block 3, to predict"
    names = make_task("memdpc").overlay(batch).clips
    assert names[1] == "block 2, to predict backwards"
    assert names[3] == "block 4, to predict"
    assert task.overlay(batch).captions == ["", ""]


def test_any_number_of_videos_can_be_looked_at():
    task = make_task("memdpc")
    batch = made.make_batch(task, train=False)
    batch = jax.tree.map(lambda rows: rows[:3], batch)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    outputs = jax.eval_shape(task.predict, variables, batch)
    assert {k: v.shape for k, v in outputs.items()} == {"eval_loss": (3,), "top1": (3,)}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("blocks.predicted", 8, r"blocks.predicted = 8: needs .*blocks.count = 8"),
        ("clip.strides", (-3,), r"clip.strides = \(-3,\): .* needs strides of 1"),
        ("clip.strides", (0, 3), r"clip.strides = \(0, 3\)"),
        ("negatives_of", 5, r"negatives_of = 5: needs a divisor .*batch_size = 32"),
        ("optimizer.accumulate", 16, r"negatives_of = 4: .* 32 / 16 \(config.optim"),
    ],
)
def test_mistakes_get_one_line_before_data_are_opened(field, value, message):
    config = memdpc_config.get_config("data=none")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        config_lib.validate(config)
        base.load(config)
