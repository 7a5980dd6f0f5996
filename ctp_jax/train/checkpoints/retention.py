"""Which checkpoints are kept."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ctp_jax.errors import UserError
from ctp_jax.train.checkpoints.layout import CheckpointLayout, OtherStep
from ctp_jax.train.checkpoints.manifest import Damage


@dataclasses.dataclass(frozen=True)
class RetentionPolicy:
    """Steps to keep; all others are deleted once a newer step is complete.

    Attributes:
        last: number of newest steps, 1 or more.
        best: number of steps with the best metric `by`.
        by: a metric of the evaluation; with a minus in front, lower is better.
        permanent: whether a step is kept for good.
    """

    last: int
    best: int = 0
    by: str = ""
    permanent: Callable[[int], bool] = lambda step: False

    def score(self, meta: Mapping[str, Any]) -> float | None:
        """The score of a step, higher is better; None without an evaluation of it.

        Args:
            meta: of the step: `results` of the last evaluation, and `evaluated`,
                whether that was of this step and not of an earlier one.
        """
        value = meta.get("results", {}).get(self.by.removeprefix("-"))
        if not meta.get("evaluated") or not isinstance(value, (int, float)):
            return None
        if math.isnan(value):
            return None
        return -value if self.by.startswith("-") else value

    def surplus(self, scores: Mapping[int, float | None]) -> list[int]:
        """The steps of {step: score} to delete. Of equal scores the newer is better."""
        steps = sorted(scores)
        scored = [step for step in steps if scores[step] is not None]
        scored.sort(key=lambda step: (scores[step], step), reverse=True)
        stay = {*steps[-self.last :], *scored[: self.best]}
        return [step for step in steps if step not in stay and not self.permanent(step)]


class Retention:
    """Applies a policy to the checkpoints of a run. For process 0 only."""

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
        """Takes the score of a step from `meta`, and not from the saved step.

        Prints a note, once, if the evaluation lacks the metric of the policy.

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
        # Evaluators that run less often may still yield it.
        judged = meta["evaluated"] and meta["by_all_evaluators"]
        if missing and judged and not self._told:
            known = ", ".join(results) or "none"
            self._say(
                f"note: config.keep_best_by = {policy.by!r}: no such metric, so no "
                f"checkpoint is kept as one of the best; metrics: {known}"
            )
            self._told = True

    def delete_surplus(self, newest: int) -> None:
        """Deletes the steps that the policy does not keep.

        Steps that someone has copied or renamed neither count nor are deleted.

        Args:
            newest: the step that was just saved.
        """
        scores = {}
        try:
            for step in self._layout.steps():
                if step <= newest:
                    with contextlib.suppress(OtherStep):
                        scores[step] = self._score(step)
        except UserError as error:  # an unreadable step may be the best
            self._say(f"note: no checkpoint is deleted this time: {error}")
            return
        self._scores = scores
        for step in self._policy.surplus(scores):
            self._layout.delete(step)

    def _score(self, step: int) -> float | None:
        if step in self._scores:
            return self._scores[step]
        try:
            return self._policy.score(self._layout.read_meta(step))
        except OtherStep:
            raise
        except Damage:  # a damaged step is never restored
            return None
