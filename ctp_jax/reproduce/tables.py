"""Tables of experiments: what the runs gave, beside the paper's numbers."""

import contextlib
import dataclasses
import pathlib
import shlex
import statistics
import urllib.parse
from collections.abc import Mapping, Sequence

from ctp_jax import formatting
from ctp_jax import report as report_lib
from ctp_jax import results as results_lib
from ctp_jax.errors import refusals
from ctp_jax.report import comparison, page, read
from ctp_jax.report.figures import Drawing, Line, draw
from ctp_jax.reproduce import notes, plan
from ctp_jax.reproduce.experiments import Column, Experiment
from ctp_jax.reproduce.runs import Run, in_order
from ctp_jax.storage import files

Cells = Mapping[tuple[str, str], Sequence[Run] | str]
"""{(name of a row, label of a column): its runs, or why there are none}."""

_PLACES = ("--root", "--data_dir")


@dataclasses.dataclass(frozen=True)
class Results:
    """A table with what there is.

    Attributes:
        experiment: whose table it is.
        table: its texts.
        values: {(row, column): numbers over splits and seeds}.
        missing: a line for each cell without all its numbers.
        runs: that were read, by name.
        notes: what must be known to read the numbers, see `notes.lines`.
    """

    experiment: Experiment
    table: comparison.Table
    values: dict[tuple[str, str], list[float]]
    missing: list[str]
    runs: dict[str, read.Run]
    notes: list[str]


def collect(experiment: Experiment, cells: Cells, root: str) -> Results:
    """Reads the results of the runs in `root`."""
    found = _read(cells, root)
    values: dict[tuple[str, str], list[float]] = {}
    missing, rows = [], []
    with_paper = [
        column
        for column in experiment.columns
        if any(column.label in row.paper for row in experiment.rows)
    ]
    for row in experiment.rows:
        texts = list(row.label)
        for column in experiment.columns:
            place = row.name, column.label
            runs = cells.get(place, [])
            why, wanted = "", 1
            if row.chance:
                values[place] = _chance(column, cells, found)
            elif isinstance(runs, str):
                why, values[place], wanted = runs, [], 0
            else:
                each = [_value(found.get(run.name), column.metric) for run in runs]
                values[place] = [value for value in each if value is not None]
                why, wanted = _why_not(runs, found, column.metric, root), len(runs)
            if column in with_paper:
                number = row.paper.get(column.label)
                texts.append("" if number is None else f"{number:.1f}")
            count = len(values[place])
            text = comparison.spread(column.metric, values[place]) if count else "–"
            texts.append(text + f" ({count} of {wanted})" * (0 < count < wanted))
            if why and row.has(column.label):
                missing.append(f"{row.name}, {column.label}: {why}")
        rows.append(texts)
    heads = list(experiment.labels)
    for column in experiment.columns:
        heads += [f"{column.label}, paper"] if column in with_paper else []
        heads.append(f"{column.label}, ours" if column in with_paper else column.label)
    table = comparison.Table(heads, rows, words=len(experiment.labels))
    measured = {
        column.label: _measured(column, cells, found) for column in experiment.columns
    }
    said = notes.lines(experiment, values, measured)
    return Results(experiment, table, values, _grouped(missing), found, said)


def runs_of(cells: Cells) -> list[Run]:
    """The runs of some cells, each once."""
    every = (runs for runs in cells.values() if not isinstance(runs, str))
    return list({run.name: run for runs in every for run in runs}.values())


def none_made(cells: Cells, root: str) -> bool:
    """Whether a table needs runs, and not one of them was begun in `root`."""
    runs = in_order(runs_of(cells))
    return bool(runs) and not any(pathlib.Path(root, run.name).is_dir() for run in runs)


def other_flags(experiment: Experiment, root: str) -> str:
    """Says that no runs are in `root`, and with which flags its tables were drawn."""
    line = f"{experiment.name}: no runs of this table with these flags are in {root}: "
    line += "leave --table out to make them"
    drawn = []
    for name in (experiment.name, f"{experiment.name}-small"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            about = pathlib.Path(root, "tables", f"{name}.md").read_text().splitlines()
            flags = [each for each in shlex.split(about[-1]) if each[:2] == "--"]
            flags = [each for each in flags if each.partition("=")[0] not in _PLACES]
            drawn.append(shlex.join(flags) or "no flags")
    return line + f"; tables there were drawn with {', and with '.join(drawn)}" * bool(
        drawn
    )


def _read(cells: Cells, root: str) -> dict[str, read.Run]:
    """The runs that are finished, by name."""
    found = {}
    for run in runs_of(cells):
        if plan.is_finished(run, root):
            found[run.name] = read.read(pathlib.Path(root, run.name))
    return found


def _value(run: read.Run | None, metric: str) -> float | None:
    return None if run is None else run.results().get(metric)


def _why_not(
    runs: Sequence[Run], found: Mapping[str, read.Run], metric: str, root: str
) -> str:
    """Which runs of a cell are missing, and how far they are; '' if none is."""
    reasons = []
    for run in runs:
        if run.name in found:
            if _value(found[run.name], metric) is None:
                reasons.append(f"{run.name} has no {metric}")
            continue
        state = plan.state(run, root)
        reasons.append(f"{run.name} {_STATES.get(state, 'is not made')}")
    return ", ".join(reasons)


_STATES = {"failed": "failed, see its log.txt", "begun": "is not finished"}


def _grouped(lines: Sequence[str]) -> list[str]:
    """Reasons that many cells share are said once."""
    by_reason: dict[str, list[str]] = {}
    for line in lines:
        place, _, why = line.partition(": ")
        by_reason.setdefault(why, []).append(place)
    return [f"{'; '.join(places)}: {why}" for why, places in by_reason.items()]


def _measured(
    column: Column, cells: Cells, found: Mapping[str, read.Run]
) -> list[dict[str, results_lib.Result]]:
    """The last evaluations of the column's runs."""
    runs = runs_of(
        {place: each for place, each in cells.items() if place[1] == column.label}
    )
    return [found[run.name].measured() for run in runs if run.name in found]


def _chance(column: Column, cells: Cells, found: Mapping[str, read.Run]) -> list[float]:
    """[what guesses come to in the column's metric], by any run of the column."""
    known = _measured(column, cells, found)
    each = (m[column.metric].baseline for m in known if column.metric in m)
    return [value for value in each if value is not None][:1]


def text(results: Results) -> str:
    """For a terminal."""
    count = results.table.words
    rows = [[", ".join(row[:count]), *row[count:]] for row in results.table.rows]
    heads = ["", *results.table.columns[count:]]
    lines = [results.experiment.title]
    lines += ["", *formatting.aligned(heads, rows)] if rows else []
    lines += ["", *results.notes] if results.notes else []
    lines += ["", "missing:", *results.missing] if results.missing else []
    return "\n".join(lines)


def markdown(results: Results) -> str:
    """A Markdown page."""
    heads, rows = results.table.columns, results.table.rows
    lines = [f"# {results.experiment.title}", ""]
    if rows:
        words = results.table.words
        rules = ["---"] * words + ["---:"] * (len(heads) - words)
        lines += formatting.markdown(heads, rows, rules)
    lines += ["", *(f"- {line}" for line in results.notes)] if results.notes else []
    lines += ["", "Missing:", ""] if results.missing else []
    lines += [f"- {line}" for line in results.missing]
    return "\n".join(lines) + "\n"


def drawings(results: Results) -> list[Drawing | None]:
    """The figures of an experiment, see `Experiment.figure`."""
    figure, experiment = results.experiment.figure, results.experiment
    found: list[Drawing | None] = []
    if "x" in figure:
        lines = []
        for number, row in enumerate(experiment.rows):
            points = [
                (x, results.values[row.name, column])
                for column, x in figure["x"].items()
                if results.values.get((row.name, column))
            ]
            if points:
                y = [statistics.fmean(values) for _, values in points]
                low, high = ([end(v) for _, v in points] for end in (min, max))
                at = [x for x, _ in points]
                lines.append(Line(row.name, at, y, number, number // 6, low, high))
        metric = experiment.columns[0].metric
        found.append(
            draw(
                results_lib.label(metric),
                lines,
                caption="Last evaluation: means; bars reach from the lowest to the highest.",
                xlabel=figure.get("xlabel", ""),
                percent=results_lib.is_share(metric),
                x_shares=sorted(figure["x"].values()) if figure.get("shares") else (),
            )
        )
    if figure.get("curves"):
        for runs in comparison.by_task(list(results.runs.values())).values():
            found += comparison.overlaid(runs)
    return found


def _reports(runs: Mapping[str, read.Run], root: str) -> dict[str, str]:
    """{run: its report, as seen from tables/}; of those that have one."""
    there = [name for name in runs if pathlib.Path(root, name, "report.html").is_file()]
    return {name: f"../{urllib.parse.quote(name)}/report.html" for name in there}


def write(
    results: Results,
    root: str,
    name: str,
    about: str,
    drawn: Mapping[str, pathlib.Path],
) -> list[pathlib.Path]:
    """Writes `tables/NAME.md` and `.html` in `root`; returns their paths.

    Args:
        results: from `collect`.
        root: the folder of all runs.
        name: of the files.
        about: the command that makes the table.
        drawn: {picture: its folder}, from `pictures.draw`.
    """
    folder = pathlib.Path(root, "tables")
    with refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(folder / f"{name}.md") as new:
            new.write_text(f"{markdown(results)}\n{about}\n")
    pictures = {}
    for each, place in drawn.items():
        run = read.Run(place, each)
        pictures |= {f"{each}: {k}": v for k, v in page.pictures(run).items()}
    values = {
        "title": results.experiment.title,
        "about": about,
        "table": results.table,
        "drawings": drawings(results),
        "pictures": pictures,
        "missing": results.missing,
        "notes": results.notes,
        "runs": _reports(results.runs, root),
    }
    html = report_lib.save(folder / f"{name}.html", "experiment.html", values)
    return [folder / f"{name}.md", html]
