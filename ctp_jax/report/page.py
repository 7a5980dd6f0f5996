"""The page of one run: what goes into its template."""

import datetime
import pathlib
from typing import Any

import numpy as np

from ctp_jax.report import curves, images, tables, words
from ctp_jax.report.read import Run, number

_CAPTIONS = {
    "game.png": "Clips as the network sees them, frames from left to right; where a game "
    "is played, true boxes in colour and predicted ones dashed, on held-out videos.",
    "game.gif": "The same, moving.",
    "confusion.png": "Confusion matrix: a row for each true class, a column for each "
    "predicted one.",
    "neighbours.png": "Held-out videos and the training videos nearest to them.",
}
_MAX_TILES = 6


def context(run: Run) -> dict[str, Any]:
    """Everything that `run.html` shows. What cannot be made becomes a note."""
    attempt = run.attempt
    return {
        "run": run,
        "facts": attempt("header", lambda: facts(run), []),
        "tiles": attempt("headline numbers", lambda: tiles(run), []),
        "figures": attempt("figures", lambda: curves.all_of(run), []),
        "pictures": attempt("pictures", lambda: _pictures(run), _places()),
        "metrics": attempt("metrics", lambda: metrics(run), []),
        "classes": attempt("classes", lambda: tables.classes(run), None),
        "confusions": attempt("confusions", lambda: tables.confusions(run), []),
        "predictions": attempt("predictions", lambda: tables.predictions(run), None),
        "neighbours": attempt("neighbours", lambda: tables.neighbours(run), None),
        "config": attempt("configuration", lambda: tables.config_groups(run), []),
    }


def facts(run: Run) -> list[tuple[str, str]]:
    """[(what, value)] for the head of the page, of what is known."""
    fields, step = run.fields, run.step
    epoch = max((x.get("epoch") or 0 for x in run.train + run.held_out), default=0)
    total = _total_steps(run)
    found = {
        "task": fields.get("task"),
        "data": fields.get("data.name"),
        "labels": _labels(fields),
        "encoder": encoder(run),
        "starts from": _starts_from(fields),
        "frozen": words.field("freeze", fields.get("freeze")),
        "steps": None,
        "training time": None,
        "written": written(run),
        "seed": fields.get("seed"),
        "devices": run.versions.get("devices"),
        "version": _version(run),
    }
    if step:  # what only evaluates has none
        of = f" of {total:,}" if total and step < total else ""
        epochs = f" ({epoch:.1f} epochs)" if epoch else ""
        found["steps"] = f"{step:,}{of}{epochs}"
    seconds = training_seconds(run)
    if seconds is not None:
        found["training time"] = f"{words.duration(seconds)} at the logged throughput"
    if fields.get("freeze") in (None, False, "", 0, [], "none"):
        found["frozen"] = None
    return [(k, str(v)) for k, v in found.items() if v not in (None, "")]


def _starts_from(fields: dict[str, Any]) -> str | None:
    """'from scratch', or the end of a path, which the configuration has in full."""
    path = fields.get("init_from")
    if not path:
        return None if path is None else words.field("init_from", path)
    return str(pathlib.PurePath(*pathlib.PurePath(str(path)).parts[-2:]))


def _labels(fields: dict[str, Any]) -> str | None:
    share = number(fields.get("data.fraction"))
    return None if share in (None, 1.0) else f"{words.fraction(share)} of them"


def encoder(run: Run) -> str | None:
    """'r3d18, width × 0.125', from the exported encoder or the config."""
    about = run.encoder.get("architecture")
    about = about if isinstance(about, dict) else run.config.get("model")
    if not isinstance(about, dict) or not about.get("name"):
        return None
    width = number(about.get("width"))
    return f"{about['name']}" + (
        f", width × {width:g}" if width not in (None, 1) else ""
    )


def _version(run: Run) -> str | None:
    version, commit = run.versions.get("ctp_jax"), run.versions.get("commit")
    if not version:
        return None
    return f"ctp_jax {version}" + (f" ({str(commit)[:10]})" if commit else "")


def written(run: Run) -> str | None:
    """When the run ended, else when it last said something: '2026-01-31 12:30 UTC'."""
    provenance = run.encoder.get("provenance")
    date = provenance.get("date") if isinstance(provenance, dict) else None
    try:
        when = datetime.datetime.fromisoformat(str(date))
    except ValueError:
        if run.written is None:
            return None
        when = datetime.datetime.fromtimestamp(run.written, datetime.UTC)
    return f"{when.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _total_steps(run: Run) -> int | None:
    """How many steps the run was to have, from its config and its epochs."""
    steps = number(run.fields.get("steps"))
    epochs = number(run.fields.get("epochs"))
    if steps:
        return int(steps)
    lines = [x for x in run.train + run.held_out if x.get("epoch")]
    if not epochs or not lines:
        return None
    last = max(lines, key=lambda line: line["step"])
    return round(epochs * last["step"] / last["epoch"])


def training_seconds(run: Run) -> float | None:
    """Seconds spent on training steps, from their throughput.

    Clips per step are a whole number of batches; which one follows from the time to
    go, which is logged in seconds.
    """
    total, batch = _total_steps(run), number(run.fields.get("batch_size"))
    lines = [line for line in run.train if line.get("clips_per_second")]
    if not lines or not batch or not total:
        return None
    ratios = [
        line["clips_per_second"] * line["eta"] / (total - line["step"]) / batch
        for line in lines
        if line.get("eta") and line["step"] < total
    ]
    per_video = max(1, round(float(np.median(ratios)))) if ratios else 1
    seconds, before = 0.0, 0
    for line in lines:
        clips = (line["step"] - before) * batch * per_video
        seconds += clips / line["clips_per_second"]
        before = line["step"]
    return seconds


def tiles(run: Run) -> list[dict[str, str]]:
    """The headline numbers: [{'label', 'value', 'baseline', 'words'}]."""
    results, without = run.results(), tables.majority(run)
    names = [n for n in words.ordered(results) if not words.is_baseline(n)]
    names = [n for n in names if "loss" not in n]
    found = []
    for name in names[:_MAX_TILES]:
        tile = {"label": words.label(name), "value": words.show(name, results[name])}
        baseline = words.baseline_of(name, results)
        if baseline:
            tile["baseline"] = words.show(name, results[baseline[0]])
            tile["words"] = baseline[1]
        elif name in without:
            tile["baseline"] = words.show(name, without[name][0])
            tile["words"] = without[name][1]
        found.append(tile)
    return found


def metrics(run: Run) -> list[dict[str, str]]:
    """Rows of the table of metrics: last value, best value and its step."""
    rows = []
    results = run.results()
    for name in words.ordered(results):
        seen = [(x["step"], x[name]) for x in run.held_out if x.get(name) is not None]
        row = {"label": words.label(name), "name": name}
        row |= {"last": words.show(name, results[name]), "best": "", "step": ""}
        if len(seen) > 1 and not words.is_baseline(name):
            sign = -1 if words.lower_is_better(name) else 1
            step, value = max(seen, key=lambda pair: sign * pair[1])
            row |= {"best": words.show(name, value), "step": f"{step:,}"}
        rows.append(row)
    shown = ("loss", *words.MAIN)
    last = run.train[-1] if run.train else {}
    for name in [k for k in last if k in shown or k.startswith("loss_")]:
        row = {"label": f"{words.label(name)}, training clips", "name": name}
        rows.append(
            row | {"last": words.show(name, last[name]), "best": "", "step": ""}
        )
    return rows


def _pictures(run: Run) -> dict[str, list[tuple[images.Picture, str]]]:
    """{section: [(picture, caption)]}: those of the game, of classes, of neighbours."""
    places = {"confusion.png": "classes", "neighbours.png": "neighbours"}
    found = _places()
    names = images.names(run.path)
    known = [name for name in _CAPTIONS if name in names]
    for name in known + [name for name in names if name not in _CAPTIONS]:
        picture = run.attempt(name, lambda n=name: images.load(run.path / n), None)
        if picture is not None:
            caption = _CAPTIONS.get(name, name)
            found[places.get(name, "game")].append((picture, caption))
    return found


def _places() -> dict[str, list[tuple[images.Picture, str]]]:
    return {"game": [], "classes": [], "neighbours": []}
