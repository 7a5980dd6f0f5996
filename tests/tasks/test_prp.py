"""PRP: frames, labels and mask against NumPy, two steps against PyTorch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from configs import prp as prp_config
from ctp_jax.data import rng as rng_lib
from ctp_jax.errors import UserError
from ctp_jax.models import decoder
from ctp_jax.tasks import base, prp
from tests.tasks import made_clips as made

RATES = (1, 2, 4, 8)


def make_task(**flat):
    config = made.shrink(prp_config.get_config("data=none"))
    config.clip.scales, config.head.channels = ((51, 38),), 16
    config.model.conv = "direct"  # quick to compile
    config.update_from_flattened_dict(flat)
    return base.load(config)


def make_batch(task, seed=0):
    batch = made.make_batch(task, train=True, seed=seed)
    # Both clips of a video have the same rate.
    label = (np.arange(made.VIDEOS) + seed) % len(RATES)
    choice = jnp.asarray(np.stack([label, label], axis=1), jnp.int32)
    return {**batch, "choice": choice, "plan": {"label": choice[:, 0]}}


def sampled(task, num_frames, seed):
    """Frame numbers (2, t) and choice (2,) of a video, NumPy arrays."""
    spec = task.clip_spec(True)
    numbers = np.random.default_rng(seed).random(4, np.float32)
    found = spec.frame_numbers(
        rng_lib.Rng(tf.constant(numbers)), tf.constant(num_frames)
    )
    return [each.numpy() for each in found]


def test_frames_are_every_rth_and_those_half_way_between():
    task = make_task(**{"clip.num_frames": 16})
    starts = set()
    for seed in range(60):
        num_frames = 17 + 5 * seed
        times, choice = sampled(task, num_frames, seed)
        assert choice[0] == choice[1]
        rate = RATES[choice[0]]
        assert 16 * rate + 1 <= num_frames
        start = times[0, 0]
        starts.add((start == 0, start == num_frames - 16 * rate))
        assert 0 <= start <= num_frames - 16 * rate
        np.testing.assert_array_equal(times[0], start + rate * np.arange(16))
        np.testing.assert_array_equal(times[1], times[0] + rate // 2)
        assert times.max() < num_frames
    assert len(starts) > 1


@pytest.mark.parametrize("num_frames", [17, 128, 129, 200])
def test_clips_reach_both_ends_of_a_video(num_frames):
    """The least and the largest random numbers: rate 1 or the fastest, first or last."""
    task = make_task(**{"clip.num_frames": 16})
    fastest = max(rate for rate in RATES if 16 * rate + 1 <= num_frames)
    for number, rate, start in (
        (0.0, 1, 0),
        (1 - 2**-24, fastest, num_frames - 16 * fastest),
    ):
        numbers = rng_lib.Rng(tf.fill([4], tf.constant(number, tf.float32)))
        times, choice = task.clip_spec(True).frame_numbers(numbers, num_frames)
        assert [RATES[i] for i in choice.numpy()] == [rate, rate]
        assert (times[0, 0], times[0, -1]) == (start, start + 15 * rate)


@pytest.mark.parametrize(("num_frames", "fits"), [(32, 1), (65, 3), (129, 4), (900, 4)])
def test_rates_that_fit_are_as_likely(num_frames, fits):
    task = make_task(**{"clip.num_frames": 16})
    sample, count = rng_lib.traced(
        lambda rng, _: task.clip_spec(True).frame_numbers(rng, num_frames), (), ()
    )
    numbers = np.random.default_rng(0).random((400, count), np.float32)
    found = [int(sample(tf.constant(each), ())[1][0]) for each in numbers]
    counts = np.bincount(found, minlength=4)
    # Five standard deviations of a binomial.
    spread = 5 * np.sqrt(400 / fits)
    assert np.abs(counts[:fits] - 400 / fits).max() <= spread
    assert not counts[fits:].any()


def slow_mask(target, rate, low, high):
    """The mask of one target (2t, s, s, 3), float64, chunk by chunk."""
    frames, size = len(target), target.shape[1]
    length = frames // 2
    patch, step = size // 4, size // 16
    out = np.zeros_like(target, np.float64)
    for chunk in range(rate):
        # Where the frames of the video are in the target, or the last one before.
        wanted = [chunk * length + i * (length - 1) // 3 for i in range(4)]
        stills = [np.float64(target[2 * number // rate]) for number in wanted]
        moved = sum((b - a) ** 2 for a, b in itertools.pairwise(stills)) / 3
        places = range(0, size - patch + 1, step)
        pooled = np.array(
            [
                [moved[y : y + patch, x : x + patch].mean((0, 1)) for x in places]
                for y in places
            ]
        )
        least, most = pooled.min((0, 1)), pooled.max((0, 1))
        weight = low + (high - low) * (pooled - least + 1e-6) / (most - least + 1e-6)
        if (most <= least).all():
            weight = np.ones_like(pooled)
        at = (np.arange(size) + 0.5) * len(pooled) / size - 0.5
        at = np.clip(at, 0, len(pooled) - 1)
        first = np.minimum(at.astype(int), len(pooled) - 2)
        share = (at - first)[:, None]
        rows = (
            weight[first] * (1 - share[..., None])
            + weight[first + 1] * share[..., None]
        )
        full = rows[:, first] * (1 - share) + rows[:, first + 1] * share
        each = frames // rate
        out[chunk * each : (chunk + 1) * each] = full
    return out


def test_the_mask_is_that_of_a_slow_reference():
    target = np.random.default_rng(0).random((5, 32, 32, 32, 3), np.float32)
    target[4] = target[4, :1]  # nothing moves
    rates = [*RATES, 2]
    mask = jax.jit(prp.motion_mask, static_argnums=(2, 3))
    found = np.asarray(mask(target, jnp.array(rates), 8, (0.8, 2.0)))
    for got, clip, rate in zip(found, target, rates, strict=True):
        np.testing.assert_allclose(got, slow_mask(clip, rate, 0.8, 2.0), rtol=2e-4)
    assert (found[4] == 1).all()
    assert found[:4].min() >= 0.8 - 1e-6 and found.max() <= 2.0 + 1e-6


def test_pooling_and_enlarging_are_pytorchs():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    functional = torch.nn.functional
    video = np.random.default_rng(1).random((1, 16, 112, 112, 3), np.float32)
    clip = torch.tensor(video[0], dtype=torch.float64).permute(3, 0, 1, 2)
    moved = (clip[:, [5, 10, 15]] - clip[:, [0, 5, 10]]) ** 2
    pooled = functional.avg_pool3d(moved[None], (3, 28, 28), (3, 7, 7))
    least, most = (
        f(pooled, dim=(-2, -1), keepdim=True) for f in (torch.amin, torch.amax)
    )
    weight = 0.8 + 1.2 * (pooled - least + 1e-6) / (most - least + 1e-6)
    wanted = functional.interpolate(weight, (32, 112, 112), mode="trilinear")[0]
    target = jnp.repeat(video, 2, axis=1)  # rate 1
    found = prp.motion_mask(target, jnp.array([1]), 1, (0.8, 2.0))[0]
    wanted = wanted.permute(1, 2, 3, 0).numpy()
    # Means over patches of noise are alike: differences of them lose two digits.
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def torch_network(torch, rates):
    from torch import nn

    from tests.tasks import two_steps

    class ConvBlock(nn.Module):
        def __init__(self, before, after):
            super().__init__()
            self.conv = nn.Conv3d(before, after, 3, padding=1, bias=False)
            self.bn = nn.BatchNorm3d(after, eps=1e-3)

        def forward(self, x):
            return torch.relu(self.bn(self.conv(x)))

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.classify, self.decode = (
                ConvBlock(two_steps.CHANNELS, 16) for _ in range(2)
            )
            self.classifier = nn.Linear(16, len(rates))
            for i, (before, after) in enumerate(((16, 8), (8, 4), (4, 3), (3, 3)), 1):
                self.add_module(f"up{i}", nn.ConvTranspose3d(before, before, 2, 2))
                self.add_module(f"conv{i}", ConvBlock(before, after))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = two_steps.Encoder(), Head()

        def forward(self, clips, batch):
            head, features = self.head, self.encoder(clips[:, 0])
            logits = head.classifier(head.classify(features).mean((2, 3, 4)))
            x = head.decode(features)
            for i in range(1, 5):
                x = getattr(head, f"conv{i}")(getattr(head, f"up{i}")(x))
            x = x[:, :, : 2 * made.FRAMES, : made.SIZE, : made.SIZE].permute(
                0, 2, 3, 4, 1
            )
            label = batch["choice"][:, 0]
            errors = []
            for video, rate in enumerate(rates[number] for number in label):
                target = np.empty((2 * made.FRAMES, made.SIZE, made.SIZE, 3))
                target[::2], target[1::2] = batch["draw"][video] / 255
                mask = torch.tensor(slow_mask(target, rate, 0.8, 2.0))
                error = mask * (x[video] - torch.tensor(target)) ** 2
                errors.append((error[::2] if rate == 1 else error).mean())
            entropy = nn.functional.cross_entropy(logits, torch.tensor(label).long())
            return torch.stack(errors).mean() + 0.1 * entropy

    return Network()


@pytest.mark.slow
def test_two_steps_equal_torch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    task = make_task()
    batches = [make_batch(task, seed) for seed in range(2)]
    network = torch_network(torch, RATES)

    def make_rule(params):
        own = set(network.head.classifier.parameters())
        # Ten times the rate of the others, but the same decay.
        faster = {"params": list(own), "lr": 10 * two_steps.RATE, "weight_decay": 1e-3}
        groups = [{"params": [p for p in params if p not in own]}, faster]
        return torch.optim.SGD(groups, two_steps.RATE, momentum=0.9, weight_decay=1e-2)

    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, network, batches, make_rule=make_rule)


def test_the_decoder_has_the_releases_parameters_but_biases_before_norms():
    head = decoder.PlaybackHead(
        512, 1e-3, 1, jnp.float32, "direct", jax.nn.relu, 4, [(2, 2, 2)] * 4, 0.01
    )
    features = jnp.zeros((1, 2, 7, 7, 512))
    shapes = jax.eval_shape(
        lambda: head.init_with_output(jax.random.key(0), features, False, decode=True)
    )
    (logits, clips), variables = shapes
    assert (logits.shape, clips.shape) == ((1, 4), (1, 32, 112, 112, 3))
    # Convolutions without bias, each with 2 numbers a channel in its norm.
    convs = 27 * (2 * 512**2 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    norms = 2 * (2 * 512 + 256 + 128 + 64 + 3)
    ups = sum(8 * width**2 + width for width in (512, 256, 128, 64))
    total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert total == convs + norms + ups + 4 * 512 + 4
    # The release's convolutions have biases, which their norms subtract again.
    assert total + 2 * 512 + 256 + 128 + 64 + 3 == 21_598_541


@pytest.mark.parametrize("spatial", [(1, 2, 2, 1), (1, 1, 2, 2)])
def test_any_stride_and_size(spatial):
    task = make_task(**{"model.spatial_strides": spatial, "clip.size": 24})
    variables = jax.eval_shape(task.init, jax.random.key(0), {})
    clips = jax.ShapeDtypeStruct((2, made.FRAMES, 24, 24, 3), jnp.float32)
    logits, decoded, _ = jax.eval_shape(
        lambda variables, clips: task.reconstruct(variables, clips, train=True),
        variables,
        clips,
    )
    assert logits.shape == (2, 4) and decoded.shape == (2, 2 * made.FRAMES, 24, 24, 3)


def test_what_is_refused():
    with pytest.raises(UserError, match=r"16, 12, 12\).*powers of 2"):
        make_task(**{"model.spatial_strides": (1, 3, 2, 1)})
    with pytest.raises(UserError, match=r"clip\.strides = \(2, 2\).*all different"):
        make_task(**{"clip.strides": (2, 2)})
    task = make_task()
    assert task.clip_spec(True).min_frames == made.FRAMES + 1
    split = made.make_split([0, 1])
    split.num_frames = np.array([9, 32])
    with pytest.raises(UserError, match="the 33 frames that rate 8 needs, the longest"):
        task.see_data(split, None)
    split.split = "test"  # looked at, not learnt from
    task.see_data(split, None)
    split.split, split.num_frames[1] = "train", 33
    task.see_data(split, None)


def test_a_network_that_was_exported_says_the_same():
    """Its norms' statistics are no parameters, and the head has norms."""
    task = make_task()
    batch = make_batch(task)
    trained = made.make_weights(task, batch)
    new = jax.tree.map(jnp.ones_like, trained)
    params, stats, _ = task.encoder(trained)
    new = task.load_head(task.load_encoder(new, params, stats), task.head(trained))
    assert jax.tree.structure(new) == jax.tree.structure(trained)
    for got, want in zip(jax.tree.leaves(new), jax.tree.leaves(trained), strict=True):
        np.testing.assert_array_equal(got, want)


def test_pictures_and_explanations_of_a_trained_network():
    task = make_task()
    batch = make_batch(task)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    shown = jax.eval_shape(task.picture, batch, variables)
    outputs = jax.eval_shape(task.predict, variables, batch)
    clips = len(
        task.overlay(batch, {"logits": np.zeros(outputs["logits"].shape)}).clips
    )
    assert shown.shape[:3] == (made.VIDEOS, clips, made.FRAMES) and clips == 3
    assert jax.eval_shape(task.picture, batch).shape[1] == len(
        task.overlay(batch).clips
    )
    one = {name: batch[name][:1] for name in ("frames", "window", "extent", "flip")}
    found = jax.eval_shape(task.explain, variables, one, jnp.zeros(2, jnp.int32))
    assert jax.tree.leaves(found)
