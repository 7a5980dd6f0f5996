"""What a run has come to, in a sentence, and the run that it is to be compared with."""

import math
from typing import NamedTuple

from ctp_jax import config as config_lib
from ctp_jax import results
from ctp_jax.errors import UserError
from ctp_jax.formatting import count, number
from ctp_jax.report import read
from ctp_jax.report.read import Run, finite

_FAR = 1.5  # times the loss at the start, at the end of a run that has diverged
_MOST = 300  # folders that are looked through
_MAY_DIFFER = ("init_", "seed", *config_lib.PLUMBING)


class Other(NamedTuple):
    """A run that differs by the encoder that it starts from: it starts from none.

    Attributes:
        run: it.
        how: what its encoder is, in words.
    """

    run: Run
    how: str


def other(run: Run) -> Other | None:
    """The same run without `init_from`, if it lies beside this one and is finished.

    Of several, one of the same seed comes first.
    """
    if not run.fields.get("init_from"):
        return None
    how = "a random encoder" if evaluates_only(run) else "training from scratch"
    found = []
    for path in sorted(run.path.parent.glob("*/config.json"))[:_MOST]:
        try:
            each = read.read(path.parent)
        except UserError:
            continue
        if not each.fields.get("init_from") and _same(each, run) and each.results():
            found.append(each)
    same = [each for each in found if each.fields.get("seed") == run.fields.get("seed")]
    return Other((same or found)[0], how) if found else None


def _same(one: Run, two: Run) -> bool:
    """Whether runs agree in every field but those of `_MAY_DIFFER`, and in their steps."""
    kept = (
        {k: v for k, v in run.fields.items() if not k.startswith(_MAY_DIFFER)}
        for run in (one, two)
    )
    return next(kept) == next(kept) and one.step == two.step


def evaluates_only(run: Run) -> bool:
    """Whether a run trains nothing: `config.epochs = 0`."""
    return run.fields.get("epochs") == 0 and not run.fields.get("steps")


def total_steps(run: Run) -> int | None:
    """How many steps the run has by its config; None if that is not known."""
    steps, epochs = (finite(run.fields.get(n)) or 0 for n in ("steps", "epochs"))
    if steps or not epochs:
        return round(steps)
    known = [line for line in run.train if line.get("epoch")]
    return round(epochs * known[-1]["step"] / known[-1]["epoch"]) if known else None


def is_finished(run: Run) -> bool:
    """Whether all its steps are done."""
    total = total_steps(run)
    return total is not None and (run.step or 0) >= total


def diverged(run: Run) -> str:
    """What speaks for it that training went astray; '' if nothing does."""
    losses = [line["loss"] for line in run.train if "loss" in line]
    if losses and losses[-1] is None:
        return "it diverged: the loss is not finite"
    known = [loss for loss in losses if loss is not None]
    if len(known) < 2:
        return ""
    # The loss of a contrast rises while its queue fills, at most to that of guesses.
    queue = finite(run.fields.get("contrast.queue")) or 0
    start = max(known[0], math.log1p(max(queue, 0)))
    if known[-1] <= _FAR * start or start <= 0:
        return ""
    return (
        f"it diverged: the loss is {number(known[-1])} at the end, {number(known[0])} at "
        "the start"
    )


_FOLLOWED = {"preset": "patches", "real": "objects", "teacher": "a tracker's boxes"}
"""What a run follows, by the first source of its boxes (`config.truth`) that it has."""


def verdict(run: Run, beside: Other | None) -> str:
    """What the run has come to: a sentence without its full stop, '' for nothing.

    Args:
        run: finished or not.
        beside: of `other`.
    """
    said = []
    if not is_finished(run):
        of = f" of {total:,}" if (total := total_steps(run)) else ""
        said.append(f"not finished, {run.step or 0:,}{of} steps")
    if astray := diverged(run):
        said.append(astray)
    shares = {each: finite(run.fields.get(f"truth.{each}")) for each in _FOLLOWED}
    objects = next((_FOLLOWED[each] for each, share in shares.items() if share), None)
    measured = run.measured()
    if sentence := results.sentence(measured, objects or "patches"):
        said.append(sentence)
    elif len(run.train) > 1 and not astray:
        first, last = (number(run.train[i].get("loss") or 0) for i in (0, -1))
        said.append(f"not evaluated: training loss {first} at first, {last} at the end")
    main = results.main_metric(measured)
    if beside and main and (found := beside.run.measured().get(main)):
        standing = results.standing(measured[main], found.value, found.error or 0.0)
        than = {results.BETTER: "better than", results.WORSE: "worse than"}
        value = results.show(main, found.value, found.error)
        said.append(
            f"{than.get(standing, 'no better than')} {beside.how}, {value} "
            f"({beside.run.name})"
        )
    return "; ".join(said)


def glossary(run: Run) -> list[tuple[str, str]]:
    """What the metrics of a run mean: [(name in words, meaning)]."""
    found = {}
    for name in run.measured():
        if meaning := results.meaning(name):
            found.setdefault(meaning, results.label(name))
    lines = [(label, meaning) for meaning, label in found.items()]
    hows = {each.how for each in run.measured().values()}
    hows |= {how for each in run.measured().values() for _, how in each.more}
    meant = {
        "a box that stays": "the given first box, in every frame",
        "the tracker KCF": "correlation filters, which learn nothing before the video",
        "chance": "what guesses come to that look at no video: always the class with the "
        "most videos, or videos drawn at random",
    }
    lines += [(how, meaning) for how, meaning in meant.items() if how in hows]
    if any(each.error is not None for each in run.measured().values()):
        lines.append(
            ("±", "standard error of a share p of n videos, the root of p (1 - p) / n")
        )
    return lines


def videos(run: Run) -> str:
    """'160 held-out videos', or '100 to 160 held-out videos' of several evaluators."""
    counts = {each.videos for each in run.measured().values() if each.videos}
    if not counts:
        return "held-out videos"
    low, high = min(counts), max(counts)
    return f"{low:,} to " * (low < high) + count(high, "held-out video")
