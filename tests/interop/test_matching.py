"""Which encoder is found, and the line for a file that does not hold one."""

import argparse

import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.interop import from_torch, names, state_dicts, to_torch
from tests.interop.test_round_trip import model, ours


@pytest.fixture(scope="module")
def pyvrl():
    return to_torch.convert(ours(model("r3d18", width=0.125), "ctp"), names.PYVRL)


@pytest.fixture(scope="module")
def torchvision():
    encoder = ours(model("r3d18", width=0.125), "recognition")
    return to_torch.convert(encoder, names.TORCHVISION)


def refusal(tensors, family="auto"):
    with pytest.raises(UserError) as caught:
        from_torch.convert(tensors, {}, "a.pth", family)
    message = str(caught.value)
    assert message.startswith("a.pth: ") and "\n" not in message
    return message


@pytest.mark.parametrize("prefix", ["module.", "model.video.", "student.net."])
def test_any_prefix(pyvrl, torchvision, prefix):
    for state in (pyvrl, torchvision):
        renamed = {prefix + name: tensor for name, tensor in state.items()}
        found = from_torch.convert(renamed, {}, "")
        assert found.prefix.startswith(prefix.rpartition(".")[0])
        assert not found.unused and found.encoder.head_task


def test_an_encoder_alone(pyvrl):
    alone = {n.removeprefix("backbone."): t for n, t in pyvrl.items()}
    alone = {n: t for n, t in alone.items() if not n.startswith("head.")}
    found = from_torch.convert(alone, {}, "")
    assert found.prefix == "" and found.encoder.head is None


def test_not_the_momentum_encoder(pyvrl):
    """MoCo's file has two: the one that learns is called backbone."""
    wanted = {n: t for n, t in pyvrl.items() if n.startswith("backbone.")}
    other = {n.replace("backbone", "key_encoder"): t + 1 for n, t in wanted.items()}
    queue = {"queue": np.zeros((128, 9), np.float32)}
    found = from_torch.convert({**other, **wanted, **queue}, {}, "")
    assert found.prefix == "backbone." and found.encoder.head is None
    weights = sum(not n.endswith("num_batches_tracked") for n in other)
    assert found.unused == {"key_encoder": weights, "queue": 1}
    kernel = found.encoder.params["stem"]["conv"]["kernel"]
    want = wanted["backbone.stem.conv.weight"].transpose(2, 3, 4, 1, 0)
    np.testing.assert_array_equal(kernel, want)


FILES = {  # name: its contents, the prefix that is taken, those that are named
    "moco.pth.tar": (
        lambda w, o: {
            "epoch": 1,
            "state_dict": named(o, "module.encoder_k.") | named(w, "module.encoder_q."),
        },
        "state_dict.module.encoder_q.",
        ["state_dict.module.encoder_k."],
    ),
    "dino.pth": (
        lambda w, o: {
            "teacher": named(o, "backbone."),
            "student": named(w, "module.backbone."),
        },
        "student.module.backbone.",
        ["teacher.backbone."],
    ),
    "slowfast.pyth": (
        lambda w, o: {"optimizer_state": momentum(o), "model_state": w, "cfg": "a: 1"},
        "model_state.",
        [],
    ),
    "mmaction.pth": (
        lambda w, o: {
            "meta": {"epoch": 3},
            "optimizer": momentum(o),
            "state_dict": named(w, "backbone."),
        },
        "state_dict.backbone.",
        [],
    ),
    "lightning.ckpt": (
        lambda w, o: {
            "callbacks": {"ema": {"state": named(o, "net.")}},
            "loops": {"fit_loop": {"history": [{"loss": np.ones(3, np.float32)}]}},
            "optimizer_states": [momentum(o)],
            "state_dict": named(w, "net."),
        },
        "state_dict.net.",
        ["callbacks.ema.state.net."],
    ),
    "timm.pth.tar": (
        lambda w, o: {
            "state_dict_ema": o,
            "state_dict": w,
            "args": argparse.Namespace(lr=1),
        },
        "state_dict.",
        ["state_dict_ema."],
    ),
    "byol.pt": (
        lambda w, o: {"targetNetwork": o, "onlineNetwork": w},
        "onlineNetwork.",
        ["targetNetwork."],
    ),
    "pytorch_model.bin": (lambda w, o: w, "", []),
    "part of a teacher.pth": (
        lambda w, o: {"student": dict(list(o.items())[:70]), "teacher": w},
        "teacher.",
        ["student."],
    ),
    "optimizer.pth": (
        lambda w, o: {
            "ema": {n: t for n, t in o.items() if "running" not in n},
            "net": w,
        },
        "net.",
        ["ema."],
    ),
}


def named(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def momentum(state):
    buffers = {
        i: {"momentum_buffer": tensor} for i, tensor in enumerate(state.values())
    }
    return {"state": buffers, "param_groups": [{"lr": 0.1, "params": list(buffers)}]}


@pytest.mark.parametrize("file", FILES)
def test_the_best_of_all_weights_in_a_file(torchvision, tmp_path, file):
    torch = pytest.importorskip("torch", reason="writes PyTorch's files")
    make, prefix, others = FILES[file]
    contents = make(torchvision, {n: t + 1 for n, t in torchvision.items()})

    def tensors(value):
        if isinstance(value, dict):
            return {key: tensors(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return list(map(tensors, value))
        return torch.tensor(value) if isinstance(value, np.ndarray) else value

    torch.save(tensors(contents), tmp_path / file)
    assert state_dicts.is_file_name(tmp_path / file)
    read = state_dicts.read(tmp_path / file)
    found = from_torch.convert(read.tensors, read.about, file)
    assert (found.prefix, found.others) == (prefix, others)
    kernel = found.encoder.params["stage2_block1"]["conv1"]["kernel"]
    want = torchvision["layer2.0.conv1.0.weight"].transpose(2, 3, 4, 1, 0)
    np.testing.assert_array_equal(kernel, want)
    np.testing.assert_array_equal(
        found.encoder.head["classifier"]["kernel"], torchvision["fc.weight"].T
    )


def test_a_head_of_another_kind_stays_behind(pyvrl, torchvision):
    state = {n: t for n, t in pyvrl.items() if "pred_head" not in n}
    found = from_torch.convert(state, {}, "")
    assert found.encoder.head is None and found.unused == {"head": 4}
    wide = {**torchvision, "fc.weight": np.zeros((5, 99), np.float32)}
    found = from_torch.convert(wide, {}, "")
    assert found.encoder.head is None and found.unused == {"fc": 2}


def test_something_else_altogether():
    message = refusal({f"transformer.{i}.weight": np.zeros(3) for i in range(9)})
    assert "tried pyvrl, torchvision, imagenet" in message
    assert "transformer.0.weight" in message and "transformer.3" not in message
    assert "tried pyvrl" in refusal({"a.weight": np.zeros(3)}, "pyvrl")


def test_missing_unexpected_shape(pyvrl, torchvision):
    some = {n: t for n, t in pyvrl.items() if "layer3.0.bn2" not in n}
    message = refusal(some)
    assert (
        "does not fit pyvrl r3d18: 4 missing (backbone.layer3.0.bn2.weight" in message
    )
    # A deeper network has all names, and more.
    deeper = {**torchvision, "layer2.2.conv1.0.weight": np.zeros(3, np.float32)}
    assert "1 unexpected (layer2.2.conv1.0.weight)" in refusal(deeper)
    # mc3_18 has the names of r3d_18, but kernels without time in its later stages.
    kernel = torchvision["layer3.0.conv1.0.weight"][:, :, :1]
    flat = {**torchvision, "layer3.0.conv1.0.weight": kernel}
    message = refusal(flat)
    assert (
        "1 of the wrong shape (layer3.0.conv1.0.weight is (32, 16, 1, 3, 3)" in message
    )
    assert "not (32, 16, 3, 3, 3)" in message
    odd = {**torchvision, "stem.1.weight": np.zeros(11, np.float32)}
    assert "no width gives the channels" in refusal(
        {**odd, "layer1.0.conv1.1.weight": np.zeros(11, np.float32)}
    )


def test_a_family_can_be_forced(torchvision):
    message = refusal(torchvision, "imagenet")
    assert (
        "does not fit imagenet r3d18" in message and "missing (conv1.weight" in message
    )
    found = from_torch.convert(torchvision, {}, "", "torchvision")
    assert found.family.name == "torchvision"
