"""Tables and figures of the paper: `python -m ctp_jax.reproduce NAME --root=DIR`."""

import dataclasses
import os
import pathlib
import re
import shlex
import sys

from ctp_jax import cli, config, results, terminal
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.formatting import count
from ctp_jax.reproduce import experiments, plan, work
from ctp_jax.reproduce import runs as runs_lib
from ctp_jax.storage import files

FLAGS = Flags()
ROOT = FLAGS.string("root", "runs", "Folder of all runs, and of tables/.")
PLAN = FLAGS.boolean("plan", False, "Print the runs and how long they take.")
COMMANDS = FLAGS.boolean("commands", False, "Print the commands of the runs.")
TABLE = FLAGS.boolean("table", False, "Draw the table from what is there.")
SCALE = FLAGS.choice(
    "scale",
    "full",
    ["full", "small"],
    "As the files say, or with the network of configs/small.py.",
)
SEEDS = FLAGS.string("seeds", "", "As 0,1,2; default: those of the experiment.")
SPLITS = FLAGS.string("splits", "1", "Of UCF-101 and HMDB-51, as 1,2,3.")
DATA = FLAGS.strings(
    "data",
    [],
    "With --scale=small: NAME[:TRAIN:TEST] in place of all data sets, or "
    "ucf101=NAME[:TRAIN:TEST] in place of one.",
)
DATA_DIR = FLAGS.string("data_dir", "", "Where data are; as config.data.data_dir.")
OVERRIDE = FLAGS.strings(
    "override", [], "FIELD=VALUE for every run that has the field."
)
RATE = FLAGS.number(
    "clips_per_second",
    None,
    "Clips of 16 x 112 x 112 that are trained on per second, for --plan; kinds of runs "
    "that are there are measured.",
    lower_bound=1e-9,
)
SHARD = FLAGS.string("shard", "0/1", "I/N, I from 0 to N-1: make every N-th run.")
WAIT = FLAGS.boolean("wait", False, "Wait for runs that other shards make.")
ROWS = FLAGS.strings("rows", [], "Only rows that this pattern, or another, fits.")
COLUMNS = FLAGS.strings(
    "columns", [], "Only columns that this pattern, or another, fits."
)
OVERVIEW = FLAGS.string(
    "overview", "", "Update the table in this page, and nothing else."
)


def main(arguments):
    """Makes the runs that tables need, and draws the tables.

    python -m ctp_jax.reproduce                    lists what there is
    python -m ctp_jax.reproduce table4 --root=DIR  makes what is missing, then the table
    python -m ctp_jax.reproduce my_sweep.py        a file of your own, docs/experiments.md

    Runs are shared between tables, and an interrupted one goes on where it was.
    """
    if OVERVIEW.value:
        from ctp_jax.reproduce import overview

        overview.update(pathlib.Path(OVERVIEW.value), RATE.value or 900)
        return
    if not arguments:
        for name in experiments.names():
            print(f"{name:<10}{experiments.read(name).title}")
        return
    chosen = [
        experiments.chosen(
            experiments.read(each), ROWS.value or ["*"], COLUMNS.value or ["*"]
        )
        for each in arguments
    ]
    _check_metrics(chosen)
    runs = runs_lib.Runs(_settings())
    index, shards = _shard(SHARD.value)
    cells = [runs.cells(each) for each in chosen]
    runs.check_settings()
    ordered = runs_lib.in_order(runs.by_name.values())
    root = _root(ROOT.value)
    own = ordered[index::shards]
    if COMMANDS.value:
        for run in own:
            print(shlex.join(["python", *run.command(root)]))
        return
    plan.check_unchanged(ordered, root)
    if PLAN.value:
        several = len(chosen) > 1
        of = {
            name: f"{experiment.name}, " * several + place
            for experiment, each in zip(chosen[::-1], cells[::-1], strict=True)
            for name, place in plan.places(each).items()
        }
        rates = plan.Rates(root, RATE.value)
        print("\n".join(plan.lines(own, ordered, root, rates, of)))
        missing = plan.missing(_left(ordered, root), root, _made_by(chosen))
        for what, how in missing.items():
            print(f"not there yet: {what}: {how}")
        return
    failed, not_drawn = None, []
    if not TABLE.value:
        try:
            _make(own, ordered, root, chosen)
        except work.Failed as error:
            failed = error
    if TABLE.value or failed or all(plan.is_finished(run, root) for run in ordered):
        not_drawn = _draw(arguments, chosen, cells, root)
    if failed:
        raise failed
    if not_drawn:
        raise UserError("; ".join(not_drawn))


def _check_metrics(chosen) -> None:
    """Says which metrics may be misspelt, before hours go into their runs."""
    for experiment in chosen:
        for column in experiment.columns:
            if not results.is_known(column.metric):
                hint = config.did_you_mean(column.metric, results.KNOWN)
                print(
                    f"note: {experiment.name}, column {column.label!r}: no evaluator of "
                    f"ctp_jax has a metric {column.metric!r}{hint}",
                    file=sys.stderr,
                )


def _make(own, ordered, root, chosen) -> None:
    """Makes the runs; `work.Failed` is raised after all others are made."""
    # For all shards: none starts, and waits for those that cannot.
    plan.check_there(_left(ordered, root), root, _made_by(chosen))
    left = len(_left(own, root))
    print(f"{count(len(own), 'run')}, {left} to make in {root}", flush=True)
    work.Worker(root, ordered, WAIT.value).make(own)


def _left(runs, root) -> list[plan.Run]:
    return [run for run in runs if not plan.is_finished(run, root)]


def _made_by(chosen) -> dict[str, str]:
    return {k: v for each in chosen for k, v in each.made_by.items()}


def _draw(specs, chosen, cells, root) -> list[str]:
    """Prints and writes the tables, and draws the pictures that are missing.

    Returns:
        A line for each table without a single run.
    """
    terminal.announce("loading Matplotlib, which lists the fonts the first time")
    from ctp_jax.report import commands
    from ctp_jax.reproduce import pictures, tables

    flags = [line for name in _OF_TABLES for line in _serialized(FLAGS[name])]
    none_made = []
    for spec, experiment, runs in zip(specs, chosen, cells, strict=True):
        if tables.none_made(runs, root):
            none_made.append(tables.other_flags(experiment, root))
            continue
        shown = table = tables.collect(_entitled(experiment, runs), runs, root)
        if ROWS.value or COLUMNS.value:  # the files are of the whole table
            experiment = experiments.read(spec)
            try:
                runs = runs_lib.Runs(_settings()).cells(experiment)
            except UserError as error:  # in rows that were not asked for
                print(f"{tables.text(shown)}\n\nnote: no files are written: {error}\n")
                continue
            table = tables.collect(_entitled(experiment, runs), runs, root)
        drawn, missing = pictures.draw(experiment, runs, root, _settings())
        table.missing.extend(missing)
        print(f"{tables.text(shown)}\n")
        words = ["python", "-m", "ctp_jax.reproduce", spec, f"--root={root}", *flags]
        command = shlex.join(commands.published(words))
        name = experiment.name + "-small" * (SCALE.value == "small")
        for path in tables.write(table, root, name, command, drawn):
            print(path)
        print()
    return none_made


def _entitled(experiment, cells):
    """The experiment, whose title says so if its runs are small."""
    from ctp_jax.reproduce import tables

    names = {run.config.data.name for run in tables.runs_of(cells)}
    if SCALE.value != "small" or not names:
        return experiment
    title = (
        f"{experiment.title}. Small networks and runs on {', '.join(sorted(names))}: "
        "not to be compared with the paper's numbers"
    )
    return dataclasses.replace(experiment, title=title)


_OF_TABLES = ("scale", "data", "data_dir", "seeds", "splits", "override")
"""Flags that decide which runs a table is of; not where they are, or how they were made."""


def _serialized(flag) -> list[str]:
    """The flag as it can be typed; [] if it has its default."""
    return flag.serialize().split("\n") if flag.present else []


def _root(text: str) -> str:
    """The folder of all runs; it may be relative, as in the commands."""
    if "://" in text:
        raise UserError(
            f"--root={text}: needs a folder on a disk that all workers share"
        )
    root = os.path.normpath(os.path.expanduser(text))
    if os.path.exists(root) and not os.path.isdir(root):
        raise UserError(f"--root={text}: is a file: name a folder")
    return root


def _settings() -> runs_lib.Settings:
    data = {}
    for each in DATA.value:
        role, _, name = each.rpartition("=")
        if not re.fullmatch(r"[^:=]+(:[^:=]+:[^:=]+)?", name):
            raise UserError(f"--data={each}: needs NAME or NAME:TRAIN:TEST")
        data[role] = name
    known = experiments.shared()["DATA"]
    for role in data:
        if role not in ("", *known):
            meant = config.closest(role, known) or ", ".join(known)
            raise UserError(f"--data={role}=...: no data set of the paper: {meant}?")
    overrides = {}
    for each in OVERRIDE.value:
        field, has_value, text = each.partition("=")
        if not has_value:
            raise UserError(f"--override={each}: needs FIELD=VALUE")
        overrides[field.removeprefix("config.")] = text
    data_dir = DATA_DIR.value
    if data_dir and "://" not in data_dir:
        data_dir = os.fspath(files.absolute(data_dir))
    return runs_lib.Settings(
        small=SCALE.value == "small",
        seeds=_numbers("seeds", SEEDS.value, 0),
        splits=_numbers("splits", SPLITS.value, 1, 3),
        data=data,
        data_dir=data_dir,
        overrides=overrides,
    )


def _numbers(flag: str, text: str, low: int, high: int = 2**31 - 1) -> tuple[int, ...]:
    """The whole numbers of a list with commas."""
    items = [each.strip() for each in text.split(",")] if text else []
    for each in items:
        if not each.isdecimal() or not low <= int(each) <= high:
            upper = f" to {high}" if high < 2**31 - 1 else ""
            raise UserError(
                f"--{flag}={text}: needs whole numbers from {low}{upper} with commas, "
                "such as 1,2"
            )
    return tuple(dict.fromkeys(int(each) for each in items))


def _shard(text: str) -> tuple[int, int]:
    """I and N of 'I/N'."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise UserError(f"--shard={text}: needs I/N with I from 0 to N-1, such as 0/4")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    cli.run(main, FLAGS)
