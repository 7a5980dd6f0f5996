"""The interface of evaluators: they take predictions and yield (name, value).

An evaluator is one module `ctp_jax/evaluators/<name>.py` with

    LOOKS_AT = "predictions"    of the task, or "features" of its encoder (`config.probe`),
                                or "sequences": boxes in whole videos (`tasks/tracker.py`)
    make(options, subject)      the `Evaluator`; options are `config.evaluators.<name>`

and `config.evaluators` names it.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax import modules
from ctp_jax.data.batch import Batch

Outputs = Mapping[str, np.ndarray]
"""What `Task.predict` returned, on the host."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What all evaluators of one pass over held-out videos have in common.

    Attributes:
        held_out: `ctp_jax.data.records.Records` of the held-out split; None if it has
            none.
        gallery: those that the run trains on, likewise.
        class_names: of the labels that are predicted.
        shared: objects that the evaluators of a pass make once and share, by name.
    """

    held_out: Any | None = None
    gallery: Any | None = None
    class_names: Sequence[str] = ()
    shared: dict[str, Any] = dataclasses.field(default_factory=dict)


class Evaluator:
    """Collects predictions over one pass over the held-out videos.

    The trainer calls `reset`, then `update` once per batch with host arrays of the
    *global* batch, then `results`, then, on process 0, `save`. Rows where
    `batch['mask']` is 0 are padding.

    Attributes:
        needs_gallery: whether it also needs predictions on the training split, with
            clips like those of held-out videos. They come first, by `update_gallery`.
    """

    needs_gallery = False

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Forgets all predictions."""
        raise NotImplementedError

    def update_gallery(self, batch: Batch, outputs: Outputs) -> None:
        """As `update`, with a batch of the training split."""
        raise NotImplementedError

    def update(self, batch: Batch, outputs: Outputs) -> None:
        """Takes one batch without its frames."""
        raise NotImplementedError

    def results(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, value): floats are logged, arrays and others are saved."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Lines for the user about these results, e.g. what was left out."""
        return []

    def save(self, directory: pathlib.Path) -> None:
        """Writes pictures and tables of the results, if the evaluator has any."""


def load(name: str, options: ConfigDict) -> Any:
    """The module of an evaluator that a config names.

    Args:
        name: of the entry of `config.evaluators`.
        options: `config.evaluators.<name>`. Its `module` is needed if the module has
            another name: a module of this folder, or with a dot the path of another.

    Raises:
        UserError: there is no such module, see `ctp_jax.modules.load`.
    """
    field = f"config.evaluators.{name}" + ".module" * bool(options.module)
    value = str(options.module or name)
    ours = modules.inside("ctp_jax.evaluators", *NO_EVALUATORS)
    return modules.load(field, "evaluator", value, ours, "LOOKS_AT", "make")


NO_EVALUATORS = ("base", "feature_bank", "nearest", "neighbour_sheet", "tracks")
