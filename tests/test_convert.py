"""The command converts both ways, and reports every mistake in one line."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from ctp_jax import convert
from ctp_jax.errors import UserError
from ctp_jax.interop import names, to_torch
from ctp_jax.train.checkpoints import export
from tests.commands import call
from tests.interop.test_round_trip import model, ours


def run(capsys, *arguments):
    """Runs the command in this process; returns the lines that it prints."""
    call(convert, *arguments)
    return capsys.readouterr().out.splitlines()


def refusal(capsys, *arguments):
    with pytest.raises(UserError) as caught:
        run(capsys, *arguments)
    assert "\n" not in str(caught.value) and not capsys.readouterr().out
    return str(caught.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """torchvision's r2plus1d_18 with a classifier, narrow, as .safetensors."""
    folder = tmp_path_factory.mktemp("files")
    encoder = ours(model("r2plus1d18", mid_per_block=True), "recognition")
    tensors = to_torch.convert(encoder, names.TORCHVISION)
    tensors["extra.weight"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(tensors, folder / "tv.safetensors")
    return folder


@pytest.fixture(scope="module")
def imported(files):
    convert.import_file(files / "tv.safetensors", files / "encoder")
    return files / "encoder"


def test_import_says_what_was_found_and_how_to_go_on(files, tmp_path, capsys):
    target = tmp_path / "new" / "encoder"
    out = run(capsys, files / "tv.safetensors", target)
    said = "\n".join(out)
    assert "torchvision r2plus1d18, width 0.2, epsilon 1e-05" in said
    assert "head: recognition, 5 classes, 525 parameters" in said
    assert "unused tensors: extra (1)" in said
    for flag in (
        f"init_from={target}",
        "model.name=r2plus1d18",
        "model.width=0.2",
        "model.epsilon=1e-05",
        "model.mid_per_block=True",
    ):
        assert f"--config.{flag}" in out[-1]
    encoder = export.load_encoder(target)
    assert encoder.head["classifier"]["kernel"].shape == (104, 5)
    assert encoder.provenance["source"] == "tv.safetensors"
    assert encoder.provenance["family"] == "torchvision"
    assert len(encoder.provenance["sha256"]) == 64
    assert str(files) not in json.dumps(encoder.provenance)


def test_export_and_import_again(imported, tmp_path, capsys):
    path = tmp_path / "back.safetensors"
    out = run(capsys, imported, path, "--to=torchvision")
    assert "names of torchvision" in out[-1]
    first = export.load_encoder(imported)
    with safetensors.safe_open(path, "np") as file:
        about = file.metadata()
        kernel = file.get_tensor("fc.weight")
    assert about["family"] == "torchvision" and about["epsilon"] == "1e-05"
    np.testing.assert_array_equal(kernel, first.head["classifier"]["kernel"].T)
    run(capsys, path, tmp_path / "again", "--encoder_only")
    again = export.load_encoder(tmp_path / "again")
    assert again.architecture == first.architecture
    assert again.head is None and again.head_task == ""
    block = ("stage3_block1", "conv2", "spatial", "kernel")
    a, b = first.params, again.params
    for key in block:
        a, b = a[key], b[key]
    np.testing.assert_array_equal(a, b)


def test_s3d_by_its_usual_names_and_with_its_strides(tmp_path, capsys):
    config = model("s3d")
    config.temporal_strides = (1, 1, 2, 2)
    export.write_encoder(tmp_path / "run/encoder", ours(config, "recognition"))
    path = tmp_path / "s3d.safetensors"
    assert "names of torchvision" in run(capsys, tmp_path / "run", path)[-1]
    with safetensors.safe_open(path, "np") as file:
        assert file.get_tensor("classifier.1.weight").shape[2:] == (1, 1, 1)
    said = run(capsys, path, tmp_path / "again", "--network=s3d")
    assert "torchvision s3d, width 0.2, epsilon 0.001" in said[0]
    assert "'--config.model.temporal_strides=[1, 1, 2, 2]'" in said[-1] or (
        "--config.model.temporal_strides='[1, 1, 2, 2]'" in said[-1]
    )
    what = refusal(capsys, path, tmp_path / "other", "--network=tsm18")
    assert "no known encoder" in what and "tsm18" in what


def test_differences_are_noted(tmp_path, capsys):
    pytest.importorskip("torch", reason="writes PyTorch's files")
    export.write_encoder(tmp_path / "run/encoder", ours(model("r3d18"), "ctp"))
    path = tmp_path / "a.pth"
    flags = ("--to=torchvision", "--encoder_only")
    said = "\n".join(run(capsys, tmp_path / "run", path, *flags))
    assert "eps is 1e-05" in said and "set it to 0.001" in said
    assert "width 1.0" in said and "head: none" in said
    out = run(capsys, tmp_path / "run", path, "--overwrite")
    assert "note: BatchNorm" not in "\n".join(out)
    assert "head: ctp, 4 boxes" in out[1] and "names of pyvrl" in out[-1]


def test_targets_are_not_overwritten_by_mistake(files, imported, tmp_path, capsys):
    source = files / "tv.safetensors"
    assert "exists: name another or replace it with --overwrite" in refusal(
        capsys, source, imported
    )
    run(capsys, source, imported, "--overwrite")
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "one.txt").write_text("mine")
    message = refusal(capsys, source, precious, "--overwrite")
    assert "something else" in message and (precious / "one.txt").exists()
    taken = tmp_path / "a.safetensors"
    taken.write_text("before")
    to = "--to=torchvision"
    assert "exists: name another or replace it with --overwrite" in refusal(
        capsys, imported, taken, to
    )
    assert taken.read_text() == "before"
    run(capsys, imported, taken, to, "--overwrite")
    folder = tmp_path / "b.safetensors"
    folder.mkdir()
    message = refusal(capsys, imported, folder, to, "--overwrite")
    assert "something else" in message
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors", "photos"]


def test_mistakes(files, imported, tmp_path, capsys):
    source, new = files / "tv.safetensors", tmp_path / "new"
    assert "no such file or folder" in refusal(capsys, tmp_path / "nowhere", new)
    assert "must be a folder if the source is a file" in refusal(
        capsys, source, tmp_path / "b.pth"
    )
    assert "must be a file if the source is a folder" in refusal(capsys, imported, new)
    assert "for folders" in refusal(capsys, source, new, "--to=pyvrl")
    message = refusal(capsys, imported, tmp_path / "a.safetensors", "--from=pyvrl")
    assert "--from=pyvrl: only for files" in message
    assert "neither an exported encoder" in refusal(
        capsys, tmp_path, tmp_path / "a.pth"
    )
    message = refusal(capsys, imported, tmp_path / "a.safetensors")
    assert "use --to=torchvision" in message
    message = refusal(capsys, source, new, "--from=imagenet")
    assert "does not fit imagenet r3d18" in message
    assert "--from=caffe: value should be one of <auto|pyvrl" in refusal(
        capsys, source, new, "--from=caffe"
    )
    assert "1 paths: give SOURCE and TARGET" in refusal(capsys, source)
    image = tmp_path / "cat.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 99)
    assert "cat.png" in refusal(capsys, image, new)
    assert os.listdir(tmp_path) == ["cat.png"]


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"name": "r2plus1d18"}},
        {"architecture": {"name": "nothing"}},
        {"params": {}},
        {"params": {"stem": {"conv": {"spatial": {"kernel": np.zeros(3)}}}}},
        {"head": {"classifier": {}}},
        {"head": {"classifier": {"bias": {"x": np.zeros(2)}, "kernel": np.zeros(2)}}},
    ],
)
def test_intact_encoders_of_other_code(imported, tmp_path, capsys, change):
    encoder = dataclasses.replace(export.load_encoder(imported), **change)
    export.write_encoder(tmp_path / "theirs", encoder)
    refusal(capsys, tmp_path / "theirs", tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == ["theirs"]


def test_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ctp_jax.convert", tmp_path / "a.pth", tmp_path / "b"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == f"error: {tmp_path}/a.pth: no such file or folder\n"
