"""Tables of one run: classes, confusions, predictions, neighbours, config."""

from typing import Any

import numpy as np

from ctp_jax import config as config_lib
from ctp_jax.report import words
from ctp_jax.report.read import Run, number

MAX_ROWS = 500
"""So many rows of a .csv stand in the page; a longer one is only sampled."""

_SAMPLE = 12
_ALL_CLASSES = 24  # fewer than these are shown in one table
_EXTREMES = 8  # else so many of the worst and of the best


def confusion(run: Run) -> tuple[list[str], np.ndarray] | None:
    """(class names, counts (K, K) [true, predicted]); None where there are none."""
    counts = run.arrays.get("confusion")
    if counts is None or counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        return None
    names = run.arrays.get("class_names", np.zeros(0))
    if names.shape != (len(counts),):
        names = [f"class {i}" for i in range(len(counts))]
    return [str(name) for name in names], counts.astype(np.int64)


def majority(run: Run) -> dict[str, tuple[float, str]]:
    """What the accuracies would be without looking: {metric: (value, words)}."""
    found = confusion(run)
    if found is None or not found[1].sum():
        return {}
    videos = found[1].sum(1)
    share = np.sort(videos)[::-1] / videos.sum()
    same = {"top1": (float(share[0]), "always the most frequent class")}
    if len(share) > 5:
        same["top5"] = (float(share[:5].sum()), "always the five most frequent classes")
    same["class_accuracy"] = (1 / int((videos > 0).sum()), "always the same class")
    return same


def classes(run: Run) -> dict[str, Any] | None:
    """Per-class accuracy, best first: {'rows': [...], 'all': bool, 'without': n}."""
    found = confusion(run)
    accuracies = run.arrays.get("class_accuracies")
    if found is None:
        return None
    names, counts = found
    videos = counts.sum(1)
    if accuracies is None or accuracies.shape != (len(names),):
        accuracies = np.diag(counts) / np.maximum(videos, 1)
    rows = [
        {"name": n, "accuracy": float(a), "videos": int(v), "right": int(r)}
        for n, a, v, r in zip(names, accuracies, videos, np.diag(counts), strict=True)
        if v and np.isfinite(a)
    ]
    rows.sort(key=lambda row: (-row["accuracy"], row["name"]))
    if not rows:
        return None
    few = len(rows) <= _ALL_CLASSES
    return {
        "rows": rows,
        "worst": [] if few else rows[-_EXTREMES:][::-1],
        "best": rows if few else rows[:_EXTREMES],
        "few": few,
        "without": len(names) - len(rows),
    }


def confusions(run: Run) -> list[dict[str, Any]]:
    """The pairs of classes that are mistaken most often."""
    found = confusion(run)
    if found is None:
        return []
    names, counts = found
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_SAMPLE]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        count = int(wrong[true, predicted])
        if count > 0:
            row = {"true": names[true], "predicted": names[predicted], "count": count}
            rows.append(row | {"share": count / int(counts[true].sum())})
    return rows


def predictions(run: Run) -> dict[str, Any] | None:
    """Predictions: the surest mistakes, and all of them where they are few."""
    rows = [
        row
        | {
            "right": row["correct"].strip() == "1",
            "confidence": number(row["probability"]),
            "others": _others(row),
        }
        for row in run.predictions
    ]
    if not rows:
        return None
    wrong = [row for row in rows if not row["right"]]
    wrong.sort(key=lambda row: -(row["confidence"] or 0.0))
    return {
        "count": len(rows),
        "right": len(rows) - len(wrong),
        "wrong": wrong[:_SAMPLE],
        "wrong_count": len(wrong),
        "rows": rows if len(rows) < MAX_ROWS else [],
    }


def _others(row: dict[str, str]) -> list[str]:
    """The two likeliest classes after the one that was predicted."""
    names = [name for name in row["top5"].split(";") if name]
    return [name for name in names if name != row["predicted"]][:2]


def neighbours(run: Run) -> dict[str, Any] | None:
    """Queries with their nearest neighbours: a sample, and all where they are few."""
    queries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in run.neighbours:
        found = row | {
            "right": row["correct"].strip() == "1",
            "likeness": number(row["similarity"]),
            "place": number(row["rank"]),
        }
        queries.setdefault((row["query"], row["label"]), []).append(found)
    if not queries:
        return None
    groups = []
    for (query, label), found in queries.items():
        found.sort(key=lambda row: np.inf if row["place"] is None else row["place"])
        groups.append({"query": query, "label": label, "neighbours": found[:5]})
    # Spread over the file, which is sorted by class more often than not.
    places = np.linspace(0, len(groups) - 1, min(_SAMPLE, len(groups))).round()
    return {
        "count": len(groups),
        "first": sum(group["neighbours"][0]["right"] for group in groups),
        "sample": [groups[int(place)] for place in places],
        "groups": groups if len(run.neighbours) < MAX_ROWS else [],
    }


def config_groups(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """[(group, [(field, value), ...]), ...]; fields of no group come first."""
    groups: dict[str, list[tuple[str, str]]] = {"": []}
    for name, value in run.config.items():
        if not isinstance(value, dict):
            groups[""].append((name, words.field(name, value)))
            continue
        flat = config_lib.flatten(value)
        rows = [(k, words.field(f"{name}.{k}", v)) for k, v in flat.items()]
        groups[name] = rows
    return [(name, rows) for name, rows in groups.items() if rows]
