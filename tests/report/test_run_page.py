"""The page of one run: it says what lies in the workdir, and needs nothing else."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ctp_jax import report, results
from ctp_jax.errors import UserError
from ctp_jax.report import read
from tests.report import make_runs
from tests.report.html_page import assert_self_contained, curve


def page_of(workdir):
    path = report.write(workdir)
    assert path == workdir.resolve() / "report.html"
    return assert_self_contained(path.read_text(encoding="utf-8"))


def test_pretraining(tmp_path):
    make_runs.pretraining(tmp_path / "run", iou=0.7)
    page = page_of(tmp_path / "run")
    assert "mean IoU 0.700 0.562 a box that stays" in page.text
    assert "could not be shown" not in page.text
    row = ["mean IoU", "0.700", "0.700", "300", "0.562", ""]
    assert page.table("metric", "last")[0] == row
    assert "300 (30.0 epochs)" in page.text
    assert "r3d18, width × 0.25" in page.text and "from scratch" in page.text
    # 300 steps of 0.1 s.
    assert "training time 30s throughput" in page.text
    assert "80 clips/s waiting for input 25.0 %" in page.text
    assert set(page.figures()) == {
        "Loss",
        "Tracking",
        "Learning rate",
        "Clips per second",
        "Time spent waiting for input",
        "Gradient norm",
        "Mean IoU per frame",
    }


def test_time_of_tasks_with_several_clips_per_video(tmp_path):
    """Twice as many clips in a step of the same length: the time is the same."""
    make_runs.write_config(tmp_path)
    make_runs.write_metrics(tmp_path, make_runs.train_lines(clips=16))
    assert "training time 30s throughput" in page_of(tmp_path).text


def assert_affine(points, x, y):
    """The points are x and y, stretched and shifted."""
    points = np.array(points)
    for drawn, given in zip(points.T, (x, y), strict=True):
        fitted = np.polyval(np.polyfit(given, drawn, 1), given)
        np.testing.assert_allclose(drawn, fitted, atol=1e-3)


def test_curves_are_the_numbers(tmp_path):
    make_runs.pretraining(tmp_path)
    drawn = page_of(tmp_path).figures()
    lines = make_runs.train_lines()
    steps = [line["step"] for line in lines]
    losses = [line["loss"] for line in lines]
    assert_affine(curve(drawn["Loss"], 0), steps, losses)
    frames = np.linspace(1.0, 0.4, 8)
    points = np.array(curve(drawn["Mean IoU per frame"], 0))
    assert_affine(points, np.arange(8), frames)
    assert points[0, 1] < points[-1, 1]  # y points down on paper: 1.0 is at the top


def test_svg_text_is_text(tmp_path):
    make_runs.pretraining(tmp_path)
    for root in page_of(tmp_path).figures().values():
        texts = ["".join(element.itertext()) for element in root.iter() if element.text]
        assert any("step" in text or "frame" in text for text in texts)
        assert root.get("viewBox") and root.get("width") is root.get("height") is None


def test_a_run_that_is_not_finished(tmp_path):
    make_runs.write_config(tmp_path, steps=0, epochs=60.0)
    make_runs.write_metrics(tmp_path, make_runs.train_lines(steps=600)[:30])
    # 300 steps are 30 epochs, so 600 were to come; each takes 0.1 s.
    text = page_of(tmp_path).text
    assert "300 of 600 (30.0 epochs)" in text
    assert "training time 30s throughput" in text


def test_recognition(tmp_path):
    make_runs.recognition(tmp_path, top1=0.75, **{"data.fraction": 0.1})
    page = page_of(tmp_path)
    # sqrt(0.75 * 0.25 / 90) = 4.564 points.
    assert "top-1 accuracy 75.0 % ± 4.6 33.3 % chance" in page.text
    assert "mean class accuracy 75.0 % 33.3 % chance" in page.text
    assert "Last evaluation, on 90 held-out videos." in page.text
    # The title, the heading, the verdict.
    assert page.text.startswith(
        f"{tmp_path.name}: recognition on toy, top-1 accuracy 75.0 % {tmp_path.name} Tells the classes apart better than chance: top-1 75.0 ± 4.6 % "
        "on 90 videos against 33.3 %."
    )
    assert page.table("class") == [
        ["jump", "100.0 %", "30 / 30"],
        ["run", "100.0 %", "30 / 30"],
        ["walk", "83.3 %", "25 / 30"],
    ]
    assert page.table("true class", "taken for") == [["walk", "run", "5", "16.7 %"]]
    assert "85 of 90 held-out videos right" in page.text
    wrong = page.table("true class, video")
    assert [row[0] for row in wrong] == [f"walk v0_0{i}.avi" for i in (4, 3, 2, 1, 0)]
    assert wrong[0] == ["walk v0_04.avi", "run then walk, jump", "54.0 %"]
    assert "10.0 % of them" in page.text
    # Both losses in one figure: the held-out one has three points.
    assert len(curve(page.figures()["Loss"], 1)) == 3
    # The lowest held-out loss is the best one: 0.8 * 100 / 300 at step 100.
    assert ["loss", "0.800", "0.267", "100", "", ""] in page.table("metric", "last")


def test_many_classes_and_predictions(tmp_path):
    make_runs.recognition(tmp_path, names=[f"class{i:02d}" for i in range(30)])
    page = page_of(tmp_path)
    worst, best, every = [t[1:] for t in page.tables if t[0][0] == "class"]
    assert worst[0] == ["class00", "83.3 %", "25 / 30"]
    assert len(worst) == len(best) == 8 and len(every) == 30
    assert "895 of 900 held-out videos right" in page.text


def test_retrieval(tmp_path):
    make_runs.retrieval(tmp_path)
    page = page_of(tmp_path)
    for k, text in ((1, "1.0 % ± 1.0"), (50, "50.0 % ± 5.0")):
        assert [f"retrieval, top {k}", text] in [
            row[:2] for row in page.table("metric", "last")
        ]
    assert (
        "worse than chance: top-1 of retrieval 1.0 ± 1.0 % on 100 videos" in page.text
    )
    assert "300 (" not in page.text
    assert page.figures() == {}


def test_nearest_neighbours_over_training(tmp_path):
    """A curve for the nearest one; the others stand in the table."""
    make_runs.write_config(tmp_path)
    lines = make_runs.eval_lines(retrieval_top1=0.2, retrieval_top5=0.6, knn_top1=0.3)
    make_runs.write_metrics(tmp_path, lines)
    page = page_of(tmp_path)
    (root,) = page.figures().values()
    for colour, last in ((0, 0.2), (1, 0.3)):
        values = [last * step / 3 for step in (1, 2, 3)]
        assert_affine(curve(root, colour), [100, 200, 300], values)
    assert "k-NN, top 1" in page.text and "retrieval, top 5" in page.text


NASTY = '<script>alert("1")</script>&amp;"\'><img src=http://x.y/z>'


def test_names_from_disk_are_escaped(tmp_path):
    workdir = tmp_path / 'a <b> & "c"'
    make_runs.recognition(workdir, names=("fine", NASTY, "third"), init_from=NASTY)
    for line in ({"kind": "eval", "step": 310, "epoch": 31, NASTY: 0.5},):
        with (workdir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    (workdir / "versions.json").write_text(json.dumps({NASTY: NASTY}))
    page = page_of(workdir)
    assert page.text.startswith('a <b> & "c"')
    assert NASTY in page.text
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and names.count("img") == 0
    assert [row[0] for row in page.table("class")].count(NASTY) == 1


def test_names_that_are_no_utf8(tmp_path):
    workdir = tmp_path / os.fsdecode(b"run\xff")
    try:
        make_runs.pretraining(workdir)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert page_of(workdir).text.startswith("run?")


def test_an_unknown_task_with_unknown_metrics(tmp_path):
    make_runs.write_config(tmp_path, task="speed.of_sound")
    lines = make_runs.eval_lines(pitch_error=0.25, odd_top3=0.5)
    make_runs.write_metrics(tmp_path, lines)
    page = page_of(tmp_path)
    assert {"pitch error 0.250", "odd top3 50.0 %"} <= {
        f"{row[0]} {row[1]}" for row in page.table("metric", "last")
    }
    # An error is best where it is lowest: a third of its last value.
    row = ["pitch error", "0.250", "0.083", "100", "", ""]
    assert row in page.table("metric", "last")


def test_no_run(tmp_path):
    make_runs.write_config(tmp_path / "run")
    with pytest.raises(UserError, match=r"give the runs in it: .*/\*/config\.json"):
        report.write(tmp_path)
    assert read.read(tmp_path / "run" / "config.json").name == "run"
    with pytest.raises(UserError, match="no such folder"):
        report.write(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no such folder"):
        report.write(tmp_path / "file")
    assert not (tmp_path / "report.html").exists()


def test_a_report_is_replaced_whole(tmp_path, monkeypatch):
    make_runs.write_config(tmp_path)
    first = report.write(tmp_path).read_bytes()
    assert report.write(tmp_path).read_bytes() == first

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="free some space"):
        report.write(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == first


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("top1", 0.8391, "83.9\u00a0%"),
        ("retrieval_top50", 1.0, "100.0\u00a0%"),
        ("class_accuracy", 0.5, "50.0\u00a0%"),
        ("iou", 0.70405, "0.704"),
        ("loss", 1.5e-5, "1.50e-05"),
        ("stop10_loss", 0.5, "0.500"),
        ("top1", None, "–"),
    ],
)
def test_numbers_as_one_reads_them(name, value, text):
    assert results.show(name, value) == text


def test_numbers_are_finite_or_none():
    given = [1, True, "x", None, float("nan"), float("inf"), 10**400, [1]]
    assert [read.finite(v) for v in given] == [1.0] + 7 * [None]


def test_neither_jax_nor_tensorflow_is_imported(tmp_path):
    make_runs.write_config(tmp_path)
    code = "import sys\nfrom ctp_jax import report\nreport.write(sys.argv[1])\n"
    code += "bad = {'jax', 'tensorflow', 'torch', 'flax'} & set(sys.modules)\n"
    code += "assert not bad, bad"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_the_command_answers_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ctp_jax.report", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error:")
