"""Workdirs in which something is missing, cut or nonsense still give a page."""

import json
import shutil

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from ctp_jax import report
from ctp_jax.report import curves, figures, images
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
    (workdir / "encoder").mkdir()
    about = {"architecture": {"name": "r3d18", "width": 1.0}, "provenance": {}}
    (workdir / "encoder" / "encoder.json").write_text(json.dumps(about))
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    frames = [Image.fromarray(frame) for frame in noise]
    for name in ("game.png", "confusion.png", "neighbours.png"):
        frames[0].save(workdir / name)
    frames[0].save(workdir / "game.gif", save_all=True, append_images=frames[1:])
    return workdir


FILES = ["config.json", "versions.json", "metrics.jsonl", "evaluation.npz"]
FILES += ["predictions.csv", "neighbours.csv", "encoder/encoder.json"]
FILES += ["game.png", "game.gif", "confusion.png", "neighbours.png"]


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves the figures empty, which take most of the time."""

    def draw(title, lines, **_):
        empty = Markup('<svg role="img" aria-label="{}"></svg>').format(title)
        return figures.Drawing(title, empty, "", tuple(lines))

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
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)  # or it would be no run
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
    assert page.table("metric", "last")[0] == ["mean IoU", "–", "", ""]


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


def test_classes_without_videos_are_counted(tmp_path):
    make_runs.write_config(tmp_path)
    counts = np.array([[2, 0, 0], [0, 0, 0], [1, 0, 3]])
    np.savez(tmp_path / "evaluation.npz", confusion=counts)
    page = page_of(tmp_path)
    assert page.table("class") == [
        ["class 0", "100.0 %", "2 / 2"],
        ["class 2", "75.0 %", "3 / 4"],
    ]
    assert "1 class has no held-out videos" in page.text


def test_large_pictures_are_made_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 2400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 7_000_000
    picture = images.load(tmp_path / "a.png")
    assert len(picture.source) < 4 / 3 * images.MAX_BYTES + 100
    assert picture.width / picture.height == pytest.approx(2.4, rel=0.01)
    assert picture.note == "reduced"


def test_of_a_large_animation_the_first_frame_is_left(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 600, 700), np.uint8)
    frames = [Image.fromarray(frame) for frame in noise]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (tmp_path / "a.gif").stat().st_size > images.MAX_GIF_BYTES
    picture = images.load(tmp_path / "a.gif")
    assert picture.source.startswith("data:image/jpeg")
    assert "first frame" in picture.note and picture.width == 700
