"""Files of PyTorch: every tensor is read, nothing is run, no claim is believed."""

import argparse
import collections
import os
import pathlib
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from tests.interop.test_state_dicts import read, refusal


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="writes PyTorch's files")


def everything(torch) -> dict:
    """What training code puts into its files, with all kinds of tensors."""
    base = torch.arange(24.0).reshape(2, 3, 4)
    weights = collections.OrderedDict(
        whole=base,
        view=base[:, 1:].transpose(0, 2),
        parameter=torch.nn.Parameter(torch.randn(3)),
        counter=torch.tensor(7),
        empty=torch.zeros(0, 3),
        bools=torch.tensor([True, False]),
        expanded=torch.ones(1).expand(3),
    )
    weights._metadata = {"": {"version": 1}}
    adam = {"step": torch.tensor(3.0), "exp_avg": base + 1}
    return {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/x")),
        "history": [{"loss": torch.ones(2), "top1": np.float64(0.5)}, {"when": "now"}],
        "optimizer": {"state": {0: adam}, "param_groups": [{"params": [0, 1]}]},
        "models": {"student": {"net": weights}, "teacher": (weights["whole"] * 2,)},
        "sets": (
            {1, 2},
            frozenset("ab"),
            bytearray(b"x"),
            torch.Size([2]),
            torch.float16,
        ),
    }


def flat(torch, value, prefix="") -> dict:
    """The tensors in nested containers, by dotted names."""
    if isinstance(value, torch.Tensor):
        return {prefix[:-1]: value.detach()}
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, (list, tuple)) else items
    found = {}
    for key, inner in items:
        found |= flat(torch, inner, f"{prefix}{key}.")
    return found


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_tensor_at_any_depth(tmp_path, torch, zipped, protocol):
    whole = everything(torch)
    torch.save(
        whole,
        tmp_path / "a.pth",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    tensors, want = read(tmp_path / "a.pth").tensors, flat(torch, whole)
    assert list(tensors) == list(want) and "models.student.net.view" in want
    for name, tensor in want.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())
        assert tensors[name].dtype == tensor.numpy().dtype


def test_torchscript_is_read_and_not_run(tmp_path, torch):
    """A program that PyTorch wrote has the tensors of its module under their names."""
    layers = [torch.nn.Conv3d(2, 3, 3), torch.nn.BatchNorm3d(3)]
    net = torch.nn.Sequential(
        *layers, torch.nn.Sequential(torch.nn.Linear(2, 2))
    ).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is about to give TorchScript up
        torch.jit.trace(net[:2], torch.zeros(1, 2, 3, 3, 3)).save(tmp_path / "b.pt")
        torch.jit.script(net).save(tmp_path / "a.pt")
    for file, module in (("a.pt", net), ("b.pt", net[:2])):
        tensors, want = read(tmp_path / file).tensors, module.state_dict()
        assert set(tensors) == set(want)
        for name, tensor in want.items():
            np.testing.assert_array_equal(tensors[name], tensor.numpy())


class Anything:
    pass


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_run(tmp_path, torch, zipped):
    path, mark = tmp_path / "a.pth", tmp_path / "mark"
    for thing, name in [
        (Anything(), "tests.interop.test_torch_files.Anything"),
        (Call(os.mkdir, str(mark)), "posix.mkdir"),
        (Call(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (Call(getattr, "", "upper"), "builtins.getattr"),
        (torch.nn.Sequential(), "torch.nn.modules.container.Sequential"),
        (Call(torch.load, str(mark)), "torch.serialization.load"),
        (Call(np.load, str(mark)), "numpy.load"),
    ]:
        whole = {"net": thing, "w": torch.ones(2)}
        torch.save(whole, path, _use_new_zipfile_serialization=zipped)
        assert f"reading it would run code ({name})" in refusal(path)
    assert not mark.exists()


def archive(path, pickled: bytes, **options) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("archive/data.pkl", pickled)
    return path


CLAIMS = {  # pickles of a few bytes, and what they would have their reader do
    "reserve 8 GB": b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b"abc.",
    "call bytearray(2 GB)": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "call torch.Tensor(2 GB)": b"\x80\x02ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R.",
    "grow a memo to 2 GB": b"\x80\x02]r\xff\xff\xff\x7f.",
    "read text of 4 GB": b"\x80\x02X\xff\xff\xff\xffabc.",
    "nest lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "hash a nested key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_small_files_that_claim_much(tmp_path, claim):
    path = archive(tmp_path / "a.pth", CLAIMS[claim])
    tracemalloc.start()
    refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 64e6
    tracemalloc.stop()


def test_tensors_that_are_larger_than_their_file(tmp_path, torch):
    path = tmp_path / "a.pth"
    for shape in ((10**9,), (30_000, 30_000)):
        torch.save({"w": torch.zeros(1).expand(shape)}, path)
        assert "tensors would be many times larger than the file" in refusal(path)
    torch.save({"w": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in contents.items():
            file.writestr(name, data)
    assert path.stat().st_size < 1e5 and "is compressed" in refusal(path)
    # A storage that is smaller than the tensor that it should hold.
    pickled = contents["a/data.pkl"].replace(
        struct.pack("<i", 10**6), b"\x42\x42\x0f\0"
    )
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (contents | {"a/data.pkl": pickled}).items():
            file.writestr(name, data)
    assert pickled != contents["a/data.pkl"] and "damaged" in refusal(path)
