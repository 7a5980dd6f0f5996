"""The page of one run: the values for its template."""

import base64
import datetime
import io
import pathlib
import statistics
from typing import Any

from PIL import Image

from ctp_jax import results
from ctp_jax.formatting import duration
from ctp_jax.report import commands, verdict
from ctp_jax.report.curves import figures
from ctp_jax.report.groups import paths_in_short
from ctp_jax.report.read import Run, finite
from ctp_jax.report.tables import classes, confusions, predictions
from ctp_jax.storage import untrusted

_MAX_BYTES = 10_000_000  # of a picture
_MAX_PIXELS = 50_000_000


def context(run: Run) -> dict[str, Any]:
    """Everything that `run.html` shows; a part that fails becomes a note."""
    parts = (facts, figures, pictures, classes, confusions, predictions)
    values = {p.__name__: run.attempt(p.__name__, p, run) for p in parts}
    beside = run.attempt("runs beside this one", verdict.other, run)
    return values | {
        "run": run,
        "metrics": run.attempt("metrics", metrics, run, beside),
        "verdict": run.attempt("verdict", verdict.verdict, run, beside),
        "glossary": run.attempt("glossary", verdict.glossary, run),
        "videos": run.attempt("number of videos", verdict.videos, run),
        "title": run.attempt("title", title, run) or run.name,
        "next_steps": run.attempt("what to run next", commands.next_steps, run, beside),
    }


def title(run: Run) -> str:
    """'run: rotation on ucf101, top-1 accuracy 75.0 %'; unknown parts are left out."""
    task, data = run.fields.get("task"), run.fields.get("data.name")
    measured = run.measured()
    parts = [f"{task} on {data}" if task and data else str(task or data or "")]
    if main := results.main_metric(measured):
        value = results.show(main, measured[main].value)
        parts.append(f"{results.label(main)} {value}")
    text = ", ".join(filter(None, parts))
    return f"{run.name}: {text}" if text else run.name


def facts(run: Run) -> list[tuple[str, str]]:
    """[(name, value)] for the head of the page; unknown values are left out."""
    fields = run.fields
    share = finite(fields.get("data.fraction"))
    width = finite(fields.get("model.width"))
    rate, wait = (_median(run, name) for name in ("clips_per_second", "input_share"))
    narrow = f", width × {width:g}" if width not in (None, 1) else ""
    found = {
        "task": fields.get("task"),
        "data": fields.get("data.name"),
        "labels": None if share in (None, 1) else f"{results.percent(share)} of them",
        "encoder": fields.get("model.name") and f"{fields['model.name']}{narrow}",
        "starts from": _starts_from(fields),
        "frozen": fields.get("freeze") or None,
        "steps": _steps(run),
        "training time": _training_time(run),
        "throughput": rate and f"{rate:.4g} clips/s",
        "waiting for input": None if wait is None else results.percent(wait),
        "written": _written(run),
        "seed": fields.get("seed"),
        "devices": run.versions.get("devices"),
        "ctp_jax": run.versions.get("ctp_jax"),
    }
    return [(k, str(v)) for k, v in found.items() if v not in (None, "")]


def _starts_from(fields: dict[str, Any]) -> str | None:
    """'from scratch', or the last part of the path."""
    path = fields.get("init_from")
    if not path:
        return "from scratch" if path == "" else None
    return paths_in_short([str(path)])[str(path)]


def _written(run: Run) -> str | None:
    path = run.path / "metrics.jsonl"
    if not path.exists():
        return None
    when = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _steps(run: Run) -> str | None:
    """'300 of 1,000 (30.0 epochs)'; None for a run without training."""
    if not run.step:
        return None
    total = verdict.total_steps(run)
    of = f" of {total:,}" if total and run.step < total else ""
    epoch = max(line.get("epoch") or 0 for line in run.train + run.held_out)
    return f"{run.step:,}{of}" + (f" ({epoch:.1f} epochs)" if epoch else "")


def _training_time(run: Run) -> str | None:
    """The steps done times the median time of a step, from the logged time to go."""
    total = verdict.total_steps(run) or 0
    lines = [x for x in run.train if x.get("eta") and x["step"] < total]
    per_step = [line["eta"] / (total - line["step"]) for line in lines]
    done = run.train[-1]["step"] if run.train else 0
    return duration(done * statistics.median(per_step)) if per_step else None


def _median(run: Run, name: str) -> float | None:
    """The median of a value over the training log lines."""
    values = [line[name] for line in run.train if line.get(name) is not None]
    return statistics.median(values) if values else None


_COLUMNS = ("error", "best", "step", "baseline", "how", "standing", "videos")
_COLUMNS += ("other", "other_how")


def metrics(run: Run, beside: verdict.Other | None) -> list[dict[str, Any]]:
    """Rows of the table of metrics, the main ones first.

    The value of the last evaluation with its standard error, the best and its step, the
    number of videos, the baseline and which it is, how the value stands to it, and the
    value of the run beside this one and what that is.
    """
    rows: list[dict[str, Any]] = []
    measured = run.measured()
    others = beside.run.measured() if beside else {}
    values = run.results()
    for name in dict.fromkeys([*results.main_metrics(list(measured)), *values]):
        row: dict[str, Any] = dict.fromkeys(_COLUMNS, "")
        row |= {"name": name, "label": results.label(name)}
        found = measured.get(name, results.Result(name, values[name]))
        row["last"] = results.show(name, found.value)
        if found.error is not None:
            row["error"] = f"± {100 * found.error:.1f}"
        if found.videos and results.is_accuracy(name):
            row["videos"] = f"{found.videos:,}"
        seen = [(x["step"], x[name]) for x in run.held_out if x.get(name) is not None]
        if len(seen) > 1:
            sign = -1 if results.lower_is_better(name) else 1
            step, best = max(seen, key=lambda pair: sign * pair[1])
            row |= {"best": results.show(name, best), "step": f"{step:,}"}
        if found.baseline is not None:
            row |= {"how": found.how, "standing": found.standing}
            row["baseline"] = results.show(name, found.baseline)
        row["more"] = [(results.show(name, value), how) for value, how in found.more]
        if name in others:
            each = others[name]
            row["other"] = results.show(name, each.value, each.error)
            row["other_how"] = beside.how.removeprefix("a ") if beside else ""
        rows.append(row)
    return rows


def pictures(run: Run) -> dict[str, dict[str, Any]]:
    """The pictures of the workdir: {file name: {'source', 'width', 'height'}}."""
    paths = sorted(p for p in run.path.glob("[!.]*") if p.suffix in (".png", ".gif"))
    found = {path.name: run.attempt(path.name, _load, path) for path in paths}
    return {name: picture for name, picture in found.items() if picture}


def _load(path: pathlib.Path) -> dict[str, Any]:
    """A picture as a data URL for the page."""
    data = untrusted.read_bytes(path, _MAX_BYTES)
    with Image.open(io.BytesIO(data), formats=("PNG", "GIF")) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"more than {_MAX_PIXELS:,} pixels")
        image.load()  # fails on an incomplete file
        # But not on a GIF that is incomplete after its first frame.
        if image.format == "GIF" and not data.endswith(b";"):
            raise ValueError("incomplete")
        width, height = image.size
    text = base64.b64encode(data).decode("ascii")
    source = f"data:image/{path.suffix[1:]};base64,{text}"
    return {"source": source, "width": width, "height": height}
