"""3DRotNet: by how many quarter turns is the clip rotated?

Jing et al., "Self-Supervised Spatiotemporal Feature Learning via Video Rotation
Prediction", arXiv:1811.11387; the numbers are those of the CtP authors' release. All
frames of a clip are turned alike, counter-clockwise, by an exact permutation of pixels.
The release turns about a point half a pixel off the centre and fills the border, so that
a network can read the answer off the first row and column.

Symbols: b videos, c clips, t frames, s side of the clip.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ctp_jax.data.batch import Batch
from ctp_jax.tasks import classification


class Task(classification.Task):
    """See `configs/common.py:pretext` for its options."""

    class_names = ("0°", "90°", "180°", "270°")

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour  # imports TensorFlow

        num_frames = self.config.clip.num_frames
        return {
            "label": rng.integer((), len(self.class_names)),
            **colour.sample_clip_colour(rng, self.config.colour, num_frames),
        }

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        clips = classification.change_colours(super().draw(batch), batch["plan"])
        return jax.vmap(rotate)(clips, batch["plan"]["label"])


def rotate(
    clips: Float[Array, "*b s s 3"], quarters: Int[Array, ""]
) -> Float[Array, "*b s s 3"]:
    """Turns clips counter-clockwise by 0 to 3 quarters, exactly."""
    clips = jnp.where(quarters % 2 == 1, jnp.swapaxes(clips, -3, -2), clips)
    upside_down = (quarters == 1) | (quarters == 2)
    clips = jnp.where(upside_down, clips[..., ::-1, :, :], clips)
    return jnp.where(quarters >= 2, clips[..., ::-1, :], clips)
