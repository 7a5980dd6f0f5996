"""Accuracy of a classifier of videos: the ten-clip test and its tables.

Symbols: n videos, c clips per video, k classes.
"""

import csv
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, labels
from ctp_jax.evaluators.base import Evaluator, Outputs, Subject
from ctp_jax.metrics_file import CHANCE, VIDEOS

LOOKS_AT = "predictions"

_TOP = 5


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis, float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def ranking(logits: np.ndarray) -> np.ndarray:
    """Classes by falling logit, (n, k); those of equal logits by their number."""
    return np.argsort(-logits, axis=-1, kind="stable")


def count_confusions(
    label: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
    """How many videos of class i were predicted as class j: int64 (k, k).

    Args:
        label: true classes, int (n,).
        predicted: predicted classes, int (n,).
        num_classes: k.
    """
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (label, predicted), 1)
    return confusion


class RecognitionEvaluator(Evaluator):
    """Reads `outputs['logits']` (n, c, k) and the labels of the batch.

    The logits of a video's clips are averaged, unless each clip has a label of its own,
    (n, c): then every clip stands for a video below. Then:

    Yields:
        top1, top5: share of videos whose class has the largest logit, or one of the five
            largest; top5 where there are more than five classes.
        class_accuracy: top1 of each class, averaged over the classes that occur.
        clip_top1: share of single clips that are right.
        *_chance: the same for the class or classes with the most videos, always.
        videos: n.
        eval_loss: cross-entropy of the averaged logits.
        confusion: int64 (k, k), [true, predicted]; class_names; class_accuracies (k,),
            NaN where a class does not occur.
        video_index, video_label (n,) and video_logits (n, k), in the order of the split.
    """

    def __init__(self, records: Any = None, class_names: Sequence[str] = ()):
        """Keeps names for tables and pictures; without them, numbers are used.

        Args:
            records: `ctp_jax.data.records.Records` of the split, for names of videos.
            class_names: of the labels.
        """
        self._records, self._class_names = records, tuple(class_names)
        self.reset()

    def reset(self) -> None:
        self._index: list[np.ndarray] = []
        self._label: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._clips_right = 0
        self._clips = 0

    def update(self, batch: Batch, outputs: Outputs) -> None:
        real = np.asarray(batch["mask"]) > 0
        logits = np.asarray(outputs["logits"], np.float32)[real]
        label, index = np.asarray(labels(batch))[real], np.asarray(batch["index"])[real]
        if label.ndim == 2:
            index = np.repeat(index, label.shape[1])
            label = label.reshape(-1)
            logits = logits.reshape(len(label), 1, logits.shape[-1])
        self._index.append(index)
        self._label.append(label)
        self._logits.append(logits.mean(axis=1))
        self._clips_right += int((logits.argmax(-1) == label[:, None]).sum())
        self._clips += logits.shape[0] * logits.shape[1]

    def results(self) -> Iterator[tuple[str, Any]]:
        index, label, logits = self._all()
        order = ranking(logits)
        num_classes = logits.shape[1]
        confusion = count_confusions(label, order[:, 0], num_classes)
        counts = confusion.sum(axis=1)
        right = np.diag(confusion).astype(np.float64)
        accuracies = np.full(num_classes, np.nan)
        np.divide(right, counts, out=accuracies, where=counts > 0)
        log_probability = log_softmax(logits)[np.arange(len(label)), label]
        largest = np.sort(counts)[::-1] / len(label)
        yield "top1", float((order[:, 0] == label).mean())
        if num_classes > _TOP:
            yield "top5", float((order[:, :_TOP] == label[:, None]).any(axis=1).mean())
            yield f"top5{CHANCE}", float(largest[:_TOP].sum())
        yield "class_accuracy", float(np.nanmean(accuracies))
        yield "clip_top1", self._clips_right / self._clips
        for name in ("top1", "clip_top1"):
            yield f"{name}{CHANCE}", float(largest[0])
        yield f"class_accuracy{CHANCE}", 1 / int((counts > 0).sum())
        yield VIDEOS, len(np.unique(index))
        yield "eval_loss", float(-log_probability.mean())
        yield "confusion", confusion
        yield "class_names", np.array(self._names(num_classes))
        yield "class_accuracies", accuracies
        yield "video_index", index
        yield "video_label", label
        yield "video_logits", logits

    def _all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = (self._index, self._label, self._logits)
        index, label, logits = (np.concatenate(part) for part in parts)
        rows = np.argsort(index, kind="stable")
        return index[rows], label[rows], logits[rows]

    def _names(self, num_classes: int) -> list[str]:
        return [*self._class_names] or [str(number) for number in range(num_classes)]

    def save(self, directory: pathlib.Path) -> None:
        """Writes predictions.csv, a line per video, and confusion.png."""
        index, label, logits = self._all()
        names = self._names(logits.shape[1])
        order = ranking(logits)
        with (directory / "predictions.csv").open(
            "w", newline="", encoding="utf-8"
        ) as file:
            writer = csv.writer(file)
            header = ("video", "label", "predicted", "probability", "correct", "top5")
            writer.writerow(header)
            rows = zip(index, label, order, log_softmax(logits), strict=True)
            for number, true, likely, log_probability in rows:
                video = number if self._records is None else self._records.ids[number]
                writer.writerow(
                    (
                        video,
                        names[true],
                        names[likely[0]],
                        f"{np.exp(log_probability[likely[0]]):.4f}",
                        int(likely[0] == true),
                        ";".join(names[i] for i in likely[:_TOP]),
                    )
                )
        confusion = count_confusions(label, order[:, 0], len(names))
        save_confusion(directory / "confusion.png", confusion, names)


def save_confusion(path: pathlib.Path, confusion: np.ndarray, names: list[str]) -> None:
    """Draws a confusion matrix: rows are true classes, in shares of their videos."""
    # Not above: half a second that only evaluations need.
    from matplotlib.figure import Figure

    total = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shares = confusion / total
    count = len(names)
    side = 2.5 + min(0.3 * count, 14.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true")
    size = 9 if count <= 30 else max(2.5, 250 / count)
    axes.set_xticks(range(count), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(count), names, fontsize=size, parse_math=False)
    if count <= 15:
        for row in range(count):
            for column in np.flatnonzero(confusion[row]).tolist():
                axes.text(
                    column,
                    row,
                    str(confusion[row, column]),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if shares[row, column] > 0.5 else "black",
                )
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true class")
    figure.savefig(path)


def make(options: ConfigDict, subject: Subject) -> RecognitionEvaluator:
    """See `ctp_jax.evaluators.base`."""
    return RecognitionEvaluator(subject.held_out, subject.class_names)
