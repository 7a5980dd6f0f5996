"""The interface of evaluators: fed predictions, they yield (name, value)."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class Evaluator:
    """Gathers predictions over one pass of held-out videos.

    The trainer calls `reset`, then `update` once per batch with host arrays of the
    *global* batch, then `results`, then, on process 0, `save`. Rows where
    `batch['mask']` is 0 are padding.

    Attributes:
        needs_gallery: whether it also wants predictions on the training split, cut and
            cropped as held-out videos are; they come first, through `update_gallery`.
    """

    needs_gallery = False

    def reset(self) -> None:
        """Forgets everything."""
        raise NotImplementedError

    def update_gallery(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """As `update`, with a batch of the training split."""
        raise NotImplementedError

    def update(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Takes one batch (arrays that are small: no frames) and `Task.predict`."""
        raise NotImplementedError

    def results(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, value): floats to log, arrays and others to keep."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Lines for the user about these results, e.g. what was left out."""
        return []

    def save(self, directory: pathlib.Path) -> None:
        """Writes pictures and tables of what `results` yielded, if there are any."""
