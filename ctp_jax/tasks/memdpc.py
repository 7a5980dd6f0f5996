"""MemDPC: DPC whose predictions are mixed from a memory, forwards and backwards.

Han et al., "Memory-augmented Dense Predictive Coding for Video Representation Learning",
ECCV 2020, with the numbers of the CtP authors' release; docs/methods.md says where
MemDPC's own code differs.
"""

from typing import Any

from jaxtyping import Array, Float

from ctp_jax.data.batch import Batch
from ctp_jax.tasks import classification, dpc, encoder


class Task(dpc.Task):
    """See `configs/memdpc.py` for its options."""

    both_ways = True

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour  # imports TensorFlow

        clip = self.config.clip
        return colour.sample_clip_colour(rng, self.config.colour, clip.num_frames)

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The blocks; all frames of a video have the same change of colour."""
        return classification.change_colours(
            encoder.Task.draw(self, batch), batch["plan"]
        )
