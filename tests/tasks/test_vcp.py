"""VCP: frames and labels against all that is allowed, pixels against NumPy, PyTorch."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vcp as vcp_config
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.tasks import base
from tests.tasks import made_clips as made

LENGTH, GAP, DISTANCE = 4, 2, 3
NAMES = ["unchanged", "rotated", "quadrants reversed", "chunks of time swapped"]


def make_task(**flat):
    config = made.shrink(vcp_config.get_config("data=none"))
    config.clip.num_frames, config.clip.gap = LENGTH, GAP
    config.vcp.distance = DISTANCE
    config.update_from_flattened_dict(flat)
    return base.load(config)


def starts_of_three(n):
    """Every possible (first, second, third) start; all are equally likely."""
    room = (n - 3 * LENGTH) // 2
    if room > 0:
        gap = min(room, GAP)
        return [
            (s, s + LENGTH + gap, s + 2 * (LENGTH + gap))
            for s in range(n)
            if s + 3 * LENGTH + 2 * gap <= n
        ]
    free = max(n - LENGTH + 1, 0)
    return [tuple(int(free / 6 + i * free / 3) for i in range(3))]


def probabilities(n, both_sides):
    """Of every (label, frames of the three clips) in a video of n frames."""
    found = collections.defaultdict(float)
    starts = starts_of_three(n)
    swaps = list(itertools.combinations(range(4), 2))
    for first, second, third in starts:
        clips = [[s + i for i in range(LENGTH)] for s in (first, second, third)]
        before = [r for r in range(n) if r + LENGTH + DISTANCE <= first]
        after = [
            r for r in range(n) if r >= third + LENGTH + DISTANCE and r + LENGTH <= n
        ]
        sides = [side for side in (before, after) if side]
        remote = len(sides) == 2 if both_sides else len(sides) > 0

        def add(label, middle, share, clips=clips):
            times = [clips[0], middle, clips[2]]
            frames = tuple(min(t, n - 1) for clip in times for t in clip)
            found[label, frames] += share / len(starts)

        share = 1 / 5 if remote else 1 / 4
        for label in range(3):
            add(label, clips[1], share)
        for one, two in swaps:
            order = list(range(4))
            order[one], order[two] = two, one
            middle = np.reshape(clips[1], (4, -1))[order].ravel()
            add(3, middle.tolist(), share / len(swaps))
        for side in sides if remote else ():
            for r in side:
                middle = [r + i for i in range(LENGTH)]
                add(4, middle, 1 / 5 / len(sides) / len(side))
    return found


@pytest.mark.parametrize("both_sides", [True, False])
def test_frames_are_those_that_are_allowed_each_as_often_as_it_should(both_sides):
    task = make_task(**{"vcp.both_sides": both_sides})
    lengths = (3, 9, 13, 16, 24, 27, 32)
    for n, drawn in zip(lengths, made.draw_frames(task, lengths, 20_000), strict=True):
        times, choice = drawn
        assert (choice == choice[:, :1]).all()
        rows = times.reshape(len(times), -1).tolist()
        found = zip(choice[:, 0].tolist(), map(tuple, rows), strict=True)
        made.assert_distribution(found, probabilities(n, both_sides))


def test_clips_of_the_release_are_two_gaps_apart():
    """Their clips, of which 11 frames lie between starts, were meant not to overlap."""
    task = base.load(vcp_config.get_config())
    ((times, _),) = made.draw_frames(task, [300], 50)
    assert (times[:, 2, 0] - times[:, 0, 0] == 2 * (16 + 8)).all()


def test_what_is_drawn_is_what_the_label_says():
    task = make_task()
    batch = made.make_batch(task, train=True)
    label = np.arange(made.VIDEOS) % 4
    batch["plan"] = {**batch["plan"], "label": label}
    seen = np.asarray(jax.jit(task.draw)(batch))
    for video in range(made.VIDEOS):
        wanted = np.stack([made.opencv_clip(batch, video, clip) for clip in range(3)])
        if label[video] == 1:
            quarters = int(batch["plan"]["quarters"][video])
            wanted[1] = np.rot90(wanted[1], quarters, axes=(1, 2))
        if label[video] == 2:
            top, bottom = np.split(wanted[1], 2, axis=1)
            (a, b), (c, d) = (np.split(half, 2, axis=2) for half in (top, bottom))
            upper, lower = np.concatenate([d, c], 2), np.concatenate([b, a], 2)
            wanted[1] = np.concatenate([upper, lower], 1)
        assert np.abs(seen[video] - wanted).max() < 1.0


def test_turns_are_by_one_to_three_quarters():
    task = make_task()
    batch = {"choice": np.ones((6000, 3), np.int32)}
    plan = made.make_plan(task, batch, np.random.default_rng(0))
    assert (plan["label"] == 1).all()
    thirds = dict.fromkeys((1, 2, 3), 1 / 3)
    made.assert_distribution(plan["quarters"].tolist(), thirds)


def test_two_steps_equal_torch():
    pytest.importorskip("torch", reason="compares with PyTorch")
    from torch import nn, tensor

    from tests.tasks import two_steps

    class Network(nn.Module):
        def __init__(self, weights):
            super().__init__()
            self.encoder = two_steps.Encoder()
            self.head = two_steps.Dense(weights.params["head"])

        def forward(self, clips, batch):
            """The three clips' averages side by side, then one linear layer."""
            pooled = self.encoder(clips.flatten(0, 1)).mean(dim=(2, 3, 4))
            joined = pooled.reshape(len(clips), -1)
            label = tensor(batch["plan"]["label"]).long()
            return nn.functional.cross_entropy(self.head.classifier(joined), label)

    task = make_task()
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(2)]
    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, Network(weights), batches)


def test_the_head_has_the_original_parameters():
    head = heads.ClassifierHead(5, num_clips=3)
    features = jnp.zeros((6, 2, 1, 1, 512))
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 3 * 512 * 5 + 5


def test_captions_say_what_was_done():
    task = make_task()
    batch = {"plan": {"label": np.array([0, 1, 2, 3, 4])}}
    assert task.overlay(batch).captions == [*NAMES, "a remote clip"]


def test_chunks_divide_the_clip():
    with pytest.raises(UserError, match="config.clip.num_frames = 6: needs a multiple"):
        make_task(**{"clip.num_frames": 6})
