"""Workdirs in which something is missing, cut or nonsense still give a page."""

import base64
import io
import json
import os
import shutil
import socket

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from ctp_jax import report
from ctp_jax.report import curves, figures, page
from tests.report import make_runs
from tests.report.html_page import assert_self_contained


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workdir with everything that any task leaves behind."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    make_runs.pretraining(workdir)
    arrays = dict(np.load(workdir / "evaluation.npz"))
    make_runs.retrieval(workdir)
    make_runs.recognition(workdir)
    np.savez(
        workdir / "evaluation.npz", **arrays | dict(np.load(workdir / "evaluation.npz"))
    )
    (workdir / "versions.json").write_text('{"ctp_jax": "0.1.0", "commit": ""}')
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    frames = [Image.fromarray(frame) for frame in noise]
    for name in ("game.png", "confusion.png", "neighbours.png"):
        frames[0].save(workdir / name)
    frames[0].save(workdir / "game.gif", save_all=True, append_images=frames[1:])
    return workdir


FILES = ["config.json", "versions.json", "metrics.jsonl", "evaluation.npz"]
FILES += ["predictions.csv"]
FILES += ["game.png", "game.gif", "confusion.png", "neighbours.png"]


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves the figures empty, which take most of the time."""

    def draw(title, lines, **_):
        empty = Markup('<svg role="img" aria-label="{}"></svg>').format(title)
        return figures.Drawing(title, empty, "", [])

    monkeypatch.setattr(curves, "draw", draw)


def page_of(workdir):
    return assert_self_contained(report.write(workdir).read_text(encoding="utf-8"))


def test_the_whole_has_nothing_to_say(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    page = page_of(tmp_path / "run")
    assert "could not be shown" not in page.text
    assert [tag for tag, _ in page.tags].count("img") == 4


@pytest.mark.parametrize("name", FILES)
def test_any_one_part_may_be_missing(whole, tmp_path, name, undrawn):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    assert "could not be shown" not in page_of(tmp_path / "run").text


@pytest.mark.parametrize("name", FILES)
def test_any_one_part_may_be_alone(whole, tmp_path, name, undrawn):
    (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)  # or it is no run
    (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
    shutil.copy(whole / name, tmp_path / "run" / name)
    assert "could not be shown" not in page_of(tmp_path / "run").text


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "folder"])
def test_any_one_part_may_be_damaged(whole, tmp_path, name, damage, undrawn):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / name
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        noise = np.random.default_rng(1).bytes(500)
        # The text files may be cut between two lines, which nobody can tell.
        cut = data[: int(0.6 * len(data))].rstrip(b"\r\n")
        path.write_bytes({"cut": cut, "empty": b"", "noise": noise}[damage])
    page = page_of(tmp_path / "run")
    silent = name == "metrics.jsonl" and damage == "empty"
    silent |= name.endswith(".csv") and damage == "cut"  # one row less
    assert ("could not be shown" in page.text) == (not silent)
    assert silent or name in page.text.partition("could not be shown")[2]
    # The rest stands.
    if name != "metrics.jsonl":
        assert "top-1 accuracy 75.0 %" in page.text
    if name != "config.json":
        assert "Configuration" in page.text


def test_metrics_with_nulls_and_nonsense(tmp_path):
    make_runs.write_config(tmp_path)
    lines = [
        '{"kind": "train", "step": 10, "epoch": 1, "loss": null, "learning_rate": 0.1}',
        '{"kind": "train", "step": 20, "epoch": 2, "loss": 0.5, "learning_rate": 0.1}',
        '{"kind": "train", "step": 30, "epoch": 3, "loss": NaN, "learning_rate": 0.1}',
        '{"kind": "eval", "step": 20, "epoch": 2, "iou": 0.5, "why": "text"}',
        '{"kind": "eval", "step": 30, "epoch": 3, "iou": null}',
        '{"kind": "eval", "step": "x"}',
        "[1, 2]",
        "17",
        '{"kind": "train", "step": 40, "los',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    page = page_of(tmp_path)
    assert "4 of 9 lines left out" in page.text
    assert page.table("metric", "last")[0] == ["mean IoU", "–", "", "", "", ""]


def test_config_fields_of_other_shapes(tmp_path):
    config = {"data": "ucf", "model": ["r3d18"], "seed": None, "steps": "many"}
    config |= {"init_from": 3, "freeze": {"a": []}, "batch_size": {}, "epochs": -1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    make_runs.write_metrics(tmp_path, make_runs.train_lines())
    page = page_of(tmp_path)
    assert "ucf" in page.text and "Loss" in page.figures()


@pytest.mark.parametrize(
    "arrays",
    [
        {"confusion": np.zeros((0, 0)), "class_names": np.zeros(0, str)},
        {"confusion": np.zeros((3, 3), int), "class_names": np.array(["a", "b", "c"])},
        {"confusion": np.ones((2, 3)), "class_names": np.array(["a"])},
        {"confusion": np.eye(2, dtype=int), "class_accuracies": np.array([np.nan, 1])},
        {"iou_per_frame": np.zeros((2, 2)), "x_per_frame": np.array(["a"])},
        {"iou_per_frame": np.ones(3), "iou_per_frame_stay_put": np.ones(2)},
        {"iou_per_frame": np.full(3, np.nan)},
        {"iou_per_frame": np.array([1e300, -1e300, 0])},
    ],
)
def test_arrays_of_other_shapes(tmp_path, arrays):
    make_runs.write_config(tmp_path)
    np.savez(tmp_path / "evaluation.npz", **arrays)
    page_of(tmp_path)


def test_classes_without_videos_are_left_out(tmp_path):
    make_runs.write_config(tmp_path)
    counts = np.array([[2, 0, 0], [0, 0, 0], [1, 0, 3]])
    np.savez(tmp_path / "evaluation.npz", confusion=counts)
    assert page_of(tmp_path).table("class") == [
        ["0", "100.0 %", "2 / 2"],
        ["2", "75.0 %", "3 / 4"],
    ]


def test_pictures_stand_in_the_page(tmp_path):
    make_runs.write_config(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    for name in ("neighbours.png", "other.png"):
        Image.fromarray(noise).save(tmp_path / name)
    found = [attributes for tag, attributes in page_of(tmp_path).tags if tag == "img"]
    for attributes in found:
        kind, data = attributes["src"].split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            np.testing.assert_array_equal(np.asarray(image), noise)
        assert (attributes["width"], attributes["height"]) == ("50", "30")
    own = "Held-out videos and the training videos nearest to them"
    assert found[1]["alt"] == "other.png" and found[0]["alt"].startswith(own)


def test_a_picture_that_is_too_large_is_named(tmp_path, monkeypatch):
    make_runs.write_config(tmp_path)
    monkeypatch.setattr(page, "_MAX_BYTES", 10)
    Image.new("RGB", (50, 50)).save(tmp_path / "game.png")
    text = page_of(tmp_path).text
    assert "game.png: is larger than" in text.partition("could not be shown")[2]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_nothing_that_is_no_file_is_waited_for(whole, tmp_path, name, kind, undrawn):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    text = page_of(tmp_path / "run").text.partition("could not be shown")[2]
    assert f"{name}: is not a file" in text


def test_a_picture_that_is_large_when_decoded(tmp_path):
    """73 million pixels in 72 kB."""
    make_runs.write_config(tmp_path)
    Image.new("1", (8600, 8600)).save(tmp_path / "game.png")
    text = page_of(tmp_path).text
    assert "game.png: more than 50,000,000 pixels" in text


def test_the_page_names_no_folders_users_or_machines(whole, tmp_path, undrawn):
    """Neither where the run is, nor what it read, nor where an error was met."""
    workdir = tmp_path / "home" / "ann" / "run"
    shutil.copytree(whole, workdir)
    fields = {"data.data_dir": "/home/ann/tfds", "init_from": "/home/ann/runs/ctp"}
    make_runs.write_config(workdir, **fields, **{"data.name": "ucf101/one:2.0.0"})
    for name in ("versions.json", "evaluation.npz", "predictions.csv", "game.png"):
        (workdir / name).unlink()
        (workdir / name).mkdir()
    other = tmp_path / "home" / "ann" / "other"
    shutil.copytree(whole, other)
    make_runs.write_config(other, **fields, seed=1)
    compared = tmp_path / "comparison.html"
    report.compare([workdir, other], compared)
    for path in (report.write(workdir), compared):
        text = path.read_text()
        assert "/home" not in text and "ann" not in text.split(), path
        assert str(tmp_path) not in text and socket.gethostname() + " " not in text
        assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    text = page_of(workdir).text
    assert "tfds" in text and "ctp" in text and "ucf101/one:2.0.0" in text
    assert not [path for path in workdir.iterdir() if "incomplete" in path.name]


def _umask():
    os.umask(found := os.umask(0))
    return found
