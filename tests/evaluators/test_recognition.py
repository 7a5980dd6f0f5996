"""The tables of recognition against loops in float64."""

import csv
import math

import numpy as np
import pytest
from PIL import Image

from ctp_jax.evaluators.recognition import RecognitionEvaluator
from tests.evaluators import made_features

NAMES = ("a, quoted", "bé", "c", "d", "e", "f", "g")


def make(seed=0, videos=23, clips=4, classes=7):
    """Logits (n, c, k) that are right now and then, and labels without class 5."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([k for k in range(classes) if k != 5], videos)
    # Clips of a video are alike, or their mean would always be right.
    logits = rng.normal(0, 1, (videos, 1, classes))
    logits = logits + rng.normal(0, 1, (videos, clips, classes))
    logits[np.arange(videos), :, labels] += 0.7
    return logits.astype(np.float32), labels


def run(logits, labels, size, evaluator=None, seed=0):
    """One pass in batches of a random order, with padding of NaN here and there."""
    evaluator = evaluator or RecognitionEvaluator()
    evaluator.reset()
    flat = logits.reshape(len(logits), -1)
    for batch, outputs in made_features.batches(flat, labels, size, seed):
        rows = outputs["features"].reshape(-1, *logits.shape[1:])
        evaluator.update(batch, {"logits": rows})
    return dict(evaluator.results())


def brute_force(logits, labels):
    videos, clips, classes = logits.shape
    ranks, clips_right, losses = [], 0, []
    confusion = [[0] * classes for _ in range(classes)]
    for video in range(videos):
        mean = [
            sum(float(logits[video, c, k]) for c in range(clips)) / clips
            for k in range(classes)
        ]
        own = mean[labels[video]]
        # Of equal ones the lower class comes first.
        ahead = [
            k for k, x in enumerate(mean) if x > own or (x == own and k < labels[video])
        ]
        ranks.append(len(ahead))
        confusion[labels[video]][mean.index(max(mean))] += 1
        for c in range(clips):
            row = [float(x) for x in logits[video, c]]
            clips_right += row.index(max(row)) == labels[video]
        losses.append(math.log(sum(math.exp(x - own) for x in mean)))
    per_class = [
        row[k] / sum(row) if sum(row) else math.nan for k, row in enumerate(confusion)
    ]
    occurring = [x for x in per_class if not math.isnan(x)]
    sizes = sorted((list(labels).count(k) for k in range(len(per_class))), reverse=True)
    return {
        "top1": sum(rank < 1 for rank in ranks) / videos,
        "top5": sum(rank < 5 for rank in ranks) / videos,
        "class_accuracy": sum(occurring) / len(occurring),
        "clip_top1": clips_right / (videos * clips),
        "top1_chance": sizes[0] / videos,
        "top5_chance": sum(sizes[:5]) / videos,
        "clip_top1_chance": sizes[0] / videos,
        "class_accuracy_chance": 1 / len(occurring),
        "videos": videos,
        "eval_loss": sum(losses) / videos,
        "confusion": confusion,
        "class_accuracies": per_class,
    }


@pytest.mark.parametrize("clips", [1, 4])
@pytest.mark.parametrize("size", [1, 8, 50])
def test_numbers_equal_brute_force(size, clips):
    logits, labels = make(clips=clips)
    found, expected = run(logits, labels, size), brute_force(logits, labels)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert 0 < found["top1"] < found["top5"] < 1
    assert math.isnan(found["class_accuracies"][5])
    assert found["class_accuracy"] != found["top1"]
    if clips > 1:
        assert found["clip_top1"] != found["top1"]
    np.testing.assert_array_equal(found["video_index"], range(len(labels)))
    np.testing.assert_array_equal(found["video_label"], labels)
    np.testing.assert_allclose(found["video_logits"], logits.mean(axis=1), rtol=1e-4)


def test_the_order_of_batches_does_not_matter():
    logits, labels = make(seed=1)
    first, second = (run(logits, labels, 5, seed=seed) for seed in (0, 1))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_a_pass_forgets_the_one_before():
    evaluator = RecognitionEvaluator()
    run(*make(seed=2, videos=9), 4, evaluator)
    logits, labels = make(seed=3)
    assert run(logits, labels, 4, evaluator)["top1"] == run(logits, labels, 4)["top1"]


def test_of_equal_logits_the_lower_class_wins():
    found = run(np.zeros((4, 2, 7), np.float32), np.array([0, 4, 5, 6]), 3)
    assert found["top1"] == 0.25 and found["top5"] == 0.5
    assert found["clip_top1"] == 0.25
    np.testing.assert_array_equal(found["confusion"][:, 0], [1, 0, 0, 0, 1, 1, 1])
    assert found["eval_loss"] == pytest.approx(math.log(7))


def test_clips_are_averaged_before_anything_else():
    """One sure clip outweighs two that are barely wrong; a vote would not."""
    clips = [[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    found = run(np.array([clips], np.float32), np.array([0]), 1)
    assert found["top1"] == 1 and found["clip_top1"] == pytest.approx(1 / 3)


def test_clips_with_labels_of_their_own_count_one_by_one(tmp_path):
    logits, labels = make(videos=10, clips=1, seed=4)
    expected = run(logits, labels, 10)
    records = made_features.records(np.zeros(5, int))
    evaluator = RecognitionEvaluator(records)
    batch = {
        "mask": np.float32([1, 1, 1, 0, 1, 1]),
        "index": np.array([0, 1, 2, -1, 3, 4]),
        "plan": {"label": np.insert(labels.reshape(5, 2), 3, 99, axis=0)},
    }
    pairs = np.insert(logits.reshape(5, 2, -1), 3, np.nan, axis=0)
    evaluator.update(batch, {"logits": pairs})
    found = dict(evaluator.results())
    assert found.pop("videos") == 5
    np.testing.assert_array_equal(found.pop("video_index"), np.repeat(range(5), 2))
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    evaluator.save(tmp_path)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows[:3]] == ["test/video 0"] * 2 + ["test/video 1"]
    assert [int(row["label"]) for row in rows] == labels.tolist()


def test_fewer_classes_than_five():
    found = run(*make(classes=3), 4)
    assert not {"top5", "top5_chance"} & set(found)
    assert found["confusion"].shape == (3, 3)


def test_logits_of_any_size():
    logits = np.array([[[1e4, -1e4]], [[-1e30, 1e30]]], np.float32)
    found = run(logits, np.array([0, 1]), 2)
    assert found["top1"] == 1 and found["eval_loss"] == 0


def test_predictions_are_saved_video_by_video(tmp_path):
    logits, labels = make(videos=11)
    records = made_features.records(labels, class_names=NAMES)
    evaluator = RecognitionEvaluator(records, records.class_names)
    found = run(logits, labels, 4, evaluator)
    np.testing.assert_array_equal(found["class_names"], NAMES)
    evaluator.save(tmp_path)
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [f"test/video {i}" for i in range(11)]
    right = 0
    for row, label, clips in zip(rows, labels, logits, strict=True):
        mean = clips.astype(np.float64).mean(axis=0)
        likely = sorted(range(7), key=lambda k: -mean[k])
        share = np.exp(mean[likely[0]]) / np.exp(mean).sum()
        assert row["label"] == NAMES[label] and row["predicted"] == NAMES[likely[0]]
        assert float(row["probability"]) == pytest.approx(share, abs=6e-5)
        assert row["correct"] == str(int(likely[0] == label))
        assert row["top5"].split(";") == [NAMES[k] for k in likely[:5]]
        right += int(row["correct"])
    assert right / 11 == pytest.approx(found["top1"])


@pytest.mark.parametrize("classes", [2, 40])
def test_the_picture_shows_where_videos_went(tmp_path, classes):
    """All of class 1 taken for class 0: that cell is dark, all others are bright."""
    logits = np.zeros((8, 1, classes), np.float32)
    logits[:, :, 0] = 5.0
    evaluator = RecognitionEvaluator()
    run(logits, np.ones(8, int), 3, evaluator)
    evaluator.save(tmp_path)
    with Image.open(tmp_path / "confusion.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    assert 200 < height < 2500 and height <= width < 1.4 * height
    # The darkest of the colour map, less the bar at the right that shows it, too.
    dark = (pixels[:, : int(0.8 * width)] == (8, 48, 107)).all(axis=-1)
    rows, columns = np.nonzero(dark)
    assert len(rows)
    side = np.ptp(rows) + 1
    assert side == pytest.approx(np.ptp(columns) + 1, abs=2)
    # One cell of the matrix: less than half the picture, and no more than one.
    assert side * classes < height and len(rows) > 0.7 * side**2
    if classes == 2:  # the first column of the second row
        middle = height / 2
        assert rows.mean() > middle * 0.8 and columns.mean() < width / 2


def test_without_names_classes_are_numbers(tmp_path):
    evaluator = RecognitionEvaluator()
    found = run(*make(classes=3), 4, evaluator)
    assert found["class_names"].tolist() == ["0", "1", "2"]
    evaluator.save(tmp_path)
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(lines) == 24 and lines[1].startswith("0,")
