"""What a run prints: notes, a line per interval, the numbers of an evaluation."""

from collections.abc import Mapping
from typing import Any

import jax

from ctp_jax import results as results_lib
from ctp_jax.errors import shown
from ctp_jax.formatting import duration, folded, number, wrapped


def say(line: str) -> None:
    """Prints a line on process 0 only, folded if it is long."""
    if jax.process_index() == 0:
        print(folded(shown(line)), flush=True)


def say_here(line: str) -> None:
    """Prints a line about this process, with its number if there are several."""
    several = jax.process_count() > 1
    print(folded(f"process {jax.process_index()}: " * several + line), flush=True)


def say_first_step(seconds: float) -> None:
    """Says how long the first step took, unless that was short."""
    if seconds > 5:
        say(f"first step: {duration(seconds)}, compilation included")


def train_line(
    step: int,
    total: int,
    epochs: tuple[float, float],
    values: Mapping[str, float],
) -> str:
    """The line printed during training.

    Metrics named `loss_<part>` follow the loss in brackets, then come the other metrics.

    Args:
        step: steps done.
        total: steps of the run.
        epochs: done, and of the run.
        values: metrics, and those of `Meter.read`.
    """
    parts = {k[5:]: v for k, v in values.items() if k.startswith("loss_")}
    brackets = " ".join(f"{name} {number(value)}" for name, value in parts.items())
    width = len(f"{epochs[1]:.1f}")
    fields = [
        f"step {step:>{len(str(total))}}/{total}",
        f"epoch {epochs[0]:>{width}.1f}",
        f"loss {number(values['loss'])}" + (f" ({brackets})" if parts else ""),
    ]
    for name, value in values.items():
        if name not in _PLACED and not name.startswith("loss_"):
            fields.append(f"{name} {number(value)}")
    if "grad_norm" in values:
        fields.append(f"grad {number(values['grad_norm'])}")
    if "learning_rate" in values:
        fields.append(f"lr {values['learning_rate']:.3g}")
    if values.get("replaced"):
        fields.append(f"{values['replaced']:.0f} replaced")
    if "clips_per_second" in values:
        fields.append(f"{values['clips_per_second']:5.1f} clips/s")
        fields.append(f"input {round(100 * values['input_share']):>2}%")
        fields.append(f"eta {duration(values['eta'])}")
    return wrapped(fields)


_PLACED = ("loss", "grad_norm", "learning_rate", "epoch", "replaced")
_PLACED += ("clips_per_second", "input_share", "eta")


def eval_line(step: int, values: Mapping[str, Any], seconds: float) -> str:
    """What is printed after an evaluation: its numbers and its duration.

    On lines of at most 100 characters; all but the first begin with spaces.
    """
    numbers = [f"{name} {text}" for name, text in results(values).items()]
    return wrapped([f"eval at step {step}:", *numbers, f"({duration(seconds)})"])


def results(values: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of an evaluation as text, each with that of its baseline."""
    texts = {}
    for name, each in results_lib.results(values).items():
        known = [(each.baseline, each.how), *each.more]
        beside = ", ".join(f"{how}: {number(v)}" for v, how in known if v is not None)
        texts[name] = number(values[name]) + f" ({beside})" * bool(beside)
    return texts
