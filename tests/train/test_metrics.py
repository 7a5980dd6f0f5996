"""Log lines, the metrics file, TensorBoard."""

import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.train import console, metrics


def test_train_line():
    values = {
        "iou": 0.41234,
        "grad_norm": 2.0,
        "learning_rate": 0.01,
        "loss": 3.21,
        "loss_center": 2.01,
        "loss_size": 1.2,
        "clips_per_second": 12.34,
        "input_share": 0.031,
        "eta": 250.0,
    }
    assert console.train_line(150, 3000, (1.6, 30.0), values) == (
        "step  150/3000  epoch  1.6  loss 3.210 (center 2.010 size 1.200)  iou 0.412  "
        "grad 2.000  lr 0.01\n     12.3 clips/s  input  3%  eta 4m10s"
    )
    short = console.train_line(1, 9, (0.1, 1.0), {"loss": 2e-5})
    assert short == "step 1/9  epoch 0.1  loss 2.00e-05"


def device(**values):
    return {name: jnp.asarray(value) for name, value in values.items()}


def test_interval_goes_on_from_its_sums():
    losses = np.float32([0.1, 0.7, 0.3, 0.9])
    whole = metrics.Interval()
    for step, loss in enumerate(losses):
        whole.add(step, device(loss=loss, learning_rate=step, finite=1.0))
    first = metrics.Interval()
    for step in (0, 1):
        first.add(step, device(loss=losses[step], learning_rate=step, finite=1.0))
    saved = first.sums()
    first.add(9, device(loss=7.0, finite=1.0))
    first.means()  # a checkpoint may still be writing what it was given
    second = metrics.Interval(json.loads(json.dumps(saved)))
    for step in (2, 3):
        second.add(step, device(loss=losses[step], learning_rate=step, finite=1.0))
    means = whole.means()
    assert second.means() == means
    assert means["loss"] == pytest.approx(0.5) and means["learning_rate"] == 3
    assert whole.sums() == {} and whole.bad_step is None


def test_interval_names_the_first_bad_step():
    interval = metrics.Interval()
    for step, finite in ((4, 1.0), (5, 0.0), (6, 0.0)):
        interval.add(step, device(loss=1.0, finite=finite))
    interval.sums()
    assert interval.bad_step == 5


def test_file_goes_on_where_the_run_does(tmp_path):
    writer = metrics.MetricWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write("train", step, {"loss": np.float32(step), "x": np.arange(3)})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "train", "st')  # cut short
    writer = metrics.MetricWriter(tmp_path, 2)
    writer.write("eval", 3, {"iou": float("nan"), "videos": 4, "note": "text"})
    writer.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [
        {"kind": "train", "step": 1, "loss": 1.0},
        {"kind": "train", "step": 2, "loss": 2.0},
        {"kind": "eval", "step": 3, "iou": None, "videos": 4, "note": "text"},
    ]


def test_tensorboard_gets_what_the_file_has(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, directory):
            written.clear()

        def add_scalar(self, tag, value, step):
            written.append((tag, value, step))

        def close(self):
            pass

    module = types.ModuleType("tensorboard.summary")
    module.Writer = Writer
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "tensorboard.summary", module)
    for start in (0, 1):  # the second time, step 2 is made again
        writer = metrics.MetricWriter(tmp_path, start)
        for step in range(start + 1, 3):
            writer.write("train", step, {"loss": 0.5})
        writer.close()
        assert written == [("train/loss", 0.5, 1), ("train/loss", 0.5, 2)]


def test_meter(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    meter = metrics.Meter(clips_per_step=4)
    assert meter.read(10) == {}
    for _ in range(5):
        now[0] += 2.0
        meter.step(0.5)
    found = meter.read(steps_to_go=30)
    assert found == {"clips_per_second": 2.0, "input_share": 0.25, "eta": 60.0}


def test_results_stand_beside_their_baseline():
    values = {"iou": 0.6, "iou_stay_put": 0.48, "top1": 0.25, "odd_stay_put": 1.0}
    values |= {"top1_chance": 0.1, "videos": 160, "knn_videos": 160, "note": "text"}
    texts = {
        "iou": "0.600 (a box that stays: 0.480)",
        "top1": "0.250 (chance: 0.100)",
        "odd_stay_put": "1.000",
    }
    assert console.results(values) == texts
    lines = console.eval_line(30, {**values, "center_error": 1.5}, 2.0).splitlines()
    assert " ".join(" ".join(lines).split()) == (
        "eval at step 30: iou 0.600 (a box that stays: 0.480) top1 0.250 (chance: 0.100) "
        "odd_stay_put 1.000 center_error 1.500 (2.0s)"
    )
    assert len(lines) == 2 and all(len(line) <= 100 for line in lines)
