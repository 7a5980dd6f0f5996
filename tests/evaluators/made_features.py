"""Features of two splits of made-up videos, and passes over them."""

from types import SimpleNamespace

import numpy as np

CLASSES = ("jump", "run", "sit", "walk", "wave")


def make(seed=0, queries=23, gallery=60, width=9, classes=5):
    """(features, labels) of queries and of the gallery: noise around class centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    sides = []
    for count in (queries, gallery):
        labels = rng.integers(0, classes, count)
        features = centres[labels] + rng.normal(0, 1.2, (count, width))
        sides.append((features.astype(np.float32), labels))
    return sides


def records(labels, split="test", name="made", class_names=CLASSES):
    """What evaluators read of `ctp_jax.data.records.Records`."""
    ids = np.array([f"{split}/video {i}" for i in range(len(labels))])
    return SimpleNamespace(
        name=name,
        split=split,
        label=np.asarray(labels),
        class_names=class_names,
        ids=ids,
        directory="nowhere",
    )


def batches(features, labels, size, seed=0):
    """Every record once, in a random order, with padding that must not be looked at."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    for start in range(0, len(labels), size):
        rows = order[start : start + size]
        padding = size - len(rows) + 1
        batch = {
            "label": np.r_[labels[rows], rng.integers(0, 3, padding)].astype(np.int32),
            "index": np.r_[rows, rows[:1].repeat(padding)].astype(np.int32),
            "mask": np.r_[np.ones(len(rows)), np.zeros(padding)].astype(np.float32),
        }
        garbage = np.full((padding, features.shape[1]), np.nan, np.float32)
        shuffle = rng.permutation(len(rows) + padding)
        yield (
            {name: value[shuffle] for name, value in batch.items()},
            {"features": np.concatenate([features[rows], garbage])[shuffle]},
        )


def run(evaluators, queries, gallery, size=7):
    """What a loop does with evaluators; their results by name."""
    for evaluator in evaluators:
        evaluator.reset()
    for batch, outputs in batches(*gallery, size):
        for evaluator in evaluators:
            evaluator.update_gallery(batch, outputs)
    for batch, outputs in batches(*queries, size):
        for evaluator in evaluators:
            evaluator.update(batch, outputs)
    return {name: value for e in evaluators for name, value in e.results()}


def ranked(query, gallery, left_out=None):
    """[(similarity, record number)] of one query, nearest first, in float64."""
    found = []
    query = query.astype(np.float64)
    for number, row in enumerate(gallery.astype(np.float64)):
        if number != left_out:
            cosine = query @ row / np.sqrt((query @ query) * (row @ row))
            found.append((-cosine, number))
    return [(-value, number) for value, number in sorted(found)]
