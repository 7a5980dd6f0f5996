"""CEP: frames, windows and colours against NumPy, three steps against PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from configs import cep as cep_config
from ctp_jax.data import clips as clips_lib
from ctp_jax.data import rng as rng_lib
from ctp_jax.models import cycle
from ctp_jax.tasks import base
from tests.tasks import made_clips as made

QUEUE, DIM, HIDDEN = 2 * made.VIDEOS, 6, 5


def make_task(**flat):
    config = made.shrink(cep_config.get_config("data=none"))
    config.batch_size = made.VIDEOS
    config.contrast.queue, config.contrast.dim = QUEUE, DIM
    config.contrast.temperature, config.contrast.momentum = 0.5, 0.6
    config.cep.hidden, config.cep.layers, config.cep.cycle = HIDDEN, 3, 0.3
    config.update_from_flattened_dict(flat)
    return base.load(config)


def torch_network(task, weights):
    """Past, present and future once more, the key network moved first."""
    import torch
    from torch import nn
    from torch.nn.functional import normalize

    from tests.tasks import two_steps

    options = task.config.contrast

    class MLP(nn.Module):
        def __init__(self, *widths):
            super().__init__()
            self.count = len(widths) - 1
            for i in range(1, len(widths)):
                self.add_module(f"dense{i}", nn.Linear(widths[i - 1], widths[i]))
                if i < self.count:
                    self.add_module(f"bn{i}", nn.BatchNorm1d(widths[i], eps=1e-3))

        def forward(self, x):
            for i in range(1, self.count):
                x = torch.relu(getattr(self, f"bn{i}")(getattr(self, f"dense{i}")(x)))
            return getattr(self, f"dense{self.count}")(x)

    class Network(two_steps.Momentum):
        def __init__(self):
            head = nn.Module()
            head.appearance = two_steps.Dense(weights.params["head"]["appearance"])
            head.time = MLP(two_steps.CHANNELS, two_steps.CHANNELS, DIM)
            super().__init__(task, head)
            self.predictors = nn.Module()
            for name in ("ahead", "back"):
                self.predictors.add_module(name, MLP(DIM, HIDDEN, HIDDEN, DIM))

        def embed(self, clips):
            """Appearance and time, unit vectors (b, c, d), of clips (b, c, 3, t, s, s)."""
            pooled = self.encoder(clips.flatten(0, 1)).mean(dim=(2, 3, 4))
            own = self.head.appearance
            both = own.embedding(torch.relu(own.hidden(pooled))), self.head.time(pooled)
            return [normalize(x).unflatten(0, (len(clips), -1)) for x in both]

        def forward(self, clips, batch):
            appearance, time = self.embed(clips[:, :3])
            keys, wanted = self.embed_keys(clips)
            keys = keys[:, 3]
            total = 0.0
            for query, key in zip(appearance, keys, strict=True):
                logits = torch.cat([query @ key, (query @ self.queue.T).flatten()])
                total -= (logits / options.temperature).log_softmax(0)[:3].sum()
            total /= len(clips)
            self.enter(keys)
            past, present, future = time.unbind(1)
            f, b = self.predictors.ahead, self.predictors.back

            def error(found, number):
                cosine = (normalize(found) * wanted[:, number]).sum(1)
                return (2 - 2 * cosine).mean()

            # In the order of our calls: running statistics depend on it.
            c_ahead, f_one = f(past), f(present)
            f_two = f(c_ahead)
            c_back, p_one = b(future), b(present)
            p_two = b(c_back)
            predicted = ((p_one, 0), (p_two, 0), (c_ahead, 1), (c_back, 1))
            predicted += ((f_one, 2), (f_two, 2))
            again = ((b(c_ahead), 0), (b(b(f_two)), 0), (b(f_one), 1), (f(p_one), 1))
            again += ((f(c_back), 2), (f(f(p_two)), 2))
            total += sum(error(*each) for each in predicted) / 6
            return total + 0.3 * sum(error(*each) for each in again) / 6

    return Network()


@pytest.mark.slow
def test_three_steps_equal_torch():
    """Losses, both networks, predictors, the queue and its pointer, which comes round."""
    pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.tasks import two_steps

    task = make_task()
    batches = [made.make_batch(task, train=True, seed=seed) for seed in range(3)]
    weights = two_steps.make_weights(task, batches[0])
    two_steps.check(task, weights, torch_network(task, weights), batches)


def test_the_clips_follow_each_other_and_the_key_is_of_all_three():
    spec = make_task(**{"clip.num_frames": 16}).clip_spec(True)
    assert (spec.num_clips, spec.num_frames) == (4, 16)
    chosen, starts = np.zeros(48), set()
    for seed in range(200):
        numbers = np.random.default_rng(seed).random(64, np.float32)
        times, choice = spec.frame_numbers(
            rng_lib.Rng(tf.constant(numbers)), tf.constant(50)
        )
        times = times.numpy()
        start = times[0, 0]
        starts.add(int(start))
        np.testing.assert_array_equal(times[:3].ravel(), start + np.arange(48))
        assert (np.diff(times[3]) > 0).all() and set(times[3]) <= set(times[:3].ravel())
        chosen[times[3] - start] += 1
        assert choice.numpy().tolist() == [0] * 4
    assert starts == {0, 1, 2}
    # A third of the frames; five standard deviations of a binomial.
    assert np.abs(chosen - 200 / 3).max() < 5 * np.sqrt(200 * 2 / 9)
    short, _ = spec.frame_numbers(rng_lib.Rng(tf.constant(numbers)), tf.constant(20))
    np.testing.assert_array_equal(short[:3].numpy().ravel(), np.minimum(range(48), 19))


def test_past_present_and_future_are_seen_alike_and_the_key_is_not():
    task = make_task()
    spec = task.clip_spec(True)
    numbers = rng_lib.Rng(tf.random.stateless_uniform([32], [1, 2]))
    window, flip = clips_lib.sample_window(numbers, *map(tf.constant, (40, 60)), spec)
    assert (window[0] == window[:3]).numpy().all() and (
        flip[0] == flip[:3]
    ).numpy().all()
    assert (window[0] != window[3]).numpy().any()
    batch = dict(made.make_batch(task, train=True))
    batch["frames"] = jnp.full_like(
        batch["frames"], jnp.array([200, 80, 40], jnp.uint8)
    )
    drawn = np.asarray(jax.jit(task.draw)(batch))
    np.testing.assert_allclose(drawn, drawn[:, :, :1, :1, :1] + 0 * drawn, atol=1e-3)
    np.testing.assert_allclose(drawn[:, 0], drawn[:, 1], atol=1e-3)
    np.testing.assert_allclose(drawn[:, 0], drawn[:, 2], atol=1e-3)
    assert np.abs(drawn[:, 0] - drawn[:, 3]).max() > 1


def test_numbers_of_the_release():
    config = cep_config.get_config("data=kinetics400")
    contrast = config.contrast
    assert (contrast.queue, contrast.temperature, contrast.momentum) == (16384, 1, 0.9)
    assert (contrast.dim, config.epochs, config.cep.cycle) == (2048, 50, 0.1)
    assert cep_config.get_config("data=kinetics400_flow").epochs == 50
    task = base.load(config)
    assert task.chance_loss() == pytest.approx(3 * math.log(3 * 16385) + 2.2)
    some = jnp.zeros((1, 2048))
    shapes = jax.eval_shape(
        lambda: task._predictors().init(
            jax.random.key(0), some, some, some, train=False
        )
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    # Four dense layers and three norms, twice.
    assert count == 2 * (4 * (2048**2 + 2048) + 3 * 2 * 2048)
    head = cycle.CycleHead(2048, 0, 1e-3, 1)
    features = jnp.zeros((1, 2, 7, 7, 512))
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, train=False))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count == 2 * (512**2 + 512 + 512 * 2048 + 2048) + 2 * 512


def test_predictions_that_are_right_cost_nothing_and_equal_logits_are_chance():
    task = make_task(**{"contrast.temperature": 1000.0})
    query = jnp.eye(DIM)[None, :3]
    loss, _ = task._contrast(query, jnp.eye(DIM)[:1], jnp.zeros((QUEUE, DIM)))
    chance = task.chance_loss() - 2 * (1 + 0.3)
    assert float(loss) == pytest.approx(chance, rel=1e-3)


def test_predictors_of_one_layer_have_no_norm():
    task = make_task(**{"cep.layers": 1})
    batch = made.make_batch(task, train=True)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert variables.state["batch_stats"]["predictors"] == {}
    state = jax.eval_shape(
        lambda *of: task.loss(*of, 0, jax.random.key(1))[1].state, variables, batch
    )
    assert state["batch_stats"]["predictors"] == {}
