"""Which clips of a batch have their boxes from where: `config.truth` (paper Table 1).

Clips have their sources in turn, by their position in the run, so every batch has exactly
the shares that the config says. Those of one source stand together in a period.
"""

from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from ctp_jax.data.plans import SOURCES

_FOLLOWED = {"real": "boxes", "teacher": "tracks"}
"""The annotations that boxes of a source are."""


class Mixture:
    """The sources of consecutive clips.

    Attributes:
        period: names of the sources of so many clips, in turn.
    """

    def __init__(self, config: ConfigDict):
        """Takes the whole config."""
        truth = config.truth
        self.period = [name for name in SOURCES for _ in range(truth[name])]
        self._parts = config.optimizer.accumulate

    def entries(self, train: bool) -> list[str]:
        """The sources of the clips as entries of `ClipSpec.follow`; [] for games only.

        In an evaluation, clips with cycles are played as the game: their true boxes must
        be known. With `config.optimizer.accumulate`, every source comes so often in a
        row: a part of the batch takes its rows in turn, and has whole periods that way.
        """
        sources = [
            "preset" if name == "cycle" and not train else name
            for name in self.period
            for _ in range(self._parts)
        ]
        return sources if set(sources) != {"preset"} else []

    def follow(self, train: bool) -> tuple[str, ...]:
        """`ClipSpec.follow`."""
        return tuple(_FOLLOWED.get(name, "") for name in self.entries(train))

    def share(self, source: str) -> float:
        """The share of the clips that have a source."""
        return self.period.count(source) / len(self.period)

    def of(self, source: str, rows: Any) -> Any:
        """The rows of the clips with a source.

        Args:
            source: one of the period.
            rows: (b, ...), a batch or a part of it. Where every device has whole periods,
                its rows stay there.
        """
        periods, here = self._periods(rows, source)
        return periods[:, here].reshape(-1, *rows.shape[1:])

    def put(self, source: str, rows: Any, new: Any) -> Any:
        """`rows` with those of a source replaced by the rows `new`, or by a number."""
        periods, here = self._periods(rows, source)
        old = periods[:, here]
        new = jnp.broadcast_to(new, old.shape) if jnp.ndim(new) == 0 else new
        parts = [
            periods[:, : here.start],
            new.reshape(old.shape),
            periods[:, here.stop :],
        ]
        return jnp.concatenate(parts, axis=1).reshape(rows.shape)

    def _periods(self, rows: Any, source: str) -> tuple[Any, slice]:
        """The rows by period, and where a source is in each."""
        first = self.period.index(source)
        here = slice(first, first + self.period.count(source))
        return rows.reshape(-1, len(self.period), *rows.shape[1:]), here
