"""MoCo on video: two clips of a video are alike, those of other videos are not.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
with the head of MoCo v2; clips and numbers are those of the CtP authors' release. Both clips
are drawn from the video independently: frames, crop, flip and colours.

Symbols: b videos, c = 2 clips, t frames, s side of the clip.
"""

from typing import Any

import jax
from jaxtyping import Array, Float

from ctp_jax.data.batch import Batch
from ctp_jax.tasks import classification, momentum


class Task(momentum.Task):
    """See `configs/moco.py` for its options."""

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour  # imports TensorFlow

        return colour.sample_clip_colour(
            rng.split(2), self.config.colour, self.config.clip.num_frames
        )

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        clips = super().draw(batch)
        # As if each clip were a video: it has colours of its own.
        plan, each = jax.tree.map(
            lambda rows: rows.reshape(-1, *rows.shape[2:]), (batch["plan"], clips)
        )
        changed = classification.change_colours(each[:, None], plan)
        return changed.reshape(clips.shape)
