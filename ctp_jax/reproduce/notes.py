"""What must be known to read the numbers of a table: videos, baselines, errors."""

from collections.abc import Iterable, Mapping, Sequence

from ctp_jax import results
from ctp_jax.reproduce.experiments import Experiment

PAPER = "“paper” is the number of the CtP paper, or of the paper that it cites"
SPREAD = "± is the sample standard deviation over seeds and splits"


def lines(
    experiment: Experiment,
    values: Mapping[tuple[str, str], Sequence[float]],
    measured: Mapping[str, Sequence[Mapping[str, results.Result]]],
) -> list[str]:
    """Notes for below a table; those that columns share are one.

    Args:
        experiment: whose table it is.
        values: {(row, column): numbers over splits and seeds}.
        measured: {label of a column: the evaluations of its runs}.
    """
    found = [SPREAD] * any(len(each) > 1 for each in values.values())
    found += [PAPER] * any(row.paper for row in experiment.rows)
    labels: dict[str, list[str]] = {}
    for column in experiment.columns:
        known = (each.get(column.metric) for each in measured.get(column.label, ()))
        if about := _about([each for each in known if each]):
            labels.setdefault(about, []).append(column.label)
    return [
        *found,
        *(f"{', '.join(names)}: {about}" for about, names in labels.items()),
    ]


def _about(found: Sequence[results.Result]) -> str:
    """'96 videos; chance 17.7 %; one run has a standard error of up to 4.9 points'."""
    parts = []
    if videos := sorted(each.videos for each in found if each.videos):
        noun = "video" if videos[-1] == 1 else "videos"
        parts.append(f"{_range(f'{count:,}' for count in videos)} {noun}")
    baselines: dict[str, list[float]] = {}
    for each in found:
        if each.baseline is not None:
            baselines.setdefault(each.how, []).append(each.baseline)
    for how, known in baselines.items():
        shown = _range(results.show(found[0].name, value) for value in sorted(known))
        parts.append(f"{how} {shown}")
    if errors := [each.error for each in found if each.error]:
        most = f"{100 * max(errors):.1f}"
        parts.append(f"one run has a standard error of up to {most} points")
    return "; ".join(parts)


def _range(texts: Iterable[str]) -> str:
    """'7', or '7 to 9' of texts in their order."""
    every = list(dict.fromkeys(texts))
    return " to ".join(dict.fromkeys([every[0], every[-1]]))
