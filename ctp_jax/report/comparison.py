"""The page that sets runs side by side (paper Fig. 4: accuracy over labels)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ctp_jax.report import curves, page, words
from ctp_jax.report.figures import Drawing, Line, draw, thin
from ctp_jax.report.groups import (
    FRACTION,
    Group,
    differing,
    fraction_of,
    group,
    mean_and_deviation,
    paths_in_short,
)
from ctp_jax.report.read import Run

_MAX_COLUMNS = 8  # more fields than these get a table of their own
_MAX_LINES = 40


def context(runs: list[Run]) -> dict[str, Any]:
    """Everything that `comparison.html` shows. What cannot be made becomes a note."""
    first = runs[0]
    fields = differing(runs)
    return {
        "runs": runs,
        "shared": first.attempt("header", lambda: shared(runs), []),
        "fields": [] if len(fields) > _MAX_COLUMNS else fields,
        "table": runs_table(runs, fields),
        "field_table": field_table(runs, fields) if len(fields) > _MAX_COLUMNS else [],
        "summary": summary(group(runs)),
        "fractions": first.attempt("label fractions", lambda: fractions(runs), []),
        "curves": first.attempt("curves", lambda: overlaid(runs), []),
    }


def shared(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What holds for all runs, for the head of the page."""
    every = [dict(page.facts(run)) for run in runs]
    names = ("task", "data", "labels", "encoder", "starts from", "steps", "version")
    found = [("runs", str(len(runs)))]
    for name in names:
        values = {facts.get(name) for facts in every}
        if len(values) == 1 and None not in values:
            found.append((name, values.pop()))
    return found


def _metric_names(runs: Sequence[Run]) -> list[str]:
    return words.ordered({name for run in runs for name in run.results()})


def _best(name: str, values: Sequence[float | None]) -> float | None:
    """The best of several values as they are shown, if they are not all the same."""
    known = [v for v in values if v is not None]
    if words.is_baseline(name) or len({words.show(name, v) for v in known}) < 2:
        return None
    return min(known) if words.lower_is_better(name) else max(known)


def league(run: Run) -> tuple[Any, ...]:
    """What runs must have in common for one of them to be the best."""
    names = ("task", "data.name", "data.eval_split", "data.eval_videos")
    return (*(run.fields.get(name) for name in names), fraction_of(run))


def _mark(
    name: str, values: Sequence[float | None], leagues: Sequence[tuple[Any, ...]]
) -> list[bool]:
    """Which values are the best of their league. Those that read the same share it."""
    marks = [False] * len(values)
    for each in set(leagues):
        places = [i for i, other in enumerate(leagues) if other == each]
        best = _best(name, [values[i] for i in places])
        if best is None:
            continue
        for i in places:
            known = values[i] is not None
            marks[i] = known and words.show(name, values[i]) == words.show(name, best)
    return marks


def runs_table(runs: Sequence[Run], fields: Sequence[str]) -> dict[str, Any]:
    """{'columns': [...], 'rows': [{'name', 'fields', 'step', 'cells'}]}."""
    columns, values = [], []
    for name in _metric_names(runs):
        columns.append(words.label(name))
        values.append((name, [run.results().get(name) for run in runs]))
    if any(run.train and run.train[-1].get("loss") is not None for run in runs):
        columns.append("training loss")
        last = [run.train[-1].get("loss") if run.train else None for run in runs]
        values.append(("training loss", last))
    leagues = [league(run) for run in runs]
    marks = [_mark(name, column, leagues) for name, column in values]
    texts = _field_texts(runs, fields)
    rows = []
    for i, run in enumerate(runs):
        cells = [
            {"text": words.show(name, column[i]), "best": mark[i]}
            for (name, column), mark in zip(values, marks, strict=True)
        ]
        step = "–" if run.step is None else f"{run.step:,}"
        row = {"name": run.name, "fields": texts[i], "step": step, "cells": cells}
        rows.append(row)
    return {"columns": columns, "rows": rows}


def _field_texts(runs: Sequence[Run], fields: Sequence[str]) -> list[list[str]]:
    """Values of config fields, by run; paths as short as they can be told apart."""
    short = paths_in_short([str(run.fields.get("init_from") or "") for run in runs])
    rows = []
    for run in runs:
        row = []
        for name in fields:
            value = run.fields.get(name, 1.0 if name == FRACTION else None)
            if name == "init_from" and value:
                value = short[str(value)]
            row.append(words.field(name, value))
        rows.append(row)
    return rows


def field_table(runs: Sequence[Run], fields: Sequence[str]) -> list[tuple[str, list]]:
    """[(field, [value of every run])]."""
    columns = _field_texts(runs, fields)
    return [(name, [column[i] for column in columns]) for i, name in enumerate(fields)]


def summary(groups: Sequence[Group]) -> dict[str, Any] | None:
    """Mean and deviation over seeds; None where every group is a single run."""
    if all(len(member.runs) == 1 for member in groups):
        return None
    names = _metric_names([run for member in groups for run in member.runs])
    values = {name: [member.values(name) for member in groups] for name in names}
    means = {
        name: [mean_and_deviation(v)[0] if v else None for v in column]
        for name, column in values.items()
    }
    leagues = [league(member.runs[0]) for member in groups]
    marks = {name: _mark(name, column, leagues) for name, column in means.items()}
    rows = []
    for i, member in enumerate(groups):
        cells = []
        for name in names:
            text = "–"
            if values[name][i]:
                text = words.spread(name, *mean_and_deviation(values[name][i]))
                if len(values[name][i]) < len(member.counted):
                    text += f" (n = {len(values[name][i])})"
            cells.append({"text": text, "best": marks[name][i]})
        rows.append({"label": member.label, "n": member.size, "cells": cells})
    return {"columns": [words.label(name) for name in names], "rows": rows}


def fractions(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Accuracy against the share of the labels: a figure and its numbers, per metric.

    Only for metrics that runs with several shares have (paper Fig. 4).
    """
    found = []
    for name in words.main_metrics(_metric_names(runs)):
        has = [run for run in runs if run.results().get(name) is not None]
        has = [run for run in has if fraction_of(run) is not None]
        shares = sorted({fraction_of(run) for run in has})
        if len(shares) > 1:
            found.append(_fraction(name, group(has, without=[FRACTION]), shares))
    return found


def _fraction(
    name: str, groups: Sequence[Group], shares: Sequence[float]
) -> dict[str, Any]:
    lines, columns = [], []
    for member in groups:
        x, means, low, high, column = [], [], [], [], []
        for share in shares:
            runs = [run for run in member.runs if fraction_of(run) == share]
            values = Group("", runs).values(name)
            if not values:
                column.append({"text": "–", "n": 0})
                continue
            mean, _ = mean_and_deviation(values)
            x.append(share)
            means.append(mean)
            low.append(min(values))
            high.append(max(values))
            column.append(_range_cell(name, mean, values))
        style = {"colour": member.colour, "dash": member.dash, "dots": True}
        lines.append(Line(member.label, x, means, low=low, high=high, **style))
        columns.append(column)
    text = words.label(name)
    drawing = draw(
        f"{text[:1].upper()}{text[1:]} against labels",
        lines,
        xlabel="share of the labels trained with",
        caption=f"Last {text} on held-out videos: means over seeds; bars reach from "
        "the lowest seed to the highest.",
        percent=words.is_share(name),
        x_shares=shares,
        always_legend=True,
    )
    return {
        "drawing": drawing,
        "groups": [member.label for member in groups],
        "rows": [
            (words.fraction(share), [column[i] for column in columns])
            for i, share in enumerate(shares)
        ],
    }


def _range_cell(name: str, mean: float, values: Sequence[float]) -> dict[str, Any]:
    text = words.show(name, mean)
    if len(values) > 1:
        low, high = words.show(name, min(values)), words.show(name, max(values))
        return {"text": text, "range": f"{low} to {high}", "n": len(values)}
    return {"text": text, "n": len(values)}


def overlaid(runs: Sequence[Run]) -> list[tuple[str, list[Drawing]]]:
    """[(share of the labels, figures)], the largest share first; '' if all have one."""
    by_epoch = curves.uses_epochs(runs)
    shares = {fraction_of(run) for run in runs}
    if len(shares) == 1:
        return [("", _overlaid(group(runs), by_epoch))]
    groups = group(runs, without=[FRACTION])
    found = []
    for share in sorted(shares, key=lambda s: -(s or 0.0)):
        parts = [
            dataclasses.replace(g, runs=[r for r in g.runs if fraction_of(r) == share])
            for g in groups
        ]
        name = "unknown" if share is None else words.fraction(share)
        drawings = _overlaid([part for part in parts if part.runs], by_epoch)
        found.append((f"{name} of the labels", drawings))
    return [pair for pair in found if pair[1]]


def _overlaid(groups: Sequence[Group], by_epoch: bool) -> list[Drawing]:
    """Training loss, and the main metrics on held-out videos."""
    runs = [run for member in groups for run in member.runs]
    wanted = [("train", "loss", "Training loss")]
    for name in words.main_metrics(_metric_names(runs)):
        text = words.label(name)
        wanted.append(("eval", name, f"{text[:1].upper()}{text[1:]}"))
    drawings = []
    for kind, name, title in wanted:
        lines = _lines(groups, kind, name, by_epoch)
        if not any(len(line.x) > 1 for line in lines):
            continue
        if kind == "train":
            caption = "Means over the steps between log lines."
        else:
            caption = "On held-out videos."
        if any(len(member.runs) > 1 for member in groups):
            caption += " One line per run, one colour per group."
        left_out = len(runs) - _MAX_LINES
        if left_out > 0:
            caption += f" The last {left_out} runs are left out."
        drawings.append(
            draw(
                title,
                lines,
                xlabel="epoch" if by_epoch else "step",
                caption=caption,
                percent=words.is_share(name),
                always_legend=True,
            )
        )
    return drawings


def _lines(groups: Sequence[Group], kind: str, name: str, by_epoch: bool) -> list[Line]:
    lines = []
    for member in groups:
        label = member.label
        for run in member.runs:
            source = run.train if kind == "train" else run.held_out
            x, y, _ = thin(*curves.points(source, name, by_epoch))
            if not x or len(lines) == _MAX_LINES:
                continue
            style = {"colour": member.colour, "dash": member.dash}
            style["width"] = 1.8 if len(member.runs) == 1 else 1.2
            dots = len(x) == 1 or None if kind == "eval" else len(x) == 1
            lines.append(Line(label, x, y, dots=dots, **style))
            label = ""  # the legend names a group once
    return lines
