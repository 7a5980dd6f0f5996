"""Files: what is read as what, and one line for each that cannot be."""

import argparse
import builtins
import errno
import os
import pathlib
import pickle

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ctp_jax.errors import UserError
from ctp_jax.interop import state_dicts

TENSORS = {"w": np.float32([[1, -2.5], [3, 1e-7]]), "n": np.zeros((), np.int64)}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="reads and writes PyTorch's files")


def read(path):
    return state_dicts.read(pathlib.Path(path))


def refusal(path):
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 300
    return message


def test_safetensors_need_no_torch(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_torch(name, *arguments, **named):
        if name == "torch":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    path = tmp_path / "new" / "a.safetensors"
    state_dicts.write(path, TENSORS, {"epsilon": "0.001"}, bare=True)
    state = read(path)
    assert state.about == {"epsilon": "0.001"} and set(state.tensors) == {"w", "n"}
    np.testing.assert_array_equal(state.tensors["w"], TENSORS["w"])
    (tmp_path / "a.pth").write_bytes(b"PK")
    assert "not a torch file" in refusal(tmp_path / "a.pth")
    with pytest.raises(UserError, match="pip install torch"):
        state_dicts.write(tmp_path / "b.pth", TENSORS, {}, bare=True)
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "new"]


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".pyth", ".bin"])
def test_torch_reads_what_was_written(tmp_path, torch, suffix, bare):
    path = tmp_path / f"a{suffix}"
    state_dicts.write(path, TENSORS, {"epsilon": "0.001"}, bare)
    there = torch.load(path, weights_only=True)
    assert bare or there["meta"] == {"epsilon": "0.001"}
    there = there if bare else there["state_dict"]
    prefix = "" if bare else "state_dict."
    assert list(there) == list(TENSORS) and there["n"].dtype == torch.int64
    np.testing.assert_array_equal(there["w"].numpy(), TENSORS["w"])
    state = read(path)
    assert state.about == ({} if bare else {"epsilon": "0.001"})
    np.testing.assert_array_equal(state.tensors[f"{prefix}w"], TENSORS["w"])
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_others_may_read_what_was_written(tmp_path, torch, suffix):
    path = tmp_path / f"a{suffix}"
    state_dicts.write(path, TENSORS, {}, bare=True)
    os.umask(umask := os.umask(0))
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_old_checkpoints_carry_harmless_things(tmp_path, torch):
    meta = {"epoch": 300, "time": "Mon", "accuracy": np.float64(0.5)}
    meta |= {"step": np.int64(3), "history": np.arange(3.0), "best": np.float32(1)}
    whole = {"meta": meta, "args": argparse.Namespace(lr=0.1)}
    whole["state_dict"] = {"w": torch.ones(2)}
    torch.save(whole, tmp_path / "a.pth")
    state = read(tmp_path / "a.pth")
    assert list(state.tensors) == ["state_dict.w"] and state.about == {"time": "Mon"}
    # As pickled by NumPy 1, whose core had another name.
    torch.save(whole, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "b.pth").read_bytes().replace(b"numpy._core", b"numpy.core")
    (tmp_path / "b.pth").write_bytes(old)
    assert b"numpy.core.multiarray" in old
    assert list(read(tmp_path / "b.pth").tensors) == ["state_dict.w"]


def test_half_precision_is_widened(tmp_path, torch):
    values = np.float32([1.5, -0.25, 3e-3])
    state = {"h": torch.tensor(values).half(), "b": torch.tensor(values).bfloat16()}
    torch.save({**state, "d": torch.tensor(values).double()}, tmp_path / "a.pth")
    halves = {"h": np.float16(values), "b": values.astype(ml_dtypes.bfloat16)}
    safetensors.numpy.save_file(halves, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        tensors = read(tmp_path / name).tensors
        assert {t.dtype for t in tensors.values()} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(tensors["h"], np.float32(np.float16(values)))
        want = values.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(tensors["b"], want)


def test_what_is_often_taken_for_a_checkpoint(tmp_path):
    for name, data, what in [
        ("a.bin", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("a.pth", b"<!DOCTYPE html><html>", "a web page"),
        ("a.tar", b"\x1f\x8b\x08\0", "a compressed archive"),
        ("a.pth", pickle.dumps({"w": 1}), "damaged"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert what in refusal(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "not a file" in refusal(tmp_path / "pipe.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint(tmp_path, torch, suffix):
    path = tmp_path / f"a{suffix}"
    assert "No such file" in refusal(path)
    path.write_bytes(b"")
    assert "empty" in refusal(path)
    for junk in (b"\x89PNG\r\n\x1a\n" + b"0" * 99, b"hello " * 99, b"PK\x03\x04" * 9):
        path.write_bytes(junk)
        assert "damaged or incomplete" in refusal(path)
    big = {"w": np.random.default_rng(0).normal(size=(99, 99)).astype(np.float32)}
    state_dicts.write(path, big, {}, bare=True)
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        assert "damaged or incomplete" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "is a folder, not a file" in refusal(path)


def test_a_file_of_other_things(tmp_path, torch):
    torch.save(["w", 3], tmp_path / "a.pth")
    assert "contains no state dict" in refusal(tmp_path / "a.pth")
    torch.save({"epoch": 3, "loss": {"train": 0.5}}, tmp_path / "a.pth")
    assert "contains no state dict" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_whole_or_not_at_all(tmp_path, torch, monkeypatch, suffix):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / f"a{suffix}"
    with pytest.raises(UserError, match="file: .*something else"):
        state_dicts.write(path, TENSORS, {}, bare=True)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="the disk is full: free some space"):
        state_dicts.write(path, TENSORS, {}, bare=True)
    assert path.read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == [path.name, "file"]
