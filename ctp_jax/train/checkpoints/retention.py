"""Which checkpoints stay."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ctp_jax.errors import UserError
from ctp_jax.train.checkpoints.layout import CheckpointLayout
from ctp_jax.train.checkpoints.manifest import Damage


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
    permanent: Callable[[int], bool] = lambda step: False

    def score(self, meta: Mapping[str, Any]) -> float | None:
        """How good a step is, higher is better; None if no evaluation says it.

        Args:
            meta: of the step: `results`, and `evaluated`, whether they are of this very
                step and not of one before.
        """
        value = meta["results"].get(self.by.removeprefix("-"))
        if not meta["evaluated"] or not isinstance(value, (int, float)):
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
        policy: RetentionPolicy,
        layout: CheckpointLayout,
        say: Callable[[str], None],
    ):
        self._policy, self._layout, self._say = policy, layout, say
        self._scores: dict[int, float | None] = {}
        self._told = False

    def note_evaluation(self, step: int, meta: Mapping[str, Any]) -> None:
        """Takes the score of a step from here, and not from what was saved with it.

        Says, once, if the evaluation has no such number as the policy asks for.

        Args:
            step: steps done.
            meta: as `RetentionPolicy.score` wants it, and `by_all_evaluators`, whether
                none of them was left out.
        """
        policy = self._policy
        if not policy.best:
            return
        self._scores[step] = policy.score(meta)
        results = meta["results"]
        missing = policy.by.removeprefix("-") not in results
        # Evaluators with a slower rhythm have their turn later.
        judged = meta["evaluated"] and meta["by_all_evaluators"]
        if missing and judged and not self._told:
            there = f"there are {', '.join(results)}" if results else "there is none"
            self._say(
                f"note: config.keep_best_by = {policy.by!r}: no such number in the "
                f"evaluation ({there}), so no checkpoint counts as one of the best"
            )
            self._told = True

    def delete_surplus(self) -> None:
        """Deletes the steps that need not stay."""
        steps = self._layout.steps()
        try:
            self._scores = {
                step: self._scores[step] if step in self._scores else self._score(step)
                for step in steps
            }
        except UserError as error:  # it may be the best of all
            self._say(f"note: no checkpoint is deleted this time: {error}")
            return
        for step in self._policy.surplus(self._scores):
            self._layout.delete(step)

    def _score(self, step: int) -> float | None:
        if not self._policy.best:
            return None
        try:
            return self._policy.score(self._layout.read_meta(step))
        except Damage:  # nobody will go back to it
            return None
