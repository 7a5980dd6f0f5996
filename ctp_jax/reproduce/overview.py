"""The table of docs/experiments.md: what each experiment takes, from its file."""

import pathlib
from collections.abc import Sequence

from ctp_jax import formatting
from ctp_jax.errors import UserError
from ctp_jax.reproduce import experiments, plan, runs
from ctp_jax.storage import files

BEGIN, END = "<!-- experiments -->\n", "<!-- end of experiments -->\n"
_HEADS = ("", "runs per seed", "hours", "data", "measured here", "rows without a run")

_ONE_SEED = runs.Settings(seeds=(0,))


def update(path: pathlib.Path, clips_per_second: float) -> None:
    """Writes the table between the two marks of a page; `UserError` without marks."""
    text = path.read_text() if path.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(
            f"--overview={path}: needs the marks {BEGIN.strip()!r} and {END.strip()!r}"
        )
    with files.replacing(path) as new:
        new.write_text(before + BEGIN + table(clips_per_second) + END + after)


def table(clips_per_second: float) -> str:
    """Markdown: a row for each experiment, and one for all of the paper's together."""
    rules = ("---", "---:", "---:", "---", "---", "---")
    rows, everything = [], {}
    for name in experiments.names():
        own, experiment = runs.Runs(_ONE_SEED), experiments.read(name)
        cells = own.cells(experiment)
        if name.startswith(("table", "fig")):
            everything |= own.by_name
        data = dict.fromkeys(run.config.data.name for run in own.by_name.values())
        why = [
            f"{row}: {text}"
            for (row, _), text in cells.items()
            if text and isinstance(text, str)
        ]
        rows.append(
            (
                f"`{name}` {experiment.title.partition(': ')[2] or experiment.title}",
                *_amount(list(own.by_name.values()), clips_per_second),
                ", ".join(data),
                experiment.measured,
                "; ".join(dict.fromkeys(why)),
            )
        )
    total = _amount(list(everything.values()), clips_per_second)
    rows.append(
        ("the paper's tables and figures, shared runs once", *total, "", "", "")
    )
    return "\n".join(formatting.markdown(_HEADS, rows, rules)) + "\n"


def _amount(needed: Sequence[runs.Run], rate: float) -> tuple[str, str]:
    """(number of runs, their hours and how many are of unknown length)."""
    amounts = [plan.clips(run, published=True) for run in runs.in_order(needed)]
    known = [each for each in amounts if each is not None]
    hours = sum(known) / rate / 3600
    hours = f"{hours:,.0f}" if hours >= 0.5 else "below 1" * bool(known)
    unknown = len(amounts) - len(known)
    return str(len(amounts)), hours + f" and {unknown} of unknown length" * bool(
        unknown
    )
