"""Reports: a page per run, and a page that compares runs.

`python -m ctp_jax.report WORKDIR [WORKDIR ...]`. A page is one HTML file that needs
nothing but a browser. Neither JAX nor TensorFlow is imported. Read `read` first (what is
known about a run), then `page`.

read         reads the files of a workdir
page         the page of one run: its values, figures and tables
comparison   the page that compares runs
groups       which runs are the same experiment with other seeds
curves       the figures of one run
figures      draws lines as SVG
tables       the tables of one run
verdict      what a run has come to, in a sentence; also its last line on the terminal
commands     the command that made a run, and what to run next
"""

import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

import ctp_jax
from ctp_jax import formatting, results
from ctp_jax.errors import UserError, refusals
from ctp_jax.report import commands, comparison, groups, page, read, verdict
from ctp_jax.report.figures import ID
from ctp_jax.storage import buckets, files

_TEMPLATES = pathlib.Path(__file__).parent / "templates"


def write(
    workdir: str | os.PathLike, out: str | os.PathLike | None = None
) -> pathlib.Path:
    """Writes the report of a run; missing and damaged files are left out.

    Args:
        workdir: of a run, finished or not.
        out: the file to write; default: `report.html` in the workdir.

    Returns:
        The path of the report.

    Raises:
        UserError: there is no run there, or the report cannot be written.
    """
    run = read.read(workdir)
    return save(out or run.path / "report.html", "run.html", page.context(run))


def compare(
    workdirs: Sequence[str | os.PathLike], out: str | os.PathLike
) -> pathlib.Path:
    """Writes a page that compares runs.

    Args:
        workdirs: of runs, finished or not; duplicates are ignored.
        out: the file to write.

    Returns:
        The path of the page.

    Raises:
        UserError: one of them contains no run, or the page cannot be written.
    """
    runs = _read_all(workdirs)
    return save(out, "comparison.html", comparison.context(runs))


def last_words(workdir: str | os.PathLike) -> list[str]:
    """The verdict on a run and what to run next, as lines for the terminal."""
    run = read.read(workdir)
    beside = verdict.other(run)
    said = verdict.verdict(run, beside).replace("\u00a0", " ")
    lines = [formatting.folded(f"  {'verdict':<11}  {said}", " " * 15)] if said else []
    for why, command in commands.next_steps(run, beside):
        lines += [
            f"  next         {why}:",
            f"    {formatting.command(command, ' ' * 6)}",
        ]
    return lines


def table(workdirs: Sequence[str | os.PathLike]) -> str:
    """The tables of `compare` as text: means over seeds, or a row for each run."""
    return comparison.text(_read_all(workdirs))


def _read_all(workdirs: Sequence[str | os.PathLike]) -> list[read.Run]:
    if not workdirs:
        raise UserError("no runs to compare: give their workdirs")
    runs = [read.read(workdir) for workdir in workdirs]
    runs = list({run.path: run for run in runs}.values())
    short = groups.paths_in_short([str(run.path) for run in runs])
    for run in runs:
        run.name = short[str(run.path)]
    return runs


def save(
    path: str | os.PathLike, template: str, values: Mapping[str, Any]
) -> pathlib.Path:
    """Fills a template and writes the page atomically.

    Args:
        path: of the page.
        template: a file of `templates/`.
        values: what it shows.

    Returns:
        The path.

    Raises:
        UserError: the page cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = results.percent
    count = itertools.count()
    environment.filters["own_ids"] = lambda svg: svg.replace(ID, f"f{next(count)}-")
    environment.filters["command"] = lambda c: formatting.command(commands.published(c))
    more = {"field": groups.field, "version": ctp_jax.__version__}
    text = environment.get_template(template).render(**values, **more)
    place = buckets.place(path)
    in_bucket = buckets.at(place) is not None
    with refusals(path):
        if in_bucket:  # buckets have no folders; on a disk, a missing one is a mistake
            place.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(place) as new:
            # 'replace': file names may contain bytes that are not UTF-8.
            new.write_bytes(text.encode("utf-8", "replace"))
    if (folder := buckets.at(place.parent)) is not None:
        folder.upload([place.name])
    return place if in_bucket else pathlib.Path(path)
