"""The table of a comparison for the terminal: metrics down, runs or groups across."""

from collections.abc import Sequence

from ctp_jax.report import words
from ctp_jax.report.groups import Group, group, mean_and_deviation
from ctp_jax.report.read import Run


def table(runs: Sequence[Run]) -> str:
    """Final held-out metrics: of every run, or means over seeds where there are some.

    Args:
        runs: with their names.
    """
    groups = group(runs)
    if all(len(member.runs) == 1 for member in groups):
        groups = [Group(run.name, [run]) for run in runs]
    names = words.ordered({name for run in runs for name in run.results()})
    rows = [["", *(member.label for member in groups)]]
    if any(len(member.runs) > 1 for member in groups):
        rows.append(["runs", *(member.size for member in groups)])
    for name in names:
        columns = [member.values(name) for member in groups]
        cells = [
            words.spread(name, *mean_and_deviation(values)) if values else "–"
            for values in columns
        ]
        rows.append([words.label(name), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(w) for text, w in others)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
