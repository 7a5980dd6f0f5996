"""The page that compares runs (paper Fig. 4: accuracy over the share of labels)."""

import itertools
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from ctp_jax import formatting, results
from ctp_jax.report import curves, page, verdict
from ctp_jax.report.figures import COLOURS, Drawing, Line, draw
from ctp_jax.report.groups import Group, differing, field, group, short_origins
from ctp_jax.report.read import Run

_MAX_FIELDS = 12


class Table(NamedTuple):
    """A table of texts.

    The first `words` columns contain words, the others numbers; the last `baselines` rows
    are of no run.
    """

    columns: list[str]
    rows: list[list[str]]
    words: int = 1
    baselines: int = 0


def context(runs: list[Run]) -> dict[str, Any]:
    """Everything that `comparison.html` shows; a part that fails becomes a note."""
    sections = []
    for task, members in by_task(runs).items():
        attempt, fields = members[0].attempt, differing(members)[:_MAX_FIELDS]
        section = {
            "task": task,
            "facts": attempt("header", shared, members),
            "seeds": attempt("means over seeds", seeds_table, members),
            "experiments": attempt("table", experiments_table, members),
            "fractions": attempt("accuracy against labels", fractions, members),
            "curves": attempt("curves", overlaid, members),
            "table": attempt("table of runs", runs_table, members, fields),
        }
        if not fields and not section["seeds"]:
            section["table"] = None  # it says no more than the first
        sections.append(section)
    tasks = " and ".join(section["task"] for section in sections)
    names = formatting.some(run.name for run in runs)
    title = f"{len(runs)} runs of {tasks}: {names}"
    found = runs[0].attempt("glossary", glossary, runs)
    return {"runs": runs, "sections": sections, "title": title, "glossary": found}


def by_task(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by task: those of different tasks have different metrics."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(str(run.fields.get("task", "unknown task")), []).append(run)
    return found


def shared(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The facts that are the same for all runs of a task."""
    first, *others = [page.facts(run) for run in runs]
    return [fact for fact in first if all(fact in facts for facts in others)]


def glossary(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What the metrics of the runs mean, each once."""
    return list(dict.fromkeys(line for run in runs for line in verdict.glossary(run)))


def _metric_names(runs: Sequence[Run]) -> list[str]:
    """Names of the metrics, the main ones first."""
    names = list(dict.fromkeys(name for run in runs for name in run.results()))
    return list(dict.fromkeys([*results.main_metrics(names), *names]))


def runs_table(runs: Sequence[Run], fields: Sequence[str] = ()) -> Table:
    """A row for each run, with the values of config fields."""
    names, short = _metric_names(runs), short_origins(runs)
    counts = ["videos"] * any(e.videos for r in runs for e in r.measured().values())
    rows = []
    for run in runs:
        values = {name: run.fields.get(name) for name in fields}
        if values.get("init_from"):
            values["init_from"] = short[str(values["init_from"])]
        step = "–" if run.step is None else f"{run.step:,}"
        numbers, measured = run.results(), run.measured()
        main = measured.get(results.main_metric(measured))
        videos = f"{main.videos:,}" if main and main.videos else "–"
        errors = {name: each.error for name, each in measured.items()}
        cells = [results.show(n, numbers.get(n), errors.get(n)) for n in names]
        texts = map(field, values, values.values())
        rows.append([run.name, *texts, step, *[videos] * len(counts), *cells])
    without = _without_network(runs, names, len(fields) + 1 + len(counts))
    columns = ["run", *fields, "steps done", *counts, *map(results.label, names)]
    return Table(columns, rows + without, 1 + len(fields), len(without))


def experiments_table(runs: Sequence[Run]) -> Table:
    """A row for each run, which is named by what sets it apart from the others."""
    table = runs_table(runs)
    labels = {id(each.runs[0]): each.label for each in group(runs)}
    for run, row in zip(runs, table.rows, strict=False):
        label = labels.get(id(run), "")
        row[0] += f": {label}" * (bool(label) and not label.startswith(run.name))
    return table._replace(columns=["experiment", *table.columns[1:]])


def seeds_table(runs: Sequence[Run]) -> Table | None:
    """Mean and deviation over seeds; None if every group is a single run."""
    groups, names = group(runs), _metric_names(runs)
    if all(len(member.runs) == 1 for member in groups):
        return None
    rows = []
    for member in groups:
        total, count = len(member.runs), len(member.counted)
        row = [member.label, f"{count}" if count == total else f"{count} of {total}"]
        for name in names:
            values = member.values(name)
            fewer = f" (n = {len(values)})" if 0 < len(values) < count else ""
            row.append(spread(name, values) + fewer)
        rows.append(row)
    without = _without_network(runs, names, 1)
    columns = ["runs", "n", *map(results.label, names)]
    return Table(columns, rows + without, baselines=len(without))


def _without_network(
    runs: Sequence[Run], names: Sequence[str], between: int
) -> list[list[str]]:
    """[the row of the baselines without a network]; [] if there are none."""
    known = [run.measured() for run in runs]
    cells = []
    for name in names:
        values = [found[name].baseline for found in known if name in found]
        values = [value for value in values if value is not None]
        ends = [end(values) for end in (min, max)] if values else [None]
        # A range, because runs may have been evaluated on different videos.
        cells.append(
            " to ".join(dict.fromkeys(results.show(name, end) for end in ends))
        )
    hows = {each.how for found in known for each in found.values() if each.how}
    name = hows.pop() if len(hows) == 1 else "without a network"
    return [[name, *["–"] * between, *cells]] if set(cells) - {"–"} else []


def spread(name: str, values: Sequence[float]) -> str:
    """'83.9 ± 0.4 %': mean and sample standard deviation (n - 1) of several values."""
    if len(values) < 2:
        return results.show(name, *values or [None])
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    if results.is_share(name):
        return f"{100 * mean:.1f} ± {results.percent(deviation)}"
    return f"{results.show(name, mean)} ± {results.show(name, deviation)}"


def text(runs: Sequence[Run]) -> str:
    """The tables for a terminal: means over seeds, or else a row for each run.

    Columns that do not fit in 100 characters are left to the page, and named.
    """
    lines = []
    for task, members in by_task(runs).items():
        table = seeds_table(members) or runs_table(members)
        cells = [[task, *table.columns[1:]], *table.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        ends = itertools.accumulate(widths, lambda end, width: end + 2 + width)
        fit = max(sum(end <= 100 for end in ends), 2)
        columns, *rows = [row[:fit] for row in cells]
        lines += formatting.aligned(columns, rows)
        if left := cells[0][fit:]:
            lines.append(formatting.folded(f"also in the page: {'; '.join(left)}"))
        lines.append("")
    return "\n".join(lines)


def _by_share(runs: Sequence[Run]) -> dict[float, list[Run]]:
    """Runs by the share of the labels that they used, in ascending order."""
    found: dict[float, list[Run]] = {}
    for run in runs:
        found.setdefault(run.label_share, []).append(run)
    return dict(sorted(found.items()))


def fractions(runs: Sequence[Run]) -> list[Drawing | None]:
    """Accuracy over the share of the labels, if the runs have several (Fig. 4)."""
    shares = list(_by_share(runs))
    drawings = []
    for name in results.main_metrics(_metric_names(runs)) if len(shares) > 1 else []:
        lines = []
        for place, member in enumerate(group(runs, without=["data.fraction"])):
            parts = {x: Group("", part) for x, part in _by_share(member.runs).items()}
            values = {x: part.values(name) for x, part in parts.items()}
            values = {x: found for x, found in values.items() if found}
            low, mean, high = (
                [end(found) for found in values.values()]
                for end in (min, statistics.fmean, max)
            )
            if values:
                style = {"low": low, "high": high, **_style(place)}
                lines.append(Line(member.label, list(values), mean, **style))
        drawing = draw(
            f"{results.label(name)} against labels",
            lines,
            xlabel="share of the labels trained with",
            caption="Last evaluation: means over seeds; bars reach from the lowest "
            "seed to the highest.",
            percent=results.is_share(name),
            x_shares=shares,
        )
        drawings.append(drawing)
    return drawings


def _style(place: int) -> dict[str, int]:
    return {"colour": place, "dash": place // COLOURS}


def overlaid(runs: Sequence[Run]) -> list[Drawing | None]:
    """Training loss and main metrics, for every share of the labels."""
    shares, drawings = _by_share(runs), []
    for share, members in reversed(shares.items()):
        of = f", {100 * share:g} % of the labels" if len(shares) > 1 else ""
        for name in ["training loss", *results.main_metrics(_metric_names(members))]:
            drawings.append(_overlay(name, of, group(members)))
    return drawings


def _overlay(name: str, of: str, groups: Sequence[Group]) -> Drawing | None:
    lines, train = [], name == "training loss"
    for place, member in enumerate(groups):
        label = member.label
        for run in member.runs:
            source = (run.train, "loss") if train else (run.held_out, name)
            more = curves.line_of(*source, label, **_style(place))
            lines += more
            label = "" if more else label  # the legend names a group once
    if all(line.x[-1] == 0 for line in lines):  # nothing was trained
        return None
    caption = "Means over the steps between log lines." if train else "Held-out videos."
    title, percent = results.label(name) + of, results.is_share(name)
    return draw(title, lines, caption=caption, percent=percent)
