"""Steps and epochs: who asks for "every 10 epochs" asks here.

An epoch is `num_examples` videos, not a whole number of steps: batches run on across
its end, so that no video is dropped and step s always starts at video s * batch_size.
"""

import dataclasses
import math

# Epochs are written in configs as decimals; 0.1 * 30 must still be 3.
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
        """Epochs done once `step` steps are."""
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
        """The length of a run: `steps`, or where that is 0, what `epochs` come to.

        0 where both are: a run that only evaluates.
        """
        if steps > 0 or epochs == 0:
            return steps
        return max(1, self.first_step(epochs))
