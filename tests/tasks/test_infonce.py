"""InfoNCE and UberNCE: clips, what is drawn, positives, steps, against PyTorch and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from configs import infonce as infonce_config
from ctp_jax.data import rng as rng_lib
from ctp_jax.errors import UserError
from ctp_jax.ops import contrast
from ctp_jax.tasks import base
from tests.tasks import made_clips as made
from tests.tasks import test_moco as moco

LABELS = {"contrast.positives": "label"}


def make_task(**flat):
    config = made.shrink(infonce_config.get_config("data=none"))
    config.batch_size = made.VIDEOS
    config.contrast.queue, config.contrast.dim = moco.QUEUE, 8
    config.contrast.momentum = 0.6
    config.update_from_flattened_dict(flat)
    return base.load(config)


def sample(task, train, count=8000, num_frames=50):
    """Frame numbers and choices of many videos, NumPy."""
    spec = task.clip_spec(train)
    rng = np.random.default_rng(0)
    numbers = rng.random((count, 64), np.float32)

    def one(row):
        return spec.frame_numbers(rng_lib.Rng(row), tf.constant(num_frames))

    @tf.function(autograph=False)
    def every(numbers):
        return tf.map_fn(one, numbers, fn_output_signature=(tf.int32, tf.int32))

    return [part.numpy() for part in every(numbers)]


def test_half_of_the_pairs_show_one_clip_and_one_of_the_two_is_strong():
    times, strong = sample(make_task(), train=True)
    assert times.shape == (8000, 2, made.FRAMES)
    assert (np.diff(times, axis=-1) == 1).all()
    assert (times.min(), times.max()) == (0, 49)
    same = (times[:, 0] == times[:, 1]).all(axis=1)
    # Two clips begin at the same of 47 frames at times.
    share = 0.5 + 0.5 / 47
    assert abs(same.mean() - share) < 5 * np.sqrt(share * (1 - share) / 8000)
    two, counts = ~same, {}
    for name, rows in {"two": strong[two], "one": strong[same]}.items():
        counts[name] = np.bincount(rows @ [2, 1], minlength=4) / len(rows)
    expected = np.array([0.49, 0.21, 0.21, 0.09])
    error = np.sqrt(expected * (1 - expected) / two.sum())
    assert (np.abs(counts["two"] - expected) < 5 * error).all()
    # But for those two clips that happen to be the same.
    assert counts["one"][[0, 3]].sum() < 0.03
    assert np.abs(counts["one"][1:3] - 0.5).max() < 0.05


def test_in_evaluation_there_are_two_weak_clips():
    times, strong = sample(make_task(), train=False)
    same = (times[:, 0] == times[:, 1]).all(axis=1)
    assert abs(same.mean() - 1 / 47) < 5 * np.sqrt(1 / 47 / 8000)
    assert not strong.any()


def blurred(frame, sigma):
    """By NumPy, pixel by pixel along each axis."""
    for axis in (0, 1):
        size = frame.shape[axis]
        rows = []
        for center in range(size):
            weight = np.exp(-0.5 * ((np.arange(size) - center) / sigma) ** 2)
            rows.append(np.average(frame, axis=axis, weights=weight))
        frame = np.stack(rows, axis=axis)
    return frame


def test_strong_clips_are_jittered_and_blurred_and_weak_ones_are_not():
    task = make_task(**{"contrast.blur": 1.0, "jitter.probability": 0.0})
    task.config.jitter.grey = 1.0
    batch = dict(made.make_batch(task, train=True))
    batch["choice"] = jnp.array([[0, 1], [1, 0], [1, 1], [0, 0]])
    ours = np.asarray(jax.jit(task.draw)(batch))
    for video, clip in np.ndindex(4, 2):
        want = made.opencv_clip(batch, video, clip)
        if batch["choice"][video, clip]:
            grey = np.float64(want) @ [0.2989, 0.587, 0.114]
            sigma = float(batch["plan"]["sigma"][video, clip]) * made.SIZE
            assert 0.1 / 128 <= sigma / made.SIZE < 2 / 128
            frames = np.repeat(grey[..., None], 3, axis=-1)
            want = np.stack([blurred(frame, sigma) for frame in frames])
        assert np.abs(ours[video, clip] - want).max() < 1.0
    task.config.contrast.blur = 0.0
    plan = made.make_batch(task, train=True)["plan"]
    assert not np.asarray(plan["blurred"]).any()


def test_crops_show_20_to_100_percent_of_the_frame():
    scales = infonce_config.area_crops(128)
    shown = np.array([128 * 128 / (width * height) for width, height in scales])
    assert 0.19 < shown.min() < 0.21 and shown.max() == 1.0
    width, height = np.array(scales).T
    aspects = (4 / width) / (3 / height)  # of the window, in pixels of the frame
    assert 0.74 < aspects.min() and aspects.max() < 1.35
    config = infonce_config.get_config("small,data=none")
    assert config.clip.scales == infonce_config.area_crops(56)


def losses_by_hand(logits, positives):
    """UberNCE's and CoCLR's, row by row in float64."""
    found = []
    for row, chosen in zip(np.float64(logits), positives, strict=True):
        share = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        found.append((-np.log(share[chosen]).mean(), -np.log(share[chosen].sum())))
    return np.array(found).T


def test_losses_are_numpys():
    rng = np.random.default_rng(0)
    logits = 5 * rng.normal(size=(6, 9)).astype(np.float32)
    positives = rng.random((6, 9)) < 0.3
    positives[:, 0] = True
    mean, summed = losses_by_hand(logits, positives)
    given = jnp.asarray(logits), jnp.asarray(positives)
    np.testing.assert_allclose(contrast.mean_log_likelihood(*given), mean, 1e-5, 1e-5)
    np.testing.assert_allclose(contrast.log_sum_likelihood(*given), summed, 1e-5, 1e-5)
    own = jnp.zeros(positives.shape, bool).at[:, 0].set(True)
    one = contrast.mean_log_likelihood(given[0], own)
    np.testing.assert_allclose(
        one, contrast.log_sum_likelihood(given[0], own), 1e-5, 1e-5
    )
    gradient = jax.grad(lambda x: contrast.log_sum_likelihood(x, given[1]).sum())
    assert np.isfinite(gradient(given[0])).all()


def test_positives_are_keys_of_the_class_or_the_own_one():
    entries = {"key": jnp.zeros((2, 4)), "label": jnp.array([3, 1])}
    queue = {"key": jnp.zeros((3, 4)), "label": jnp.array([-1, 1, 3])}
    wanted = {
        "own": [[1, 0, 0, 0], [1, 0, 0, 0]],
        "label": [[1, 0, 0, 1], [1, 0, 1, 0]],
    }
    for positives, want in wanted.items():
        task = make_task(**{"contrast.positives": positives})
        found = task.positives(entries, queue, jax.random.key(0))
        np.testing.assert_array_equal(found, np.array(want, bool))


@pytest.mark.slow
def test_three_steps_equal_torch():
    """UberNCE with Adam; InfoNCE has the loss of MoCo. Labels travel with the keys."""
    pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    task = make_task(**LABELS)
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(3)]
    weights = two_steps.make_weights(task, batches[0])
    network = torch_network(task, weights)
    assert task.config.optimizer.name == "adam"
    two_steps.check(task, weights, network, batches)
    assert network.most_positives > 2


def torch_network(task, weights):
    """That of MoCo, with a queue of labels and the mean over positives."""
    import torch

    network = moco.torch_network(task, weights)

    class WithLabels(type(network)):
        most_positives = 0

        def begin(self, weights):
            super().begin(weights)
            self.label = torch.full((moco.QUEUE,), -1)

        def loss_of(self, logits, batch):
            label = torch.tensor(np.asarray(batch["label"])).long()
            found = logits.log_softmax(dim=1)
            total = []
            for row, own in zip(found, label, strict=True):
                likely = [row[0]]
                likely += [row[1 + i] for i in torch.where(self.label == own)[0]]
                self.most_positives = max(self.most_positives, len(likely))
                total.append(-sum(likely) / len(likely))
            start = self.pointer - len(label)  # the keys are in the queue already
            self.label[start : start + len(label) or None] = label
            return torch.stack(total).mean()

        def state(self):
            found = super().state()
            found["queue"]["label"] = self.label.numpy().astype(np.int32)
            return found

    return WithLabels(task, network.head)


def test_labels_are_needed_for_ubernce_alone():
    own, task = make_task(), make_task(**LABELS)
    task.see_data(made.make_split([0, 1, 0]), None)
    without, one = made.make_split([-1, 0, 1]), made.make_split([1, 1])
    own.see_data(without, None)
    with pytest.raises(UserError, match="1 of 3 videos of split .train. have no label"):
        task.see_data(without, None)
    with pytest.raises(
        UserError, match="are of class .run., but config.contrast.positives"
    ):
        task.see_data(one, None)
    without.split = one.split = "test"  # looked at, not learnt from
    task.see_data(without, None)
    task.see_data(one, None)


def test_captions_say_what_is_seen():
    times = np.zeros((2, 2, 4), int)
    times[1, 1] = 1
    batch = {"choice": np.array([[0, 1], [0, 0]]), "times": times}
    assert make_task().overlay(batch).captions == [
        "query weak, key strong, of one clip",
        "query weak, key weak, of two clips",
    ]
