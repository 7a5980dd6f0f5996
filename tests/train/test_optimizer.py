"""The optimiser against torch, step for step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctp_jax import modules
from ctp_jax.errors import UserError
from ctp_jax.train import optimizer as optimizer_lib
from ctp_jax.train.epochs import Epochs
from tests.toy_data import toy_config

torch = pytest.importorskip("torch")

STEPS = 60


def gradients(step, shapes):
    rng = np.random.default_rng(step)
    # Some steps are clipped at 40 and some are not.
    size = 30.0 if step % 3 == 0 else 3.0
    return [size * rng.standard_normal(shape) for shape in shapes]


def torch_run(start, config, epochs):
    params = [torch.nn.Parameter(torch.tensor(x)) for x in start]
    sgd = torch.optim.SGD(
        params, lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
    )
    milestones = [epochs.first_step(m) for m in config.milestones]
    decay = torch.optim.lr_scheduler.MultiStepLR(sgd, milestones, config.decay)
    for step in range(STEPS):
        for param, grad in zip(params, gradients(step, [x.shape for x in start])):
            param.grad = torch.tensor(grad)
        torch.nn.utils.clip_grad_norm_(params, config.clip_norm)
        sgd.step()
        decay.step()
        yield [param.detach().numpy().copy() for param in params]


@pytest.mark.parametrize("x64", [True, False])
def test_equals_torch(x64):
    config = toy_config().optimizer
    config.weight_decay = 1e-2
    epochs = Epochs(num_examples=80, batch_size=4)
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape) for shape in ((7, 5), (5,))]
    jax.config.update("jax_enable_x64", x64)
    try:
        schedule = optimizer_lib.make_schedule(config, epochs, STEPS)
        optimizer = optimizer_lib.make_optimizer(config, schedule)
        params = [jnp.asarray(x) for x in start]
        state = optimizer.init(params)

        @jax.jit
        def update(grads, state, params):
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        for step, wanted in enumerate(torch_run(start, config, epochs)):
            grads = [jnp.asarray(g) for g in gradients(step, [x.shape for x in start])]
            params, state = update(grads, state, params)
            # torch divides by norm + 1e-6, which is 2.5e-8 of the norm.
            tolerance = 3e-7 if x64 else 2e-5
            for ours, theirs in zip(params, wanted):
                np.testing.assert_allclose(ours, theirs, tolerance, tolerance)
    finally:
        jax.config.update("jax_enable_x64", False)


def follow(config, start, gradients, frozen=lambda params: None):
    """Parameters after every step, as float64 computes them; the rate is constant."""
    jax.config.update("jax_enable_x64", True)
    try:
        optimizer = optimizer_lib.make_optimizer(
            config, lambda step: config.learning_rate, frozen
        )
        params = jax.tree.map(jnp.asarray, start)
        state = optimizer.init(params)

        @jax.jit
        def update(grads, state, params):
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        for grads in gradients:
            params, state = update(grads, state, params)
            yield jax.tree.map(np.asarray, params)
    finally:
        jax.config.update("jax_enable_x64", False)


# What an encoder has: kernels, and scales and biases of norms and of other layers.
LAYERS = {
    "conv": {"kernel": (3, 4, 5)},
    "norm": {"scale": (5,), "bias": (5,)},
    "dense": {"kernel": (5, 2), "bias": (2,)},
}


def some(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.standard_normal(shape),
        LAYERS,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def is_kernel(layers):
    """In the order of the leaves, by the names above."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(layers)
    return [path[-1].key == "kernel" for path, _ in leaves]


TORCH = {
    "sgd": lambda groups, c: torch.optim.SGD(groups, c.learning_rate, c.momentum),
    "nesterov": lambda groups, c: torch.optim.SGD(
        groups, c.learning_rate, c.momentum, nesterov=True
    ),
    "adam": lambda groups, c: torch.optim.Adam(
        groups, c.learning_rate, (c.beta1, c.beta2), c.epsilon
    ),
    "adamw": lambda groups, c: torch.optim.AdamW(
        groups, c.learning_rate, (c.beta1, c.beta2), c.epsilon
    ),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("exclude", [False, True])
def test_each_equals_torch(name, exclude):
    config = toy_config().optimizer
    config.name = name.replace("nesterov", "sgd")
    config.nesterov = name == "nesterov"
    # No clipping: torch adds 1e-6 to the norm.
    config.learning_rate, config.weight_decay, config.clip_norm = 0.01, 0.1, 0.0
    config.beta2, config.epsilon, config.exclude_norms_and_biases = 0.98, 1e-3, exclude
    start = some(0)
    params = [torch.nn.Parameter(torch.tensor(x)) for x in jax.tree.leaves(start)]
    decayed = [kernel or not exclude for kernel in is_kernel(start)]
    groups = [
        {"params": [param], "weight_decay": 0.1 if decays else 0.0}
        for param, decays in zip(params, decayed, strict=True)
    ]
    optimizer = TORCH[name](groups, config)
    gradients = [some(step) for step in range(1, 21)]
    for ours, grads in zip(follow(config, start, gradients), gradients, strict=True):
        for param, grad in zip(params, jax.tree.leaves(grads), strict=True):
            param.grad = torch.tensor(grad)
        optimizer.step()
        for found, param in zip(jax.tree.leaves(ours), params, strict=True):
            np.testing.assert_allclose(found, param.detach().numpy(), 1e-12, 1e-14)


@pytest.mark.parametrize("exclude", [False, True])
def test_lars_as_written(exclude):
    """You et al. 2017, algorithm 1, but for where optax departs from it.

    The norm of gradient and decay together is taken, not the sum of their norms.
    """
    config = toy_config().optimizer
    config.name, config.trust_coefficient = "lars", 0.02
    config.learning_rate, config.weight_decay, config.clip_norm = 2.0, 0.1, 0.0
    config.exclude_norms_and_biases = exclude
    start, gradients = some(0), [some(step) for step in range(1, 21)]
    weights = [x.copy() for x in jax.tree.leaves(start)]
    velocities = [np.zeros_like(w) for w in weights]
    adapted = [kernel or not exclude for kernel in is_kernel(start)]
    for ours, grads in zip(follow(config, start, gradients), gradients, strict=True):
        for w, v, g, adapts in zip(
            weights, velocities, jax.tree.leaves(grads), adapted, strict=True
        ):
            rate = 2.0
            if adapts:
                g = g + 0.1 * w
                rate *= 0.02 * np.sqrt((w**2).sum()) / np.sqrt((g**2).sum())
            v[...] = 0.9 * v + rate * g
            w -= v
        for found, w in zip(jax.tree.leaves(ours), weights, strict=True):
            np.testing.assert_allclose(found, w, 1e-12, 1e-14)


def test_a_module_outside_the_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/signs.py").write_text(
        "import optax\n"
        "def make(config, schedule):\n"
        "    return optax.sign_sgd(lambda step: config.momentum * schedule(step))\n"
    )
    config = toy_config(**{"optimizer.name": "outside.signs"})
    modules.allow_named_by(config)
    config = config.optimizer
    config.learning_rate = 0.1
    params, grads = {"kernel": np.ones(3)}, {"kernel": np.float64([5, -0.1, 0])}
    (found,) = follow(config, params, [grads])
    np.testing.assert_allclose(found["kernel"], [0.91, 1.09, 1.0], 1e-12)


def test_modules_that_are_no_optimizers(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/empty.py").write_text("")
    (tmp_path / "inside/broken.py").write_text("\nimport not_installed")
    (tmp_path / "inside/cut.py").write_text("\n\nx = (")
    (tmp_path / "inside/outer.py").write_text("import inside.cut")
    for name, message in (
        (
            "nowhere.signs",
            r"config\.optimizer\.name = 'nowhere\.signs': there is no module nowhere:",
        ),
        (
            "inside.signs",
            r"config\.optimizer\.name = 'inside\.signs': there is no module inside\.signs:",
        ),
        ("inside.empty", r"empty\.py does not define make"),
        (
            "inside.broken",
            r"inside/broken\.py \(line 2\): ModuleNotFoundError: .*not_installed",
        ),
        (
            "inside.cut",
            r"inside/cut\.py \(line 3\): SyntaxError: '\(' was never closed",
        ),
        ("inside.outer", r"inside/cut\.py \(line 3\): SyntaxError"),
    ):
        modules.allow(name)
        config = toy_config(**{"optimizer.name": name}).optimizer
        with pytest.raises(UserError, match=message) as caught:
            optimizer_lib.make_optimizer(config, lambda step: 0.1)
        assert "\n" not in str(caught.value)


def rates(epochs, total, **fields):
    flat = {f"optimizer.{name}": value for name, value in fields.items()}
    config = toy_config(**flat).optimizer
    schedule = optimizer_lib.make_schedule(config, epochs, total)
    return np.array([jax.jit(schedule)(step) for step in range(total)])


def test_steps_fall_at_epoch_boundaries():
    # 10 videos in batches of 4: epoch 1 begins within step 2, so the rate of step 3.
    found = rates(Epochs(10, 4), 8, learning_rate=1.0, milestones=(1.0, 2.0))
    np.testing.assert_allclose(found, [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01], 1e-6)


def test_warmup_rises_to_the_full_rate():
    found = rates(
        Epochs(1000, 1), 8, learning_rate=2.0, warmup_steps=4, schedule="constant"
    )
    np.testing.assert_allclose(found[:5], [0.2, 0.65, 1.1, 1.55, 2.0], 1e-6)
    np.testing.assert_allclose(found[5:], 2.0)


def test_cosine_goes_from_full_to_nothing():
    found = rates(Epochs(1000, 1), 101, learning_rate=1.0, schedule="cosine")
    np.testing.assert_allclose(found[[0, 50]], [1.0, 0.5], atol=2e-2)
    assert found[-1] < 1e-3 and (np.diff(found) < 0).all()


def test_rate_grows_with_the_batch():
    found = rates(
        Epochs(1000, 64), 2, learning_rate=0.01, base_batch_size=32, schedule="constant"
    )
    np.testing.assert_allclose(found, 0.02, 1e-6)


def test_no_clipping_on_request():
    config = toy_config().optimizer
    config.clip_norm, config.weight_decay = 0.0, 0.0
    optimizer = optimizer_lib.make_optimizer(config, lambda step: 1.0)
    params = jnp.zeros(3)
    updates, _ = optimizer.update(params + 1e6, optimizer.init(params), params)
    np.testing.assert_allclose(updates, -1e6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
def test_frozen_parameters_stay_bit_for_bit(name):
    """In spite of weight decay and momentum; the others go as if alone."""
    config = toy_config(**{"optimizer.name": name}).optimizer
    config.trust_coefficient = 0.1
    config.weight_decay, config.clip_norm = 0.1, 1.0
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=5)) for name in ("still", "free")}
    mask = {"still": True, "free": False}
    optimizer = optimizer_lib.make_optimizer(config, lambda step: 0.1, lambda p: mask)
    alone = optimizer_lib.make_optimizer(config, lambda step: 0.1)
    state, now = optimizer.init(params), params
    free = {"free": params["free"]}
    state_alone = alone.init(free)
    for step in range(4):
        gradient = jnp.asarray(np.random.default_rng(step).normal(size=5))
        # What a stopped gradient is; so the others are clipped by their own norm.
        gradients = {"still": jnp.zeros(5), "free": gradient}
        updates, state = optimizer.update(gradients, state, now)
        now = optax.apply_updates(now, updates)
        updates, state_alone = alone.update({"free": gradient}, state_alone, free)
        free = optax.apply_updates(free, updates)
    np.testing.assert_array_equal(now["still"], params["still"])
    np.testing.assert_allclose(now["free"], free["free"], rtol=1e-6)
    assert (np.abs(now["free"] - params["free"]) > 1e-3).all()
