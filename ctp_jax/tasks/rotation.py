"""3DRotNet: by how many quarter turns is the clip rotated?

Jing et al., "Self-Supervised Spatiotemporal Feature Learning via Video Rotation
Prediction", arXiv:1811.11387; the numbers are those of the CtP authors' release. All
frames of a clip are turned alike, counter-clockwise, by an exact permutation of pixels.
The release turns about a point half a pixel off the centre and fills the border, so that
a network can read the answer off the first row and column; `config.rotation.leaking_border`
does the same. In the paper, a batch has all four rotations of a clip: `all_four`.

Symbols: b videos, c clips, t frames, s side of the clip.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ctp_jax.data.batch import Batch
from ctp_jax.tasks import classification


class Task(classification.Task):
    """See `configs/rotation.py` for its options."""

    class_names = ("0°", "90°", "180°", "270°")

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour  # imports TensorFlow

        num_frames = self.config.clip.num_frames
        label = rng.integer((), len(self.class_names))
        if train and self.config.rotation.all_four:
            # (b, 4), the same for every video; what was drawn is not used.
            every = np.arange(len(self.class_names), dtype=np.int32)
            label = 0 * label[:, None] + every
        colours = colour.sample_clip_colour(rng, self.config.colour, num_frames)
        return {"label": label, **colours}

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """With a label for each of four clips, the only clip is shown four times."""
        clips = classification.change_colours(super().draw(batch), batch["plan"])
        quarters = batch["plan"]["label"].reshape(len(clips), -1)
        clips = jnp.broadcast_to(clips, (*quarters.shape, *clips.shape[2:]))
        turned = jax.vmap(jax.vmap(rotate))(clips, quarters)
        if self.config.rotation.leaking_border:
            turned = jax.vmap(jax.vmap(shift_into_border))(turned, quarters)
        return turned


def rotate(
    clips: Float[Array, "*b s s 3"], quarters: Int[Array, ""]
) -> Float[Array, "*b s s 3"]:
    """Turns clips counter-clockwise by 0 to 3 quarters, exactly."""
    clips = jnp.where(quarters % 2 == 1, jnp.swapaxes(clips, -3, -2), clips)
    upside_down = (quarters == 1) | (quarters == 2)
    clips = jnp.where(upside_down, clips[..., ::-1, :, :], clips)
    return jnp.where(quarters >= 2, clips[..., ::-1, :], clips)


def shift_into_border(
    clips: Float[Array, "*b s s 3"], quarters: Int[Array, ""]
) -> Float[Array, "*b s s 3"]:
    """Makes of an exact rotation the one of the authors' release.

    It is one pixel further down after 1 and 2 quarters, and to the right after 2 and 3;
    the first row or column is repeated.
    """
    down = jnp.concatenate([clips[..., :1, :, :], clips[..., :-1, :, :]], axis=-3)
    clips = jnp.where((quarters == 1) | (quarters == 2), down, clips)
    right = jnp.concatenate([clips[..., :1, :], clips[..., :-1, :]], axis=-2)
    return jnp.where(quarters >= 2, right, clips)
