"""The networks of other papers: parameters as counted, PyTorch's outputs and gradients."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax import models
from ctp_jax.models import resnet3d
from tests import float64
from tests.models.made_networks import (
    assert_close,
    count,
    model_config,
    random_variables,
    shapes,
)

PARAMETERS = {
    # Of the ten-layer networks the whole; of R-2D3D the stem and the stages; of the 2-D
    # networks torchvision's numbers without the classifier.
    "r3d10": (14_361_792,),
    "r2plus1d10": (14_365_303,),
    "r2d3d18": (9_536, 147_968, 525_568, 6_228_480, 7_145_984),
    "r2d3d34": (9_536, 221_952, 1_116_416, 20_388_352, 10_685_952),
    "tsm18": (11_689_512 - 513_000,),
    "tsm50": (25_557_032 - 2_049_000,),
    # Conv_1a; 2b, 2c; Mixed_3; Mixed_4; Mixed_5. With a classifier torchvision's number.
    "s3d": (
        38_336,
        4_224 + 221_952,
        208_416 + 479_040,
        501_728 + 588_624 + 695_728 + 835_136 + 1_161_088,
        1_336_192 + 1_839_584,
    ),
    "s3dg": (9_098_000,),
}


@pytest.mark.parametrize("name", models.PUBLISHED)
def test_what_is_published_is_what_the_network_has(name):
    """Parameters; strides of stems; 16 frames of 112x112 at the strides of the papers."""
    published = models.PUBLISHED[name]
    config = model_config(name=name, spatial_strides=(1, 2, 2, 2))
    if published.temporal_strides:
        config.temporal_strides = published.temporal_strides
    encoder = models.create(config)
    variables, features = shapes(encoder)
    parts = collections.Counter()
    for layer, leaves in variables["params"].items():
        parts[layer.split("_")[0]] += count(leaves)
    want = PARAMETERS[name]
    got = [parts[part] for part in ("stem", "stage1", "stage2", "stage3", "stage4")]
    assert got == list(want) if len(want) > 1 else sum(got) == want[0]
    if name == "s3d":
        assert sum(want) + 1024 * 400 + 400 == 8_320_048
    assert encoder.stem_strides[1] == published.stem_stride
    frames = {"r3d10": 2, "r2plus1d10": 2, "tsm18": 16, "tsm50": 16}
    frames |= {"r2d3d18": 4, "r2d3d34": 4, "s3d": 2, "s3dg": 2}
    side = 7 if published.stem_stride == 2 else 4
    assert features.shape[1:4] == (frames[name], side, side)


def make_step(encoder, weights):
    """Slopes of a weighted sum of the features in training, features, statistics.

    Everything is an argument: XLA computes what it can of constants, and takes long.
    """

    def loss(params, stats, clips):
        features, changed = encoder.apply(
            {"params": params, "batch_stats": stats}, clips, True, mutable="batch_stats"
        )
        return jnp.sum(features * weights), (features, changed["batch_stats"])

    return jax.jit(jax.grad(loss, has_aux=True))


NARROW = {"width": 0.125, "dtype": "float32", "conv": "direct"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, channels, spatial, temporal",
    [
        ("r3d18", (8, 16, 32, 64), (1, 2, 2, 1), (1, 2, 2, 2)),
        ("r2plus1d18", (8, 16, 32, 64), (1, 2, 2, 2), (1, 2, 2, 2)),
        ("r3d10", (8, 16, 32, 64), (1, 2, 2, 1), (1, 2, 2, 2)),
        ("r2plus1d10", (8, 16, 32, 64), (1, 2, 2, 2), (1, 2, 2, 2)),
        ("r2d3d18", (8, 16, 32, 32), (1, 2, 1, 1), (1, 1, 2, 2)),
        ("tsm18", (8, 16, 32, 64), (1, 2, 2, 2), (1, 1, 1, 1)),
    ],
)
def test_as_torch_in_float64(name, channels, spatial, temporal):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.models import torch_networks

    config = model_config(
        name=name, spatial_strides=spatial, temporal_strides=temporal, **NARROW
    )
    encoder = models.create(config)
    variables = random_variables(encoder)
    mid = 8 if name == "r2plus1d18" else 10
    oracle = torch_networks.residual(name, channels, spatial, temporal, mid)
    torch_networks.load(oracle, variables["params"], variables["batch_stats"])
    oracle.double()
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(2, 5, 36, 32, 3))
    there = torch.tensor(clips).permute(0, 4, 1, 2, 3)
    oracle.eval()
    with torch.no_grad():
        want = oracle(there).permute(0, 2, 3, 4, 1)
    weights = rng.normal(size=want.shape)
    with jax.enable_x64(True), float64.quick_convolutions():
        params, stats = (
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables[part])
            for part in ("params", "batch_stats")
        )
        encoder = encoder.clone(dtype=jnp.dtype("float64"))
        here = {"params": params, "batch_stats": stats}
        got = jax.jit(lambda v, x: encoder.apply(v, x, False))(here, clips)
        assert got.dtype == np.float64
        assert_close(got, want, 1e-10)
        slopes, (got, new) = make_step(encoder, weights)(params, stats, clips)
    oracle.train()
    want = oracle(there).permute(0, 2, 3, 4, 1)
    (want * torch.tensor(weights)).sum().backward()
    assert_close(got, want.detach(), 1e-10)
    assert (np.asarray(got).min() < 0) == (name == "r2d3d18")
    wanted = torch_networks.statistics(oracle, stats)
    jax.tree.map(lambda g, w: assert_close(g, w, 1e-9), new, wanted)
    wanted = torch_networks.gradients(oracle, params)
    jax.tree.map(lambda g, w: assert_close(g, w, 1e-9), slopes, wanted)


def test_shift_takes_from_the_next_frame_and_the_one_before():
    clips = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 20)).astype(np.float32)
    got = np.asarray(resnet3d.shift(jnp.asarray(clips)))
    np.testing.assert_array_equal(got[:, :-1, ..., :2], clips[:, 1:, ..., :2])
    np.testing.assert_array_equal(got[:, 1:, ..., 2:4], clips[:, :-1, ..., 2:4])
    np.testing.assert_array_equal(got[..., 4:], clips[..., 4:])
    assert not got[:, -1, ..., :2].any() and not got[:, 0, ..., 2:4].any()


def test_temporal_strides_of_tsm_drop_no_frame():
    """No kernel reaches over time, so frames are pooled before they are left out."""
    encoder = models.create(
        model_config(
            name="tsm18", width=0.03, temporal_strides=(1, 2, 2, 2), conv="direct"
        )
    )
    variables = random_variables(encoder)

    def energy(clips):
        return jnp.square(encoder.apply(variables, clips, False)).sum()

    clips = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 16, 16, 3)))
    slopes = jax.jit(jax.grad(energy))(clips)
    assert (np.abs(slopes).max((0, 2, 3, 4)) > 0).all()
