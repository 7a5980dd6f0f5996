"""Guided Grad-CAM against closed forms, and against Captum on PyTorch's networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax import models
from ctp_jax.models import saliency
from ctp_jax.ops.boxes import share_inside
from tests.models.made_networks import model_config, random_variables

CLASSES = 5


def pool_and_classify(weights, bias):
    """Average pooling and a linear layer, as `saliency.explain` wants it."""
    return lambda features, relu: features.mean((1, 2, 3)) @ weights + bias


def explain(encode, classify, clips, classes):
    """`saliency.explain` under jit, of NumPy arrays."""
    explained = functools.partial(saliency.explain, encode, classify)
    return jax.device_get(jax.jit(explained)(clips, classes))


def test_closed_form_of_grad_cam():
    """With average pooling and a linear layer: relu(sum of W A) / (T' H' W')."""
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(3, 2, 6, 4, 3)).astype(np.float32)
    mix = rng.normal(size=(3, 7)).astype(np.float32)
    weights = rng.normal(size=(7, CLASSES)).astype(np.float32)
    classes = np.array([4, 0, 2])

    got = explain(
        lambda x, relu: relu(x[:, :, ::2, ::2] @ mix),
        pool_and_classify(weights, 0.0),
        clips,
        classes,
    )

    features = np.maximum(clips[:, :, ::2, ::2].astype(np.float64) @ mix, 0)
    scores = np.einsum("bthwc,cb->bthw", features, weights[:, classes])
    want = np.maximum(scores, 0) / scores[0].size
    assert (want > 0).any() and (want == 0).any()
    np.testing.assert_allclose(got.coarse, want, rtol=1e-5, atol=1e-7)
    # One layer of relus, all active where the features are: the slopes pass if positive.
    slope = np.maximum(weights[:, classes].T / scores[0].size, 0)
    slopes = (features > 0) * slope[:, None, None, None]
    guided = np.zeros(clips.shape)
    guided[:, :, ::2, ::2] = slopes @ mix.T.astype(np.float64)
    np.testing.assert_allclose(got.guided, guided, rtol=1e-5, atol=1e-7)


def test_guided_relu_stops_what_is_negative_forwards_or_backwards():
    x = jnp.array([-1.0, 0.0, 2.0, 2.0, 3.0])
    slopes = jnp.array([5.0, 5.0, 5.0, -5.0, 0.5])
    value, back = jax.vjp(saliency.guided_relu, x)
    np.testing.assert_array_equal(value, [0, 0, 2, 2, 3])
    np.testing.assert_array_equal(back(slopes)[0], [0, 0, 5, 0, 0.5])


def test_the_predicted_class_is_the_default():
    """And classes are per row, each its own."""
    clips = np.random.default_rng(1).normal(size=(2, 2, 2, 2, 3)).astype(np.float32)
    classify = pool_and_classify(np.eye(3), np.zeros(3))
    best = clips.mean((1, 2, 3)).argmax(-1)
    other = (best + 1) % 3
    got = explain(lambda x, relu: x, classify, clips, np.array([-1, other[1]]))
    np.testing.assert_array_equal(got.classes, [best[0], other[1]])
    want = np.maximum(clips[1, ..., other[1]] / 8, 0)
    np.testing.assert_allclose(got.grad_cam[1], want, rtol=1e-6)


@pytest.mark.parametrize("size", [(8, 24, 24), (7, 18, 20), (2, 3, 4)])
def test_upsampling_equals_torch(size):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    maps = np.random.default_rng(0).uniform(size=(2, 2, 3, 4)).astype(np.float32)
    want = torch.nn.functional.interpolate(
        torch.tensor(maps)[:, None].double(), size, mode="trilinear"
    )[:, 0]
    got = saliency.upsample(jnp.asarray(maps), size)
    np.testing.assert_allclose(got, want, rtol=1e-5)


# Captum says so whenever it is used as it should be.
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU:UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        "c3d",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("r3d18", "r2plus1d18")),
    ],
)
def test_same_numbers_as_captum(name):
    """In float64: before interpolation to 1e-6, after it to 1e-5."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    attr = pytest.importorskip("captum.attr", reason="compares with Captum")
    encoder = models.create(
        model_config(name=name, conv="direct", width=0.03, dtype="float32")
    )
    variables = random_variables(encoder)
    rng = np.random.default_rng(3)
    clips = rng.normal(size=(2, 8, 24, 36, 3))
    weights, bias = rng.normal(size=(16, CLASSES)), rng.normal(size=CLASSES)
    classes = np.array([1, 3])

    with jax.enable_x64(True):
        precise = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)

        def encode(clips, relu):
            network = encoder.clone(relu=relu, dtype=jnp.dtype("float64"))
            return network.apply(precise, clips, False)

        got = explain(encode, pool_and_classify(weights, bias), clips, classes)
    assert got.coarse.dtype == np.float64

    network = torch_classifier(encoder, variables, weights, bias)
    x = torch.tensor(clips).permute(0, 4, 1, 2, 3).requires_grad_()
    target, layer = torch.tensor(classes), network[0].stage4_block2
    assert_equal(got.logits, network(x), 1e-6)
    want = attr.LayerGradCam(network, layer).attribute(
        x, target, relu_attributions=True
    )
    assert_equal(got.coarse[..., None], want, 1e-6)
    want = attr.GuidedBackprop(network).attribute(x, target)
    assert_equal(got.guided, want, 1e-6)
    want = attr.GuidedGradCam(network, layer).attribute(
        x, target, interpolate_mode="trilinear"
    )
    assert_equal(got.guided_grad_cam, want, 1e-5)


def torch_classifier(encoder, variables, weights, bias):
    """The encoder, average pooling and a linear layer, in PyTorch."""
    import torch

    from tests.models import torch_networks as oracles

    strides = encoder.spatial_strides, encoder.temporal_strides
    if encoder.variant == "c3d":
        pools = (1, 2, 2), *((t, s, s) for s, t in list(zip(*strides))[1:])
        network = oracles.C3D((8,) * 4 + (16,) * 4, pools, encoder.batch_norm)
    else:
        network = oracles.residual(encoder.variant, (8, 8, 8, 16), *strides, 8)
    oracles.load(network, variables["params"], variables.get("batch_stats", {}))
    linear = torch.nn.Linear(*weights.shape).double()
    linear.weight.data.copy_(torch.tensor(weights.T))
    linear.bias.data.copy_(torch.tensor(bias))
    pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())
    return torch.nn.Sequential(network, pool, linear).double().eval()


def assert_equal(got, want, rtol):
    """Channels last against channels first; sums may cancel to 1e-12 of the largest."""
    want = want.detach().numpy()
    want = np.moveaxis(want, 1, -1) if want.ndim == 5 else want
    largest = np.abs(want).max()
    assert largest > 0
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-12 * largest)


@pytest.mark.slow
def test_it_finds_what_moves():
    """A square on noise, random features, and a linear classifier of its direction."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 5, 5, 3, 32)).astype(np.float32) / 15
    axes = ("NDHWC", "DHWIO", "NDHWC")

    def encode(x, relu):
        return relu(
            jax.lax.conv_general_dilated(
                x, kernel, (1, 2, 2), "SAME", dimension_numbers=axes
            )
        )

    clips, labels, _ = moving_squares(rng, 100)
    pooled = np.asarray(
        jax.jit(lambda x: encode(x, jax.nn.relu).mean((1, 2, 3)))(clips)
    )
    pooled = np.c_[pooled, np.ones(len(pooled))]
    weights = np.linalg.lstsq(pooled, np.eye(4)[labels])[0].astype(np.float32)
    clips, labels, boxes = moving_squares(rng, 10)
    classify = pool_and_classify(weights[:-1], weights[-1])
    got = explain(encode, classify, clips, np.full(10, -1))
    assert (got.classes == labels).mean() > 0.9
    area = SQUARE**2 / (32 * 32)
    guided = np.abs(got.guided_grad_cam).sum(-1)
    for maps in (got.grad_cam, guided):
        shares = map(share_inside, maps, boxes[:, None])
        assert np.mean(list(shares)) > 5 * area


SQUARE = 6


def moving_squares(rng, count):
    """Clips of squares that move right, left, down or up, directions, boxes."""
    labels = rng.integers(0, 4, count)
    clips = rng.normal(0, 0.1, (count, 8, 32, 32, 3)).astype(np.float32)
    steps = 2 * np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])[labels]
    first = rng.integers(8, 19, (count, 2)) - 3 * steps
    corners = (first[:, None] + steps[:, None] * np.arange(8)[:, None]).clip(0, 26)
    for clip, corner in zip(clips, corners, strict=True):
        for frame, (x, y) in zip(clip, corner, strict=True):
            frame[y : y + SQUARE, x : x + SQUARE] += 2
    return clips, labels, np.concatenate([corners, corners + SQUARE], -1).astype(float)
