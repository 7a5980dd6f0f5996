"""Conversion between steps and epochs.

An epoch is `num_examples` videos, not a whole number of steps: a batch may span the end
of an epoch, so no video is dropped and step s (from 0) starts at video s * batch_size.
"""

import dataclasses
import math

from ctp_jax.errors import UserError
from ctp_jax.ranges import LARGEST

# Epochs in configs are decimals: 0.1 * 30 must count as 3.
_SLACK = 1e-9


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Converts between steps and epochs.

    Attributes:
        num_examples: videos in the split.
        batch_size: videos in a step, over all devices.
    """

    num_examples: int
    batch_size: int

    def at(self, step: int) -> float:
        """Epochs done after `step` steps."""
        return step * self.batch_size / self.num_examples

    def first_step(self, epoch: float) -> int:
        """The first step that starts at or after this epoch."""
        return math.ceil(epoch * self.num_examples / self.batch_size - _SLACK)

    def passes(self, step: int, every: float) -> bool:
        """Whether the end of step number `step` is the first after k * every epochs.

        Args:
            step: steps done.
            every: epochs between events; 0 means never.
        """
        if every <= 0 or step <= 0:
            return False
        events = math.floor(self.at(step) / every + _SLACK)
        return events > 0 and self.first_step(events * every) == step

    def total_steps(self, epochs: float, steps: int) -> int:
        """The steps of a run: `steps`, or if that is 0, those of `epochs` epochs.

        0 if both are 0: a run that only evaluates.

        Raises:
            UserError: more than devices can count.
        """
        if steps > 0 or epochs == 0:
            return steps
        total = max(1, self.first_step(epochs))
        if total > LARGEST:
            raise UserError(
                f"config.epochs = {epochs}: {total} steps: needs at most {LARGEST} steps"
            )
        return total
