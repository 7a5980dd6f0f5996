"""Which checkpoints stay."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ctp_jax.errors import UserError
from ctp_jax.train.checkpoints.layout import CheckpointLayout
from ctp_jax.train.checkpoints.manifest import Damage


def _never(step: int) -> bool:
    return False


@dataclasses.dataclass(frozen=True)
class RetentionPolicy:
    """Steps that are none of these are deleted once a newer one is complete.

    Attributes:
        last: how many of the newest, 1 or more.
        best: how many of those with the best number `by`.
        by: a number of the evaluation; with a minus in front, lower is better.
        permanent: whether a step stays for good.
    """

    last: int
    best: int = 0
    by: str = ""
    permanent: Callable[[int], bool] = _never

    def score(self, meta: Mapping[str, Any]) -> float | None:
        """How good a step is, higher is better; None if no evaluation says it.

        Args:
            meta: of the step: `results`, and `evaluated`, whether they are of this very
                step and not of one before.
        """
        value = meta.get("results", {}).get(self.by.removeprefix("-"))
        if not meta.get("evaluated", True) or not isinstance(value, (int, float)):
            return None
        if math.isnan(value):
            return None
        return -value if self.by.startswith("-") else value

    def surplus(self, scores: Mapping[int, float | None]) -> list[int]:
        """The steps to delete, out of {step: score}. Of equals the newer is better."""
        steps = sorted(scores)
        scored = [step for step in steps if scores[step] is not None]
        scored.sort(key=lambda step: (scores[step], step), reverse=True)
        stay = {*steps[-self.last :], *scored[: self.best]}
        return [step for step in steps if step not in stay and not self.permanent(step)]


class Retention:
    """Has the folders of a run obey a policy. For process 0."""

    def __init__(
        self,
        keep: RetentionPolicy,
        folders: CheckpointLayout,
        say: Callable[[str], None],
    ):
        self._keep, self._folders, self._say = keep, folders, say
        self._scores: dict[int, float | None] = {}
        self._told = False

    def look_at(self, meta: Mapping[str, Any]) -> None:
        """Says, once, if the evaluation has no such number as the policy asks for."""
        keep, results = self._keep, meta.get("results", {})
        if self._told or not keep.best or not meta.get("evaluated", True):
            return
        if keep.by.removeprefix("-") not in results:
            there = f"there are {', '.join(results)}" if results else "there is none"
            self._say(
                f"note: config.keep_best_by = {keep.by!r}: no such number in the "
                f"evaluation ({there}), so no checkpoint counts as one of the best"
            )
            self._told = True

    def forget(self, step: int) -> None:
        """Has the score of a step read again: its meta is another now."""
        self._scores.pop(step, None)

    def delete_surplus(self) -> None:
        """Deletes the steps that need not stay."""
        steps = self._folders.steps()
        try:
            self._scores = {
                step: self._scores[step] if step in self._scores else self._score(step)
                for step in steps
            }
        except UserError as error:  # it may be the best of all
            self._say(f"note: no checkpoint is deleted this time: {error}")
            return
        for step in self._keep.surplus(self._scores):
            self._folders.delete(step)

    def _score(self, step: int) -> float | None:
        if not self._keep.best:
            return None
        try:
            return self._keep.score(self._folders.read_meta(step))
        except Damage:  # nobody will go back to it
            return None
