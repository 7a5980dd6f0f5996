"""Tubelet contrast: two videos with the same moving patches are alike, whatever they show.

Thoker et al., "Tubelet-Contrastive Self-Supervision for Video-Efficient Generalization",
ICCV 2023, on the code of Catch-the-Patch; the numbers are those of its release. Patches
are cut from a clip of one video, move on smooth paths and rotate: tubelets. They are pasted
on this clip, the query, and on one of another video, the key. Nothing else is common to
the two, and the negatives of the queue have other tubelets.

The other video of video i is the next one of those that are computed together, i + 1 of the
global batch without `optimizer.accumulate`, and of the last, the first.

Symbols: b videos, c = 2 clips, n tubelets, t frames, s side of the clip.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.ops import paste, tubelets
from ctp_jax.tasks import base, classification, momentum


class Task(momentum.Task):
    """See `configs/tubelet.py` for its options."""

    shows = "game"

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        # Pictures are drawn one video at a time.
        if config.batch_size > 1:
            count = config.batch_size // config.optimizer.accumulate
            base.check_videos(count, "a pair of videos")

    # On the host -----------------------------------------------------------------

    def clip_spec(self, train: bool) -> ClipSpec:
        """One clip per video: it is the query of one pair, and the key of another."""
        return dataclasses.replace(super().clip_spec(train), num_clips=1)

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour  # import TensorFlow
        from ctp_jax.data.plans import tubelets as plans

        clip = self.config.clip
        plan = plans.sample_tubelets(rng, self.config.game, clip.num_frames, clip.size)
        colours = colour.sample_clip_colour(rng, self.config.colour, clip.num_frames)
        return plan | colours

    # On the device ---------------------------------------------------------------

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """Query and key of every pair; their colours change alike."""
        plan, clips = batch["plan"], super().draw(batch)[:, 0]
        pair = jnp.stack([clips, jnp.roll(clips, -1, axis=0)], axis=1)
        patches = paste.Patches(**{name: plan[name] for name in paste.Patches._fields})
        inverse = tubelets.inverse_map(plan["degrees"], plan["shear"])
        pair = tubelets.paste_tubelets(pair, clips, patches, inverse)
        return classification.change_colours(pair, plan)

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        base.check_videos(len(batch["flip"]), "a pair of videos")
        return super().loss(variables, batch, step, rng)

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """As of every task of pairs; the key of the last video shows the first one.

        Rows that pad an evaluation repeat the last video, which would be its own key.
        """
        real = batch["mask"] > 0

        def first_where_none(rows):
            some = real.reshape(-1, *[1] * (rows.ndim - 1))
            return jnp.where(some, rows, rows[jnp.argmax(real)])

        return super().predict(variables, jax.tree.map(first_where_none, dict(batch)))

    # Off the device --------------------------------------------------------------

    def overlay(self, batch: Batch, outputs=None) -> base.Overlay:
        """The boxes that hold the tubelets as they are drawn, the same in both clips."""
        plan = jax.tree.map(jnp.asarray, batch["plan"])
        inverse = tubelets.inverse_map(plan["degrees"], plan["shear"])
        boxes = np.asarray(tubelets.bounding_boxes(plan["boxes"], inverse))
        boxes = np.clip(boxes, 0.0, self.config.clip.size)
        boxes = np.stack([boxes, boxes], axis=1)
        captions = []
        for degrees in np.asarray(plan["degrees"][:, :, -1], int):
            turned = " and ".join(f"{each:+d}" for each in degrees)
            captions.append(
                f"query, then key (the next video): tubelets turn by {turned} degrees"
            )
        return base.Overlay(captions, boxes)
