"""SpeedNet: how fast, and in which direction, does the clip run?

The seven-way form of the CtP authors' release, where the stride of a clip is its label: it
runs forwards or backwards, or one frame is repeated. The paper that the name is from
(Benaim et al., CVPR 2020, arXiv:2004.06130) tells normal from double speed.

In a video too short for a fast clip the last frame is repeated, which gives the fast classes
away: `config.data.min_frames = 61`, 15 steps of four frames and one, refuses such data.

Symbols: b videos, c clips, t frames, s side of the clip.
"""

from typing import Any

from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError
from ctp_jax.tasks import classification


class Task(classification.Task):
    """See `configs/speednet.py` for its options."""

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        strides = tuple(config.clip.strides)
        if len(strides) < 2 or len(set(strides)) < len(strides):
            raise UserError(
                f"config.clip.strides = {strides}: each is a class, so there must be at "
                "least two, all different"
            )
        self.class_names = [_name(stride) for stride in strides]

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour  # imports TensorFlow

        num_frames = self.config.clip.num_frames
        return {
            "label": batch["choice"][:, 0],
            **colour.sample_clip_colour(rng, self.config.colour, num_frames),
        }

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        return classification.change_colours(super().draw(batch), batch["plan"])


def _name(stride: int) -> str:
    """A stride in words: '2x', 'still', '2x backwards'."""
    return f"{abs(stride)}x" + " backwards" * (stride < 0) if stride else "still"
