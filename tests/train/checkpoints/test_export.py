"""Exported encoders are read back exactly, or refused in one line."""

import json
import shutil

import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.train.checkpoints import export
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
    with pytest.raises(UserError, match="not an exported encoder"):
        export.load_encoder(tmp_path)
    with pytest.raises(UserError, match="not an exported encoder"):
        export.load_encoder(__file__)


def test_missing_arrays(exported, tmp_path):
    message = damaged(exported, tmp_path, lambda p: shutil.rmtree(p / "arrays"))
    assert "missing or damaged" in message


def test_lost_data(exported, tmp_path):
    message = damaged(exported, tmp_path, lambda p: shutil.rmtree(p / "arrays/d"))
    assert "missing or damaged" in message


def test_broken_description(exported, tmp_path):
    def change(place):
        (place / "encoder.json").write_text("{")

    assert "damaged" in damaged(exported, tmp_path, change)


def test_a_later_format(exported, tmp_path):
    def change(place):
        about = json.loads((place / "encoder.json").read_text())
        (place / "encoder.json").write_text(json.dumps({**about, "format": 99}))

    assert "format 99" in damaged(exported, tmp_path, change)
