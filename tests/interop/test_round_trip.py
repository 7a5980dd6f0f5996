"""There and back: every bit of every tensor, in both directions."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import small
from ctp_jax import config as config_lib
from ctp_jax import models
from ctp_jax.encoder import Spec, config_of
from ctp_jax.errors import UserError
from ctp_jax.interop import clip_fields, from_torch, names, to_torch
from ctp_jax.models import heads
from ctp_jax.train.checkpoints.export import Encoder

WIDTH = 0.2  # mid channels that differ between the two rules


def model(name, mid_per_block=False, width=WIDTH, batch_norm=True):
    config = ConfigDict({"name": name, "width": width, "epsilon": 1e-3})
    config.spatial_strides, config.temporal_strides = (1, 2, 2, 1), (1, 1, 2, 2)
    config.mid_per_block, config.dtype, config.conv = mid_per_block, "float32", "direct"
    config.batch_norm = batch_norm
    return config


def randoms(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


@functools.cache
def shapes(net, head):
    """Of the variables of an encoder, and of the parameters of a head."""
    clip = jnp.zeros((1, 4, 16, 16, 3))
    features = jnp.zeros((1, 2, 4, 4, net.channels()[-1]))

    def init(key):
        variables = net.init(key, clip, train=False)
        if head == "ctp":
            task = heads.CtPHead(channels=6, roi_size=3)
            return variables, task.init(key, features, jnp.zeros((1, 1, 4)), 4)
        return variables, heads.ClassifierHead(5).init(key, features, train=False)

    return jax.eval_shape(init, jax.random.key(0))


def ours(config, head=""):
    """An encoder of random arrays, as a run would export it."""
    net = models.create(config)
    variables, made = randoms(shapes(net, head))
    return Encoder(
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        architecture=net.architecture(),
        head=made["params"] if head else None,
        head_task=head,
        provenance={},
        path="runs/mine",
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    "family, name, head",
    [
        ("pyvrl", "r3d18", "ctp"),
        ("pyvrl", "r2plus1d18", "recognition"),
        ("pyvrl", "r3d18", ""),
        ("torchvision", "r3d18", "recognition"),
        ("torchvision", "r2plus1d18", ""),
        ("vcop", "c3d", "recognition"),
        ("torchvision", "s3d", "recognition"),
    ],
)
def test_ours_to_torch_and_back(family, name, head):
    kind = names.FAMILIES[family]
    encoder = ours(model(name, kind.mid_per_block and name == "r2plus1d18"), head)
    tensors = to_torch.convert(encoder, kind)
    assert all(t.flags.c_contiguous for t in tensors.values())
    back = from_torch.convert(tensors, to_torch.about(encoder, kind), "")
    assert back.family.name == family and not back.unused
    for field in ("params", "batch_stats", "head", "head_task", "architecture"):
        assert_same(getattr(back.encoder, field), getattr(encoder, field))
    if name == "s3d":  # whose width is not guessed
        with pytest.raises(UserError, match="torchvision s3d: .* of the wrong shape"):
            from_torch.convert(tensors, {}, "")
        return
    # Without what the file says of itself: the same network, the family's epsilon.
    bare = from_torch.convert(tensors, {}, "").encoder
    assert bare.architecture["channels"] == encoder.architecture["channels"]
    assert bare.architecture["epsilon"] == kind.epsilon
    assert_same(bare.params, encoder.params)


def random_state(module):
    """Bits that no transposition of another size would leave alone, and counters."""
    rng = np.random.default_rng(1)
    return {
        name: np.int64(77) + np.zeros((), np.int64)
        if name.endswith("num_batches_tracked")
        else rng.normal(size=tuple(tensor.shape)).astype(np.float32)
        for name, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize("mid", [0, 9], ids=["r3d18", "r2plus1d18"])
@pytest.mark.parametrize("kind", ["recogniser", "ctp", "torchvision"])
def test_torch_to_ours_and_back(kind, mid):
    """Names, order and bits of PyTorch's own modules."""
    pytest.importorskip("torch", reason="takes names from PyTorch's modules")
    from tests.interop import torch_models

    channels = [16, 24, 48, 104]
    encoder = torch_models.pyvrl_encoder(channels, mid)
    net = {
        "recogniser": torch_models.PyvrlRecognizer(encoder, 104, 7),
        "ctp": torch_models.PyvrlCtP(
            encoder, channels=104, hidden=6, steps=2, size=3, frames=4
        ),
        "torchvision": torch_models.torchvision_classifier(channels, mid, 7),
    }[kind]
    state = random_state(net)
    found = from_torch.convert(state, {}, "")
    assert found.encoder.architecture["width"] == WIDTH and not found.unused
    back = to_torch.convert(found.encoder, found.family)
    assert list(back) == list(state)
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            tensor = np.zeros((), np.int64)
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


@pytest.mark.parametrize("mid_per_block", [False, True])
@pytest.mark.parametrize("family", ["pyvrl", "torchvision"])
def test_mid_channels_are_told_from_the_shapes(family, mid_per_block):
    """Whatever the names: others wrote networks of their own with these."""
    encoder = ours(model("r2plus1d18", mid_per_block))
    kind = dataclasses.replace(names.FAMILIES[family], mid_per_block=mid_per_block)
    found = from_torch.convert(to_torch.convert(encoder, kind), {}, "").encoder
    assert found.architecture["mid_per_block"] == mid_per_block
    assert_same(found.params, encoder.params)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_c3d_there_and_back(batch_norm):
    """Names, order and bits of VCOP's module."""
    pytest.importorskip("torch", reason="takes names from PyTorch's modules")
    from tests.interop import torch_models

    channels = [16, 24, 48, 48, 104, 104, 104, 104]
    state = random_state(torch_models.VcopC3D(channels, batch_norm, 7))
    found = from_torch.convert(state, {}, "")
    assert found.encoder.architecture["width"] == WIDTH and not found.unused
    assert found.encoder.architecture["batch_norm"] == batch_norm
    back = to_torch.convert(found.encoder, found.family)
    assert list(back) == list(state)
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], tensor, err_msg=name)
    ours_without = ours(model("c3d", batch_norm=False))
    with pytest.raises(UserError, match="like 'c3d', but .*: use --to=vcop"):
        to_torch.convert(ours_without, names.PYVRL)


def test_what_cannot_be_expressed():
    pyvrl, torchvision = names.PYVRL, names.TORCHVISION
    per_convolution, per_block = model("r2plus1d18"), model("r2plus1d18", True)
    with pytest.raises(
        UserError, match="mid_per_block is False in the enc.*--to=pyvrl"
    ):
        to_torch.convert(ours(per_convolution), torchvision)
    with pytest.raises(UserError, match="mid_per_block is True.*--to=torchvision"):
        to_torch.convert(ours(per_block), pyvrl)
    following = ours(model("r3d18"), "ctp")
    with pytest.raises(
        UserError, match="torchvision has no head of dense1.*--encoder_only"
    ):
        to_torch.convert(following, torchvision)
    assert "fc.weight" not in to_torch.convert(following, torchvision, with_head=False)
    config = {"config": {"head": {"squeeze": False}}}
    per_step = dataclasses.replace(following, provenance=config)
    with pytest.raises(UserError, match=r"squeeze=False.*--encoder_only"):
        to_torch.convert(per_step, pyvrl)
    other = dataclasses.replace(following, head={"projection": following.head})
    with pytest.raises(UserError, match="no head of projection"):
        to_torch.convert(other, pyvrl)
    toy = dataclasses.replace(following, architecture={"name": "toy"})
    with pytest.raises(UserError, match="no encoder like 'toy'"):
        to_torch.convert(toy, pyvrl)


@pytest.mark.parametrize("width", [1.0, 0.5, 0.125, 0.1, 0.3, 0.77, 1.5, 2.0])
@pytest.mark.parametrize("name", ["r3d18", "r2plus1d18", "c3d", "tsm50"])
def test_widths(name, width):
    """Some width with the same channels; the very one where it is a plain share."""
    whole, net = (
        models.create(model(name, width=1.0)),
        models.create(model(name, width=width)),
    )
    mid = max(8, round(45 * width)) if name == "r2plus1d18" else 0
    found = from_torch.find_width(whole, net.channels(), mid)
    assert whole.clone(width=found).channels() == net.channels()
    assert mid in (0, max(8, round(45 * found)))
    if width in (1.0, 0.5, 0.125, 1.5, 2.0):
        assert found == width
    assert from_torch.find_width(net, net.channels(), mid) == width
    none = [c + 16 * (c == net.channels()[0]) for c in net.channels()]
    assert from_torch.find_width(whole, none, mid) is None


def test_a_wrong_description_is_not_believed():
    encoder = ours(model("r3d18"))
    tensors = to_torch.convert(encoder, names.PYVRL)
    for text in ("{", "[]", json.dumps({**encoder.architecture, "width": 1.0})):
        found = from_torch.convert(tensors, {"architecture": text}, "").encoder
        assert found.architecture["channels"] == encoder.architecture["channels"]


def test_a_file_knows_the_clips_of_its_encoder():
    """Small ones are trained on other clips than the paper's."""
    config = small.get_config()
    encoder = dataclasses.replace(
        ours(model("r3d18", False), "ctp"),
        provenance={"config": json.loads(json.dumps(config_lib.as_dict(config)))},
    )
    tensors = to_torch.convert(encoder, names.PYVRL)
    about = to_torch.about(encoder, names.PYVRL)
    back = from_torch.convert(tensors, about, "").encoder
    want = Spec.of(config)
    assert Spec.of(config_of(back)) == want != Spec()
    again = from_torch.convert(tensors, to_torch.about(back, names.PYVRL), "").encoder
    assert Spec.of(config_of(again)) == want
    for damaged in ("{", "3", '{"clip": 3}', '{"x": {"y": 1}}'):
        other = from_torch.convert(tensors, {**about, "clips": damaged}, "").encoder
        assert Spec.of(config_of(other)) == Spec()


@pytest.mark.parametrize(
    ("group", "field"),
    [
        (group, field)
        for group, fields in clip_fields._FIELDS.items()
        for field in fields
    ],
)
@pytest.mark.parametrize("value", [None, -1, "x", [], {}, [[1]]])
def test_clips_that_cannot_be_are_left_out(group, field, value):
    """Also of a folder that somebody else has written."""
    encoder = dataclasses.replace(
        ours(model("r3d18")), provenance={"clips": {group: {field: value}}}
    )
    assert Spec.of(config_of(encoder)) == Spec()
