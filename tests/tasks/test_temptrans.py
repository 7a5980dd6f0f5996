"""TempTrans: frames and speeds against all that is allowed, colours, PyTorch."""

import collections
import functools
import itertools
import math

import jax
import numpy as np
import pytest

from configs import temptrans as temptrans_config
from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from tests.tasks import made_clips as made

LENGTH, SPEEDS = 6, (1, 2, 4, 8)
LENGTHS = (7, 12, 23, 24, 50)  # of videos


def make_task(**flat):
    config = made.shrink(temptrans_config.get_config("data=none"))
    config.clip.num_frames = LENGTH
    config.update_from_flattened_dict(flat)
    return base.load(config)


@functools.cache
def drawn():
    return dict(
        zip(LENGTHS, made.draw_frames(make_task(), LENGTHS, 20_000), strict=True)
    )


def draw(n):
    """The number of each video's speed, (v,), and the frames of its clips, (v, 4, t)."""
    times, choice = drawn()[n]
    kind, speed = choice // len(SPEEDS), choice % len(SPEEDS)
    np.testing.assert_array_equal(kind, np.tile(range(4), (len(kind), 1)))
    assert (speed == speed[:, :1]).all()
    return speed[:, 0], times


def fastest(n):
    """The number of the fastest speed at which a video of n frames has a clip."""
    return max(i for i, speed in enumerate(SPEEDS) if LENGTH * speed <= n)


def at_speed(n, speed):
    return [
        [start + i * speed for i in range(LENGTH)]
        for start in range(n)
        if start + LENGTH * speed <= n
    ]


def periodic(n, speed):
    """There and back again inside of `LENGTH - 1` steps, and parts of that."""
    found = []
    there = [i * speed for i in range(LENGTH - 2)]
    span = (LENGTH - 1) * speed
    for start in range(n - span + 1):
        for shift in range(1, speed) if speed > 1 else (0, 1):
            run = there + [i + shift for i in there[::-1]]
            for first in range(len(run) - LENGTH + 1):
                found.append([start + i for i in run[first : first + LENGTH]])
    return found


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(("clip", "allowed"), [(0, at_speed), (1, periodic)])
def test_clips_with_a_speed(n, clip, allowed):
    speeds, times = draw(n)
    probabilities = collections.defaultdict(float)
    for number in range(fastest(n) + 1):
        ways = allowed(n, SPEEDS[number])
        for way in ways:
            key = (number, tuple(way))
            probabilities[key] += 1 / (fastest(n) + 1) / len(ways)
    rows = map(tuple, times[:, clip].tolist())
    made.assert_distribution(zip(speeds.tolist(), rows, strict=True), probabilities)


def test_random_clips_are_permuted_runs_at_the_frame_rate():
    _, times = draw(7)
    runs = [tuple(range(start, start + LENGTH)) for start in (0, 1)]
    orders = [order for run in runs for order in itertools.permutations(run)]
    found = map(tuple, times[:, 2].tolist())
    made.assert_distribution(found, dict.fromkeys(orders, 1 / len(orders)))
    _, times = draw(50)
    run = np.sort(times[:, 2], axis=1)
    assert (np.diff(run) == 1).all()
    starts = range(50 - LENGTH + 1)
    made.assert_distribution(run[:, 0].tolist(), dict.fromkeys(starts, 1 / len(starts)))


@pytest.mark.parametrize("n", [7, 12])
def test_warped_clips_of_short_videos_are_any_frames_in_order(n):
    _, times = draw(n)
    sets = list(itertools.combinations(range(n), LENGTH))
    found = map(tuple, times[:, 3].tolist())
    made.assert_distribution(found, dict.fromkeys(sets, 1 / len(sets)))


@pytest.mark.parametrize("n", [24, 50])
def test_warped_clips_of_long_videos_have_steps_of_any_speed(n):
    _, times = draw(n)
    most = SPEEDS[fastest(n)]
    steps = np.diff(times[:, 3])
    pairs = list(itertools.product(range(1, most + 1), repeat=2))
    for at in range(LENGTH - 2):
        found = map(tuple, steps[:, at : at + 2].tolist())
        made.assert_distribution(found, dict.fromkeys(pairs, 1 / len(pairs)))
    starts = range(n - LENGTH * most + 1)
    first = collections.defaultdict(float)
    for start, step in itertools.product(starts, range(most)):
        first[start + step] += 1 / len(starts) / most
    made.assert_distribution(times[:, 3, 0].tolist(), first)


def test_speeds_are_those_for_which_a_video_has_frames():
    task = base.load(temptrans_config.get_config())
    lengths = (17, 31, 32, 63, 64, 127, 128, 2000)
    for n, each in zip(lengths, made.draw_frames(task, lengths, 2000), strict=True):
        times, choice = each
        most = min(math.floor(math.log2(n / 16)), 3)
        speeds = dict.fromkeys(range(most + 1), 1 / (most + 1))
        made.assert_distribution((choice[:, 0] % 4).tolist(), speeds)
        assert (times >= 0).all() and (times < n).all()
        assert (np.diff(times[:, 0]) == 2 ** (choice[:, :1] % 4)).all()


def test_held_out_videos_show_one_of_the_four():
    task = make_task()
    ((times, choice),) = made.draw_frames(task, [50], 4000, train=False)
    assert times.shape == (4000, 1, LENGTH)
    kind = choice[:, 0] // len(SPEEDS)
    made.assert_distribution(kind.tolist(), dict.fromkeys(range(4), 1 / 4))
    batch = made.make_batch(task, train=False)
    label = np.asarray(batch["choice"])[:, 0] // len(SPEEDS)
    np.testing.assert_array_equal(batch["plan"]["label"], label)


def test_colours_change_frame_by_frame():
    task = make_task()
    batch = made.make_batch(task, train=True)
    plan = {name: np.asarray(values) for name, values in batch["plan"].items()}
    assert len(set(plan["offset"].ravel().tolist())) == made.VIDEOS * 4 * LENGTH
    assert np.abs(plan["offset"]).max() <= 32
    assert set(plan["grey"].ravel().tolist()) == {True, False}
    seen = np.asarray(jax.jit(task.draw)(batch))
    orders = list(itertools.permutations(("add", "contrast", "saturation", "hue")))
    for video, clip in ((0, 0), (1, 3)):
        frames = made.opencv_clip(batch, video, clip)
        for t, frame in enumerate(frames):
            at = (video, clip, t)
            for change in orders[plan["order"][at]]:
                grey = (frame @ [0.2989, 0.587, 0.114])[..., None]
                if change == "add":
                    frame = frame + plan["offset"][at]
                if change == "saturation":
                    share = plan["saturation"][at]
                    assert 0.5 <= share <= 1.5
                    frame = share * frame + (1 - share) * grey
                frame = np.clip(frame, 0, 255)
            if plan["grey"][at]:
                frame = np.repeat((frame @ [0.2989, 0.587, 0.114])[..., None], 3, -1)
            assert np.abs(seen[at] - frame).max() < 2.0


def test_all_clips_show_the_same_part_of_the_frame():
    batch = made.make_batch(make_task(), train=True)
    for name in ("window", "flip"):
        assert (np.asarray(batch[name]) == np.asarray(batch[name])[:, :1]).all()


@pytest.mark.slow
def test_two_steps_equal_torch():
    """All four clips say their transformation, the first two also the speed."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from torch.nn.functional import cross_entropy

    from tests.tasks import two_steps

    class Network(torch.nn.Module):
        def __init__(self, weights):
            super().__init__()
            self.encoder = two_steps.Encoder()
            self.head = two_steps.Dense(weights.params["head"])

        def forward(self, clips, batch):
            pooled = self.encoder(clips.flatten(0, 1)).mean(dim=(2, 3, 4))
            kind = torch.arange(4).repeat(len(clips))
            speed = torch.tensor(batch["choice"][:, 0] % len(SPEEDS)).long()
            fast = self.head.speed(pooled).unflatten(0, (-1, 4))
            both = torch.cat([fast[:, 0], fast[:, 1]])
            return cross_entropy(self.head.classifier(pooled), kind) + cross_entropy(
                both, torch.cat([speed, speed])
            )

    def make_rule(params):
        """No decay of scales and biases."""
        weights = [each for each in params if each.ndim > 1]
        others = [each for each in params if each.ndim == 1]
        groups = [
            {"params": weights, "weight_decay": 1e-2},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, two_steps.RATE, betas=(0.9, 0.99))

    task = make_task(**{"clip.num_frames": 4})
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(2)]
    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, Network(weights), batches, make_rule=make_rule)


def test_the_layers_have_the_original_size():
    task = make_task(**{"model.name": "r3d18", "model.width": 1.0})
    shapes = jax.eval_shape(task.init, jax.random.key(0), {})
    head = jax.tree.leaves(shapes.params["head"])
    assert sum(leaf.size for leaf in head) == 512 * 8 + 8
    assert task.chance_loss() == pytest.approx(2 * math.log(4))


def test_captions_say_speed_transformation_and_prediction():
    task = make_task()
    batch = {"choice": np.array([[2, 6, 10, 14], [0, 4, 8, 12]])}
    overlay = task.overlay(batch)
    assert overlay.captions == ["x4", "x1"]
    assert overlay.clips == ("speed", "periodic", "random", "warped")
    held_out = {"choice": np.array([[2], [6], [10], [14]])}
    captions = task.overlay(held_out).captions
    assert captions == ["speed x4", "periodic x4", "random", "warped"]
    logits = np.zeros((4, 1, 4))
    logits[:, :, 3] = 1.0
    captions = task.overlay(held_out, {"logits": logits}).captions
    assert captions[2] == "random, predicted: warped"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clip.strides", (2, 4), "TempTrans needs speeds that grow from 1"),
        ("clip.strides", (1, 4, 2), "TempTrans needs speeds that grow from 1"),
        ("clip.num_frames", 3, "at least 4 frames"),
    ],
)
def test_what_it_cannot_do_is_said(field, value, message):
    with pytest.raises(UserError, match=rf"config.{field} = .*{message}"):
        make_task(**{field: value})
