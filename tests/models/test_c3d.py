"""C3D against PyTorch in float64, and against published numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax import models
from ctp_jax.models.layers import max_pool
from tests.models.made_networks import (
    SMALL,
    assert_close,
    count,
    model_config,
    random_variables,
    shapes,
)


def test_parameters_as_published():
    """MMAction2 says 78.4 M for UCF-101's 101 classes, with its dense layers."""
    encoder = models.create(model_config(name="c3d", batch_norm=False))
    variables, _ = shapes(encoder)
    # pool5 leaves 1x4x4 of 16 frames of 112x112.
    sizes = (512 * 4 * 4, 4096, 4096, 101)
    dense = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert count(variables["params"]) == 27_655_936
    assert round((27_655_936 + dense) / 1e6, 1) == 78.4
    assert "batch_stats" not in variables
    # Two vectors for each of the 2752 channels.
    variables, _ = shapes(models.create(model_config(name="c3d")))
    assert count(variables["params"]) == 27_655_936 + 2 * 2752
    assert count(variables["batch_stats"]) == 2 * 2752


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm, conv", [(True, "auto"), (False, "direct")])
def test_same_features_statistics_and_gradients_as_torch(batch_norm, conv):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.models import torch_networks as oracles

    config = model_config(name="c3d", batch_norm=batch_norm, conv=conv, **SMALL)
    encoder = models.create(config)  # spatial stride 8
    variables = random_variables(encoder)
    params, stats = variables["params"], variables.get("batch_stats", {})
    pools = (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 1, 1)
    oracle = oracles.C3D((8, 16, 32, 32, 64, 64, 64, 64), pools, batch_norm)
    oracles.load(oracle, params, stats)
    oracle.double()
    # The odd number of rows leaves half a window at the edge.
    clips = jax.random.normal(jax.random.key(0), (2, 8, 36, 32, 3))
    torch_clips = oracles.channels_first(clips).double()

    got = jax.jit(lambda v, x: encoder.apply(v, x, False))(variables, clips)
    assert got.shape == (2, 1, 5, 4, 64)
    oracle.eval()
    want = oracle(torch_clips).permute(0, 2, 3, 4, 1).detach()
    assert_close(got, want, 1e-5)

    weights = np.random.default_rng(2).normal(size=got.shape).astype(np.float32)

    # Everything is an argument: XLA computes what it can of constants, and takes long.
    def loss(params, stats, clips):
        features, changed = encoder.apply(
            {"params": params, "batch_stats": stats}, clips, True, mutable="batch_stats"
        )
        return jnp.sum(features * weights), (features, changed.get("batch_stats", {}))

    step = jax.jit(jax.grad(loss, has_aux=True))
    slopes, (got, new_stats) = step(params, stats, clips)
    oracle.train()
    want = oracle(torch_clips).permute(0, 2, 3, 4, 1)
    (want * torch.tensor(weights)).sum().backward()
    assert_close(got, want.detach(), 1e-4)
    jax.tree.map(
        lambda g, w: assert_close(g, w, 1e-4),
        new_stats,
        oracles.statistics(oracle, stats),
    )
    wanted = oracles.gradients(oracle, params)
    for block, layers in slopes.items():
        if batch_norm:  # which takes the bias out again
            size = np.abs(layers["conv"]["kernel"]).max()
            assert np.abs(layers["conv"].pop("bias")).max() < 1e-5 * size
            assert np.abs(wanted[block]["conv"].pop("bias")).max() < 1e-5 * size
        jax.tree.map(lambda g, w: assert_close(g, w, 1e-5), layers, wanted[block])


@pytest.mark.parametrize(
    "strides, window",
    [
        *((strides, (1, 1, 1)) for strides in ((1, 1, 1), (1, 2, 2), (2, 1, 3))),
        *((strides, (2, 2, 2)) for strides in ((2, 2, 2), (2, 3, 2))),
        *((strides, (3, 3, 3)) for strides in ((1, 1, 1), (2, 2, 2), (1, 1, 2))),
        ((1, 2, 2), (1, 3, 3)),
    ],
)
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_and_its_gradient_equal_torch(strides, window, ties):
    """Of equal maxima, the first gets the gradient: all of it."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 7, 8, 3)).astype(np.float32)
    x = x.round() if ties else x
    there = torch.tensor(x).permute(0, 4, 1, 2, 3).requires_grad_()
    size = tuple(map(max, window, strides))
    # Windows that do not overlap stay inside, and the last of them may be cut off.
    padding = tuple((w - s + 1) // 2 for w, s in zip(size, strides, strict=True))
    want = torch.nn.functional.max_pool3d(
        there, size, strides, padding, ceil_mode=not any(padding)
    )
    weights = rng.normal(size=want.shape).astype(np.float32)
    (want * torch.tensor(weights)).sum().backward()
    weights = np.moveaxis(weights, 1, -1)

    @jax.jit
    def run(x):
        got, pull = jax.vjp(lambda x: max_pool(x, strides, window), x)
        return got, pull(weights)[0]

    got, slopes = run(x)
    np.testing.assert_array_equal(got, want.detach().permute(0, 2, 3, 4, 1))
    wanted = there.grad.permute(0, 2, 3, 4, 1)
    np.testing.assert_allclose(slopes, wanted, rtol=1e-5, atol=1e-6)


def test_max_pool_keeps_nan():
    x = np.float32([np.nan, 1.0, 1.0, np.nan, 1.0, 2.0]).reshape(1, 1, 1, 6, 1)
    np.testing.assert_array_equal(
        max_pool(jnp.asarray(x), (1, 1, 2)).ravel(), [np.nan, np.nan, 2.0]
    )
