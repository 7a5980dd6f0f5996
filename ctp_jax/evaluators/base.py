"""The interface of evaluators: fed predictions, they yield (name, value)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class Evaluator:
    """Gathers predictions over one pass of held-out videos.

    The trainer calls `reset`, then `update` once per batch with host arrays of the
    *global* batch, then `results`. Rows where `batch['mask']` is 0 are padding.
    """

    def reset(self) -> None:
        """Forgets everything."""
        raise NotImplementedError

    def update(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Takes one batch (arrays that are small: no frames) and `Task.predict`."""
        raise NotImplementedError

    def results(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, value): floats to log, arrays and others to keep."""
        raise NotImplementedError
