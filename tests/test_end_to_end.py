"""The real config, shrunk, on real files: prepare, train, resume, export, draw."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import ucf_r3d
from ctp_jax import prepare, visualize
from ctp_jax.train import export, loop


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("data"))
    flags = ["--train_videos=12", "--test_videos=6", "--data_dir", directory]
    assert prepare.main(["moving_shapes", *flags]) == 0
    return directory


@pytest.fixture(scope="module", autouse=True)
def compile_once(tmp_path_factory):
    """The runs below compile the same programs: keep them between the runs."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def make_config(data_dir, steps):
    config = ucf_r3d.get_config("runlocal")
    config.data.name, config.data.data_dir = "moving_shapes", data_dir
    config.data.split, config.data.eval_split = "train", "test"
    config.steps, config.checkpoint_every, config.eval_every = steps, 0.5, 0.0
    # Half the side of the real thing, for time; everything else is `runlocal`.
    config.clip.size, config.clip.scales = 56, (56, 64, 72)
    return config


@pytest.fixture(scope="module")
def straight(data_dir, tmp_path_factory):
    """A run of four steps that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, loop.train(make_config(data_dir, 4), workdir)


def lines_of(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        for name in ("clips_per_second", "input_share", "eta"):
            line.pop(name, None)
    return lines


def test_a_run_leaves_what_it_promises(straight):
    workdir, results = straight
    assert 0 < results["iou"] < 1 and 0 < results["iou_stay_put"] < 1
    for name in ("config.json", "versions.json", "encoder/encoder.json"):
        assert json.loads((workdir / name).read_text())
    steps = [line["step"] for line in lines_of(workdir) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4]
    encoder = export.load_encoder(workdir)
    assert encoder.architecture["name"] == "r3d18"
    assert encoder.provenance["steps"] == 4


def test_a_resumed_run_ends_the_same_to_the_bit(data_dir, straight, tmp_path):
    loop.train(make_config(data_dir, 2), tmp_path)
    loop.train(make_config(data_dir, 4), tmp_path)
    ours, theirs = (export.load_encoder(path) for path in (tmp_path, straight[0]))
    for a, b in zip(
        jax.tree.leaves([ours.params, ours.batch_stats]),
        jax.tree.leaves([theirs.params, theirs.batch_stats]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    trained = [line for line in lines_of(tmp_path) if line["kind"] == "train"]
    expected = [line for line in lines_of(straight[0]) if line["kind"] == "train"]
    assert trained == expected


def test_an_exported_encoder_starts_another_run(data_dir, straight, tmp_path, capsys):
    config = make_config(data_dir, 1)
    config.init_from = str(straight[0])
    loop.train(config, tmp_path)
    assert "loaded" in capsys.readouterr().out


def test_predictions_of_a_run_are_drawn(data_dir, straight, tmp_path):
    drawn = visualize.draw(make_config(data_dir, 4), 2, str(straight[0]))
    assert drawn.clips.shape == (2, 16, 56, 56, 3)
    assert drawn.predicted.shape == drawn.boxes.shape == (2, 3, 16, 4)
    # After four steps, predictions still lie on the box of the first frame.
    first = np.broadcast_to(drawn.boxes[:, :, :1], drawn.boxes.shape)
    assert np.abs(drawn.predicted - first).max() < 5
    for path in visualize.save(drawn, tmp_path, columns=4, zoom=1):
        with Image.open(path) as image:
            image.load()
