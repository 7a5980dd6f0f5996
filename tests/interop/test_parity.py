"""Converted networks compute what PyTorch computes. `-s` shows by how much they differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ctp_jax import models
from ctp_jax.interop import from_torch, state_dicts, to_torch
from ctp_jax.models.heads import ClassifierHead, CtPHead
from tests.models.test_heads import BOXES, SIZE, STRIDE, pooled

torch = pytest.importorskip("torch", reason="compares with PyTorch")
from tests.interop import torch_models

CHANNELS, MID = (8, 16, 32, 64), 8
FRAMES, TOLERANCE = 9, 1e-4


def saved(tmp_path, module):
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    state = state_dicts.read(tmp_path / "weights.pth")
    return from_torch.convert(state.tensors, state.about, "weights.pth")


def clip(frames=FRAMES, side=32):
    clip = np.random.default_rng(3).normal(size=(2, frames, side, side, 3))
    return np.float32(clip)


def features(encoder, x, **changed):
    """Of our network, built from what came with the weights."""
    model = ConfigDict({**encoder.architecture, **changed, "dtype": "float32"})
    model.conv = "direct"  # compiles faster than taps
    net = models.create(model)
    variables = {"params": encoder.params, "batch_stats": encoder.batch_stats}
    return jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, x)


def theirs(module, x):
    with torch.no_grad():
        return module(torch.tensor(x).permute(0, 4, 1, 2, 3))


def assert_close(name, got, want):
    """The largest difference, relative to the largest value."""
    want = want.detach().numpy()
    if want.ndim == 5:
        want = want.transpose(0, 2, 3, 4, 1)
    assert got.shape == want.shape and want.std() > 0.05
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"{name}: {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.parametrize("mid", [0, MID], ids=["r3d18", "r2plus1d18"])
def test_torchvision(tmp_path, mid):
    net = torch_models.scramble(torch_models.torchvision_classifier(CHANNELS, mid, 11))
    found = saved(tmp_path, net)
    encoder = found.encoder
    assert found.family.name == "torchvision" and not found.unused
    assert encoder.architecture["epsilon"] == 1e-5
    assert encoder.architecture["mid_per_block"] == bool(mid)
    assert encoder.architecture["channels"] == list(CHANNELS)
    assert encoder.architecture["spatial_strides"] == [1, 2, 2, 2]
    got = features(encoder, clip())
    assert_close("features", got, theirs(net.features, clip()))
    assert encoder.head_task == "recognition"
    logits = ClassifierHead(11).apply({"params": encoder.head}, got, train=False)
    assert_close("logits", logits, theirs(net, clip()))


@pytest.mark.parametrize("mid", [0, MID], ids=["r3d18", "r2plus1d18"])
def test_pyvrl_recogniser(tmp_path, mid):
    backbone = torch_models.pyvrl_encoder(CHANNELS, mid, torch_models.STRIDES)
    net = torch_models.PyvrlRecognizer(backbone, CHANNELS[-1], 7)
    found = saved(tmp_path, torch_models.scramble(net))
    encoder = found.encoder
    assert found.family.name == "pyvrl" and found.prefix == "backbone."
    assert encoder.architecture["epsilon"] == 1e-3 and not found.unused
    assert not encoder.architecture["mid_per_block"]
    assert encoder.architecture["spatial_strides"] == [1, 2, 2, 2]
    got = features(encoder, clip())
    assert_close("features", got, theirs(net.backbone, clip()))
    assert encoder.head_task == "recognition"
    logits = ClassifierHead(7).apply({"params": encoder.head}, got, train=False)
    assert_close("logits", logits, theirs(net, clip()))


@pytest.mark.parametrize("mid", [0, MID], ids=["r3d18", "r2plus1d18"])
def test_pyvrl_catch_the_patch(tmp_path, mid):
    hidden, steps = 24, 2
    backbone = torch_models.pyvrl_encoder(CHANNELS, mid)
    net = torch_models.PyvrlCtP(
        backbone,
        channels=CHANNELS[-1],
        hidden=hidden,
        steps=steps,
        size=SIZE,
        frames=FRAMES,
    )
    found = saved(tmp_path, torch_models.scramble(net))
    encoder = found.encoder
    assert encoder.head_task == "ctp" and not found.unused
    assert encoder.architecture["spatial_strides"] == [1, 2, 2, 1]
    got = features(encoder, clip(side=64))
    maps = theirs(net.backbone, clip(side=64))
    assert_close("features", got, maps)
    head = CtPHead(channels=hidden, roi_size=SIZE, stride=STRIDE)
    params = jax.tree.map(jnp.asarray, encoder.head)
    deltas = head.apply({"params": params}, got, jnp.asarray(BOXES), FRAMES)
    want = net.head(maps, pool_all)
    assert_close("deltas", deltas, want.reshape(2, 3, FRAMES, 4))


def pool_all(maps):
    """RoIAlign of the three boxes of each clip, channels first as torch has it."""
    maps = maps.detach().numpy().transpose(0, 2, 3, 1)
    regions = [pooled(maps[b], box) for b in range(2) for box in BOXES[b]]
    return torch.tensor(np.float32(regions).transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("batch_norm", [True, False])
def test_vcop(tmp_path, batch_norm):
    channels = (8, 16, 32, 32, 64, 64, 64, 64)
    net = torch_models.VcopC3D(channels, batch_norm, 11)
    found = saved(tmp_path, torch_models.scramble(net))
    encoder = found.encoder
    assert found.family.name == "vcop" and not found.unused
    assert encoder.architecture["name"] == "c3d"
    assert encoder.architecture["batch_norm"] == batch_norm
    assert encoder.architecture["width"] == 0.125
    assert encoder.architecture["epsilon"] == 1e-5
    got = features(encoder, clip(8))
    assert_close("features", got, theirs(net.features, clip(8)))
    assert encoder.head_task == "recognition"
    logits = ClassifierHead(11).apply({"params": encoder.head}, got, train=False)
    assert_close("logits", logits, theirs(net, clip(8)))


@pytest.mark.parametrize("name", ["r3d10", "r2plus1d10"])
def test_ten_layers_of_vcop(name):
    """At width 1, where the stem has the 83 middle channels of their formula."""
    channels, factorised = (64, 128, 256, 512), name == "r2plus1d10"
    net = torch_models.scramble(torch_models.VcopResNet(channels, factorised, 11))
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    found = from_torch.convert(state, {}, "")
    about = found.encoder.architecture
    assert (about["name"], about["width"], about["epsilon"]) == (name, 1.0, 1e-5)
    assert found.family.name == "vcop" and not found.unused
    back = to_torch.convert(found.encoder, found.family)
    assert list(back) == list(state)
    for key, array in state.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[key], array)
    got = features(found.encoder, clip(8))
    assert_close("features", got, theirs(net.features, clip(8)))
    logits = ClassifierHead(11).apply({"params": found.encoder.head}, got, train=False)
    assert_close("logits", logits, theirs(net, clip(8)))


def test_inflated_from_imagenet(tmp_path):
    """On equal frames the 3-D network gives what the 2-D one gives on one of them."""
    net = torch_models.scramble(torch_models.ImageResNet(CHANNELS))
    found = saved(tmp_path, net)
    assert found.family.name == "imagenet" and found.unused == {"fc": 2}
    assert found.encoder.architecture["epsilon"] == 1e-5
    assert found.encoder.head is None and found.encoder.head_task == ""
    image = clip(1)[:1]
    # Seventeen convolutions over time: the frame in the middle sees no zeros.
    still = np.repeat(image, 35, axis=1)
    got = features(found.encoder, still, temporal_strides=(1, 1, 1, 1))[:, 17:18]
    with torch.no_grad():
        want = net.features(torch.tensor(image[:, 0]).permute(0, 3, 1, 2))
    assert_close("features", got, want[:, :, None])


@pytest.mark.parametrize("name", ["tsm18", "tsm50"])
def test_shifted_from_imagenet(tmp_path, name):
    """One frame sees zeros in place of the channels of its neighbours."""
    deep = name == "tsm50"
    net = torch_models.scramble(torch_models.ImageResNet((8, 8, 8, 16), deep=deep))
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    found = from_torch.convert(state, {}, "", network="" if deep else name)
    assert found.family.name == "imagenet" and found.unused == {"fc": 2}
    about = found.encoder.architecture
    assert (about["name"], about["epsilon"]) == (name, 1e-5)
    assert about["temporal_strides"] == [1, 1, 1, 1]
    got = features(found.encoder, clip(1))
    # As if the weights of these channels were 0.
    with torch.no_grad():
        for part in net.modules():
            if isinstance(
                part, (torch_models.ImageBlock, torch_models.ImageBottleneck)
            ):
                part.conv1.weight[:, : 2 * (part.conv1.in_channels // 8)] = 0
        image = torch.tensor(clip(1)[:, 0]).permute(0, 3, 1, 2)
        want = net.features(image, pooled=True)
    assert_close("features", got, want[:, :, None])


def test_torchvision_s3d():
    net = torch_models.TorchvisionS3D(torch_models.narrow, 11)
    state = torch_models.narrow_state(torch_models.scramble(net))
    found = from_torch.convert(*state, "")
    encoder = found.encoder
    assert found.family.name == "torchvision" and not found.unused
    x = clip(16, 64)
    got = features(encoder, x)
    assert_close("features", got, theirs(net.features, x))
    assert encoder.head_task == "recognition"
    logits = ClassifierHead(11).apply({"params": encoder.head}, got, train=False)
    # torchvision averages 7x7 of 224 pixels; the same if it is as large as the features.
    net.avgpool = torch.nn.AdaptiveAvgPool3d(1)
    assert_close("logits", logits, theirs(net, x))


def test_parameters_at_full_width():
    """torchvision says how many its models have; REFERENCE of R3D-18: the paper's."""
    for variant, want in {"r3d18": 33_371_472, "r2plus1d18": 31_505_325}.items():
        mid = 45 if variant == "r2plus1d18" else 0
        with torch.device("meta"):
            net = torch_models.torchvision_classifier((64, 128, 256, 512), mid)
        assert sum(p.numel() for p in net.parameters()) == want
        tensors = {
            k: np.broadcast_to(np.float32(0), v.shape)
            for k, v in net.state_dict().items()
        }
        found = from_torch.convert(tensors, {}, "")
        assert found.encoder.architecture["width"] == 1.0
        leaves = jax.tree.leaves((found.encoder.params, found.encoder.head))
        assert sum(leaf.size for leaf in leaves) == want


def test_s3d_at_full_width():
    """torchvision says how many parameters it has, and nothing of its width."""
    with torch.device("meta"):
        net = torch_models.TorchvisionS3D()
    tensors = {
        k: np.broadcast_to(np.float32(0), v.shape) for k, v in net.state_dict().items()
    }
    encoder = from_torch.convert(tensors, {}, "").encoder
    leaves = jax.tree.leaves((encoder.params, encoder.head))
    assert sum(leaf.size for leaf in leaves) == 8_320_048
    about = encoder.architecture
    assert (about["name"], about["width"], about["epsilon"]) == ("s3d", 1.0, 1e-3)
    assert about["temporal_strides"] == [1, 1, 2, 2]
