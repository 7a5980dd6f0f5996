"""Tables of one run: classes, confusions, predictions."""

from typing import Any

import numpy as np

from ctp_jax.report.read import Run, finite

_SAMPLE = 12  # rows of confusions and of wrong predictions


def confusion(run: Run) -> tuple[list[str], np.ndarray]:
    """(class names, counts (K, K) [true, predicted]); K = 0 if there are none."""
    counts = run.arrays.get("confusion", np.zeros((0, 0))).astype(np.int64)
    names = run.arrays.get("class_names", range(len(counts)))
    return [str(name) for name in names], counts


def classes(run: Run) -> list[dict[str, Any]]:
    """Accuracy of every class that has held-out videos, best first."""
    names, counts = confusion(run)
    each = zip(names, counts.sum(1).tolist(), np.diag(counts).tolist(), strict=True)
    rows = [
        {"name": name, "accuracy": right / videos, "videos": videos, "right": right}
        for name, videos, right in each
        if videos
    ]
    return sorted(rows, key=lambda row: (-row["accuracy"], row["name"]))


def confusions(run: Run) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often."""
    names, counts = confusion(run)
    wrong = counts - np.diag(np.diag(counts))
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_SAMPLE]:
        true, predicted = divmod(int(place), len(names))
        if count := int(wrong[true, predicted]):
            row = {"true": names[true], "predicted": names[predicted], "count": count}
            rows.append(row | {"share": count / int(counts[true].sum())})
    return rows


def predictions(run: Run) -> dict[str, Any]:
    """How many predictions there are and are right; the most confident mistakes."""
    wrong = [row for row in run.predictions if row["correct"].strip() != "1"]
    wrong.sort(key=lambda row: -(finite(row["probability"]) or 0.0))
    right = len(run.predictions) - len(wrong)
    return {"count": len(run.predictions), "right": right, "wrong": wrong[:_SAMPLE]}
