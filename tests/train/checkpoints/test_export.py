"""Exported encoders are read back exactly, or refused in one line."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.storage import untrusted
from ctp_jax.train.checkpoints import export, pytrees
from ctp_jax.train.state import TrainState
from tests.toy_data import toy_config
from tests.toy_task import Task


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    encoder = {"dense": {"kernel": rng.random((4, 3), np.float32)}}
    state = TrainState(
        step=7,
        params={"encoder": encoder, "head": {}},
        model_state={"batch_stats": {"norm": {"mean": np.arange(3.0)}}},
        opt_state=(),
    )
    task = Task(toy_config())
    export.export_encoder(workdir, task, state, {"steps": 6})
    export.export_encoder(workdir, task, state, {"steps": 7})  # in its place
    return workdir, state


@pytest.mark.parametrize("name", ["", "encoder"])
def test_round_trip(exported, name):
    workdir, state = exported
    encoder = export.load_encoder(workdir / name)
    kernel = encoder.params["dense"]["kernel"]
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, state.params["encoder"]["dense"]["kernel"])
    np.testing.assert_array_equal(encoder.batch_stats["norm"]["mean"], [0, 1, 2])
    assert encoder.architecture == {"name": "toy", "width": 8}
    assert encoder.provenance["steps"] == 7 and "date" in encoder.provenance
    assert sorted(p.name for p in workdir.iterdir()) == ["encoder"]


def damaged(exported, tmp_path, change):
    shutil.copytree(exported[0], tmp_path / "run")
    change(tmp_path / "run/encoder")
    with pytest.raises(UserError) as caught:
        export.load_encoder(tmp_path / "run")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_line_for_what_is_wrong(exported, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        export.load_encoder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither an exported encoder"):
        export.load_encoder(tmp_path)
    with pytest.raises(UserError, match="neither an exported encoder"):
        export.load_encoder(__file__)


def rewrite(place, change, sign=True):
    about = json.loads((place / "encoder.json").read_text())
    change(about)
    if sign:
        about["sha256"] = untrusted.json_digest(about)
    (place / "encoder.json").write_text(json.dumps(about))


def set_entry(name, value):
    return lambda about: about.update({name: value})


def write_other_values(place):
    """Intact files, which Orbax reads without an error."""
    arrays = pytrees.load(place / "arrays")
    shutil.rmtree(place / "arrays")
    pytrees.save(place / "arrays", jax.tree.map(lambda x: x + 1, arrays))


def change_silently(place):
    rewrite(place, lambda about: about["architecture"].update(width=9), sign=False)


LOST = "missing or damaged"


@pytest.mark.parametrize(
    "change,says",
    [
        (lambda place: shutil.rmtree(place / "arrays"), LOST),
        (lambda place: shutil.rmtree(place / "arrays/d"), LOST),
        (lambda place: os.mkfifo(place / "arrays/d/pipe"), LOST),
        (write_other_values, LOST),
        (lambda place: (place / "encoder.json").write_text("{"), "damaged"),
        (lambda place: rewrite(place, set_entry("format", 99)), "format 99"),
        (change_silently, "not as it was written"),
        (
            lambda place: rewrite(place, lambda about: about.pop("sha256"), sign=False),
            "sha256 is missing",
        ),
    ],
)
def test_what_is_damaged_is_said(exported, tmp_path, change, says):
    assert says in damaged(exported, tmp_path, change)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("digests"),
        lambda about: about["digests"].clear(),
        set_entry("digests", []),
        set_entry("architecture", ["r3d18"]),
        set_entry("architecture", {}),
        set_entry("head_task", None),
        set_entry("provenance", {"class_names": "walk"}),
        set_entry("provenance", {"steps": "7"}),
        set_entry("format", True),
        set_entry("format", 1),
    ],
)
def test_descriptions_of_another_shape(exported, tmp_path, change):
    damaged(exported, tmp_path, lambda place: rewrite(place, change))


def test_arrays_that_are_larger_than_their_files(tmp_path):
    """Orbax stores zeros in almost no bytes; none of these may be allocated."""
    pytrees.save(tmp_path / "arrays", {"params": np.zeros((1 << 13, 1 << 13), np.int8)})
    with pytest.raises(ValueError, match="much larger than their files"):
        pytrees.load(tmp_path / "arrays")


def test_what_is_published_names_no_folders(exported, tmp_path):
    _, state = exported
    data = {"name": "ucf101", "data_dir": "/home/ann/tfds"}
    config = {"init_from": "/home/ann/runs/ctp", "data": data}
    provenance = {"data": data, "config": config, "class_names": ["/", "~b"]}
    os.umask(umask := os.umask(0o022))
    export.export_encoder(tmp_path, Task(toy_config()), state, provenance)
    text = (tmp_path / "encoder/encoder.json").read_text()
    assert "ann" not in text and "/home" not in text
    for path in (tmp_path / "encoder").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path
    found = export.load_encoder(tmp_path).provenance
    assert found["data"] == {"name": "ucf101", "data_dir": "tfds"}
    assert found["config"]["init_from"] == "ctp"
    assert found["class_names"] == ["/", "~b"]
    ordinary = 0o777 & ~umask
    for path in (tmp_path / "encoder").rglob("*"):
        mode = ordinary if path.is_dir() else ordinary & 0o666
        assert path.stat().st_mode & 0o777 == mode, path
