"""Tubelet contrast: pairs of videos, against brute force and PyTorch."""

import jax
import numpy as np
import pytest

from configs import tubelet as tubelet_config
from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from tests.ops import test_tubelets as drawing
from tests.tasks import made_clips as made
from tests.tasks import test_moco


def make_task(**flat):
    config = made.shrink(tubelet_config.get_config("data=none"))
    config.game.scales = (8.0, 12.0)
    config.colour.brightness = config.colour.contrast = 1.0  # always changed
    config.colour.hue_saturation = 1.0
    config.batch_size = made.VIDEOS
    config.contrast.queue, config.contrast.dim = test_moco.QUEUE, 8
    config.contrast.momentum = 0.6  # so large a share moves that a wrong order shows
    config.update_from_flattened_dict(flat)
    return base.load(config)


@pytest.mark.slow
def test_three_steps_equal_torch():
    """MoCo's losses, networks and queue, with tubelets for what is common to a pair."""
    pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    task = make_task()
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(3)]
    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, test_moco.torch_network(task, weights), batches)


def test_two_videos_show_the_same_tubelets():
    """Cut from one video, pasted on it and on the next; one draw of colours for both."""
    task = make_task(**{"game.shear": 0.1})
    batch = made.make_batch(task, train=True)
    ours = np.asarray(jax.jit(task.draw)(batch))
    assert ours.shape == (made.VIDEOS, 2, made.FRAMES, made.SIZE, made.SIZE, 3)
    clips = [made.opencv_clip(batch, video, 0) for video in range(made.VIDEOS)]
    for video, clip in enumerate(clips):
        plan = {name: np.asarray(rows[video]) for name, rows in batch["plan"].items()}
        assert np.abs(plan["degrees"]).max() > 0 and np.abs(plan["shear"]).max() > 0
        pair = np.stack([clip, clips[(video + 1) % made.VIDEOS]])
        pasted = drawing.brute_force(
            pair, clip, plan, plan["degrees"], plan["shear"]
        ).astype(np.float32)
        want = [made.opencv_colours(each, plan) for each in pasted]
        assert np.abs(ours[video] - want).max() < 1.0


def test_no_video_is_its_own_key_in_an_evaluation():
    """Its last batch is padded with its last video."""
    task = make_task()
    whole = made.make_batch(task, train=False)
    padded = jax.tree.map(np.array, whole)
    last = made.VIDEOS - 2
    for rows in jax.tree.leaves(padded):
        rows[last + 1 :] = rows[last]
    padded["mask"] = np.array([1.0] * (last + 1) + [0.0], np.float32)
    # The same with the first video in that place.
    want = jax.tree.map(np.array, whole)
    for rows in jax.tree.leaves(want):
        rows[last + 1 :] = rows[0]
    variables = jax.jit(task.init)(jax.random.key(0), whole)
    predict = jax.jit(task.predict)
    found = predict(variables, padded)["embedding"][: last + 1]
    want = predict(variables, want)["embedding"][: last + 1]
    np.testing.assert_array_equal(found, want)


def test_pictures_have_both_clips_and_the_boxes_of_the_tubelets():
    task = make_task()
    batch = made.make_batch(task, train=True)
    found = task.overlay(batch)
    assert found.boxes is not None and len(found.captions) == made.VIDEOS
    assert found.boxes.shape == (made.VIDEOS, 2, 2, made.FRAMES, 4)
    first, last = (int(each) for each in batch["plan"]["degrees"][0, :, -1])
    assert found.captions[0].endswith(f"turn by {first:+d} and {last:+d} degrees")
    # Where they differ from clips without tubelets, there is a box.
    bare = np.stack([made.opencv_clip(batch, video, 0) for video in range(made.VIDEOS)])
    pair = np.stack([bare, np.roll(bare, -1, axis=0)], axis=1)
    plan = {name: np.asarray(rows) for name, rows in batch["plan"].items()}
    still = {"brightness": 0 * plan["brightness"], "contrast": 0 * plan["contrast"] + 1}
    still["hue_saturation"] = np.zeros_like(plan["hue_saturation"])
    drawn = np.asarray(jax.jit(task.draw)({**batch, "plan": plan | still}))
    changed = np.abs(drawn - pair).max(-1) > 2
    assert changed.any(axis=(-2, -1)).all()  # in every frame of both clips
    for at in np.argwhere(changed):
        video, clip, t, y, x = at
        low, high = np.split(found.boxes[video, clip, :, t], 2, axis=-1)
        point = np.array([x, y]) + 0.5
        assert ((low - 0.5 <= point) & (point <= high + 0.5)).all(axis=-1).any()


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "count"), [(4, 4, 1), (1, 1, 1), (4, 2, 2)]
)
def test_a_pair_needs_two_videos(batch_size, accumulate, count):
    flat = {"batch_size": batch_size, "optimizer.accumulate": accumulate}

    def start():
        task = make_task(**flat)
        batch = jax.tree.map(
            lambda rows: rows[: batch_size // accumulate],
            made.make_batch(task, train=True),
        )
        key = jax.random.key(0)
        variables = jax.eval_shape(task.init, key, batch)
        jax.eval_shape(lambda held: task.loss(held, batch, 0, key)[0], variables)

    if count > 1:
        start()
    else:
        with pytest.raises(
            UserError, match=r"batch_size .* = 1: a pair of videos needs at least 2"
        ):
            start()


def test_numbers_are_those_of_the_release():
    config = tubelet_config.get_config("data=kinetics400")
    assert (config.contrast.queue, config.contrast.temperature) == (16384, 0.2)
    assert (config.contrast.momentum, config.contrast.dim) == (0.999, 128)
    assert (config.epochs, config.optimizer.learning_rate) == (200, 0.01)
    assert config.game.num_trajectories == 2 and config.game.visible == 1
    assert tuple(112 * each for each in config.game.reach) == (20, 90)
    assert make_task().chance_loss() == np.log(1 + test_moco.QUEUE)
