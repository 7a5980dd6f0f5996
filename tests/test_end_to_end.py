"""The real configs, shrunk, on real files: prepare, train, resume, export, draw; then
recognition and retrieval with what was trained."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from configs import common, ucf_r3d
from ctp_jax import visualize
from ctp_jax.train import loop
from ctp_jax.train.checkpoints import export
from tests import compiling, forks
from tests.train.distributed.toy_processes import assert_same_run, copy_until, lines

pytestmark = pytest.mark.usefixtures("optimized")


@pytest.fixture(scope="module")
def data_dir(moving_shapes):
    return moving_shapes(12, 6)


def make_config(data_dir, steps):
    config = ucf_r3d.get_config("runlocal")
    config.data.name, config.data.data_dir = "moving_shapes", data_dir
    config.data.split, config.data.eval_split = "train", "test"
    config.steps, config.checkpoint_every, config.eval_every = steps, 0.5, 0.0
    config.keep_checkpoints = 3  # of steps 2, 3 and 4
    # For time: half the side and half the frames of the real thing, and convolutions
    # that compile soonest. test_end_to_end_c3d.py takes the usual ones.
    config.clip.size, config.clip.scales = 56, (56, 64, 72)
    config.clip.num_frames, config.model.conv = 8, "direct"
    return config


@pytest.fixture(scope="module")
def straight(data_dir, tmp_path_factory):
    """A run of four steps that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, loop.train(make_config(data_dir, 4), workdir)


def test_a_run_leaves_what_it_promises(straight):
    workdir, results = straight
    assert 0 < results["iou"] < 1 and 0 < results["iou_stay_put"] < 1
    for name in ("config.json", "versions.json", "encoder/encoder.json"):
        assert json.loads((workdir / name).read_text())
    steps = [line["step"] for line in lines(workdir) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4]
    encoder = export.load_encoder(workdir)
    assert encoder.architecture["name"] == "r3d18"
    assert encoder.provenance["steps"] == 4


def test_a_resumed_run_ends_the_same_to_the_bit(data_dir, straight, tmp_path, capsys):
    copy_until(straight[0], 2, tmp_path)
    loop.train(make_config(data_dir, 4), tmp_path)
    assert "resuming from the checkpoint of step 2/4" in capsys.readouterr().out
    assert_same_run(straight[0], tmp_path)


def test_predictions_of_a_run_are_drawn(data_dir, straight, tmp_path):
    drawn = visualize.draw(make_config(data_dir, 4), 2, str(straight[0]))
    assert drawn.clips.shape == (2, 8, 56, 56, 3)
    assert drawn.predicted.shape == drawn.boxes.shape == (2, 3, 8, 4)
    # After four steps, predictions still lie on the box of the first frame.
    first = np.broadcast_to(drawn.boxes[:, :, :1], drawn.boxes.shape)
    assert np.abs(drawn.predicted - first).max() < 5
    for path in visualize.save(drawn, tmp_path, columns=4, zoom=1):
        with Image.open(path) as image:
            image.load()


def test_the_original_is_the_same_clip_without_patches(data_dir):
    config = make_config(data_dir, 4)
    for name in ("hue_saturation", "brightness", "contrast"):
        config.colour[name] = 0.0
    drawn = visualize.draw(config, 2)
    changed = np.abs(drawn.clips.astype(int) - drawn.original).max(axis=-1)
    across, down = np.arange(56) + 0.5, (np.arange(56) + 0.5)[:, None]
    x1, y1, x2, y2 = np.moveaxis(drawn.boxes, -1, 0)[..., None, None]
    inside = (across > x1 - 1) & (across < x2 + 1) & (down > y1 - 1) & (down < y2 + 1)
    inside = inside.any(axis=1)
    assert changed[~inside].max() <= 1 and changed[inside].mean() > 5


def arguments_of(workdir, config, *flags):
    """`python -m ctp_jax.main` on the data above."""
    folder = pathlib.Path(common.__file__).parent
    return [
        "-m",
        "ctp_jax.main",
        f"--config={folder}/{config}",
        f"--workdir={workdir}",
        "--config.clip.size=56",
        "--config.clip.num_frames=8",
        "--config.model.conv=direct",
        "--config.data.name=moving_shapes",
        "--config.data.split=train",
        "--config.data.eval_split=test",
        *flags,
    ]


def flags_of_recognition(data_dir):
    return (
        f"--config.data.data_dir={data_dir}",
        "--config.clip.scales=((75,56),(86,64))",
        "--config.test.scales=((86,64),)",
        "--config.test.num_clips=2",
        "--config.num_classes=10",
        "--config.steps=2",
    )


@pytest.fixture(scope="module")
def probed(data_dir, straight, tmp_path_factory):
    """A linear probe of the pretrained encoder: its workdir, and what was printed."""
    workdir = tmp_path_factory.mktemp("probe")
    flags = flags_of_recognition(data_dir)
    start = f"--config.init_from={straight[0]}"
    arguments = arguments_of(workdir, "finetune_ucf.py:runlocal,linear", *flags, start)
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        # What is printed and written is the subject here.
        env={**os.environ, **compiling.environ()},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()
    return workdir, done.stdout


def test_recognition_starts_from_the_pretrained_encoder(probed, straight):
    workdir, out = probed
    unfolded = out.replace("\n    ", " ").splitlines()
    loaded = next(line for line in unfolded if "loaded" in line)
    assert str(straight[0]) in loaded and "params/encoder" in loaded
    assert "stays random: params/head" in out and "unused: head of task ctp" in out
    # A linear probe: not a bit of the encoder has changed, statistics included.
    ours, theirs = (export.load_encoder(path) for path in (workdir, straight[0]))
    for each in ("params", "batch_stats"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(ours, each), getattr(theirs, each)
        )
    assert ours.head_task == "recognition"
    assert ours.head["classifier"]["kernel"].shape == (64, 10)


def test_recognition_leaves_what_it_promises(probed):
    workdir, out = probed
    with (workdir / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["video"] for row in rows}) == len(rows) == 6
    for row in rows:
        assert row["video"].startswith(f"{row['label']}_")
        assert row["correct"] == str(int(row["label"] == row["predicted"]))
    (line,) = [line for line in lines(workdir) if line["kind"] == "eval"]
    right = sum(int(row["correct"]) for row in rows) / 6
    assert line["top1"] == pytest.approx(right) and line["step"] == 2
    arrays = np.load(workdir / "evaluation.npz")
    assert arrays["video_index"].tolist() == list(range(6))
    assert arrays["video_logits"].shape == (6, 10)
    with Image.open(workdir / "confusion.png") as image:
        image.load()
    assert "report.html" in out and "no report" not in out
    assert "\n  verdict      tells the classes apart " in out
    assert "class_accuracy" in (workdir / "report.html").read_text()


def test_a_finished_recogniser_is_evaluated_again(data_dir, probed, tmp_path):
    """Its head comes along: the same predictions, and nothing is trained."""
    flags = (
        *flags_of_recognition(data_dir),
        f"--config.init_from={probed[0]}",
        "--config.init_head",
        "--config.epochs=0",
        "--config.steps=0",
    )
    forks.run(arguments_of(tmp_path, "finetune_ucf.py:runlocal", *flags))
    ours, theirs = (
        np.load(path / "evaluation.npz")["video_logits"]
        for path in (tmp_path, probed[0])
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert (tmp_path / "predictions.csv").exists()
    assert not (tmp_path / "encoder").exists()


def test_retrieval_with_the_pretrained_encoder(data_dir, straight, tmp_path):
    out = forks.run(
        arguments_of(
            tmp_path,
            "retrieval.py:runlocal",
            f"--config.data.data_dir={data_dir}",
            f"--config.init_from={straight[0]}",
            "--config.clip.scales=((86,64),)",
            "--config.probe.scales=((86,64),)",
            "--config.probe.num_clips=2",
        )
    )
    assert "loaded" in out and "stays random" not in out
    (line,) = lines(tmp_path)
    assert line["kind"] == "eval" and line["step"] == 0
    ranked = [line[f"retrieval_top{k}"] for k in (1, 5, 10)]
    assert 0 <= ranked[0] <= ranked[1] <= ranked[2] <= 1
    assert 0 <= line["knn_top1"] <= line["knn_top5"] <= 1
    with (tmp_path / "neighbours.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["query"] for row in rows}) == 6
    assert not {row["query"] for row in rows} & {row["neighbour"] for row in rows}
    first = [row for row in rows if row["rank"] == "1"]
    right = sum(row["correct"] == "1" for row in first) / 6
    assert line["retrieval_top1"] == pytest.approx(right)
    for name in ("neighbours.png", "report.html"):
        assert (tmp_path / name).stat().st_size > 1000
