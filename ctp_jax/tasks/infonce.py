"""InfoNCE and UberNCE: MoCo with strong and weak clips, and with labels if wanted.

The first stage of CoCLR: Han et al., "Self-supervised Co-training for Video Representation
Learning", NeurIPS 2020; the numbers are those of its release. With `config.contrast.positives
= "own"`, a query has its own key as positive (InfoNCE); with "label", all keys of its class
(UberNCE, which is supervised).

A strong clip has its colours jittered, is grey at times, and blurred. Query and key are
either one clip twice, one of them strong, or two clips, each strong or not by itself. In
evaluation there are always two, none of them strong.

Symbols: b videos, c = 2 clips, n keys in the queue, m = 1 + n, t frames, s side of the clip.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ctp_jax.data import selection
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.ops import blur, colour
from ctp_jax.tasks import base, momentum

SIGMA = (0.1 / 128, 2.0 / 128)
"""Standard deviation of the blur, of the side of the clip; the release's has 128 pixels."""


class Task(momentum.Task):
    """See `configs/infonce.py` for its options."""

    def see_data(self, train: Any, held_out: Any | None) -> None:
        by_label = self.config.contrast.positives == "label"
        if by_label and train.split == self.config.data.split:  # else: to be looked at
            what = "config.contrast.positives = 'label' (unlike 'own')"
            selection.check_labels(train, what, learn=True)

    # Clips -----------------------------------------------------------------------

    def clip_spec(self, train: bool) -> ClipSpec:
        """Two clips or one clip twice; `choice` in the batch says which are strong."""
        spec, contrast = super().clip_spec(train), self.config.contrast
        same, strong = contrast.same_clip * train, contrast.strong * train

        def frame_numbers(rng, num_frames):
            from ctp_jax.data import clips  # imports TensorFlow

            times, _ = clips.sample_times(rng, num_frames, spec)
            two = rng.category((), (same, 1.0 - same))  # 0 or 1
            times = times[:1] + (times - times[:1]) * two
            alone = rng.category((2,), (1.0 - strong, strong))
            first = rng.integer((1,), 2)
            one, other = np.array([[1, -1], [0, 1]], np.int32)
            exactly_one = first * one + other
            return times, alone * two + exactly_one * (1 - two)

        return dataclasses.replace(spec, frame_numbers=frame_numbers)

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        """What is done to a clip if it is strong."""
        from ctp_jax.data.plans import colour as plans  # imports TensorFlow

        each = rng.split(2)
        num_frames, share = self.config.clip.num_frames, self.config.contrast.blur
        blurred = each.category((), (1.0 - share, share))
        return {
            **plans.sample_jitter(each, self.config.jitter, num_frames),
            "blurred": blurred,
            "sigma": each.uniform((), *SIGMA),
        }

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        clips, plan = super().draw(batch), dict(batch["plan"])
        blurred, sigma = plan.pop("blurred"), plan.pop("sigma") * clips.shape[-2]
        changed = colour.jitter(clips, plan)
        changed = blur.gaussian(changed, sigma * blurred)
        strong = batch["choice"][..., None, None, None, None] > 0
        return jnp.where(strong, changed, clips)

    def overlay(self, batch: Batch, outputs=None) -> base.Overlay:
        names = np.array(["weak", "strong"])[np.asarray(batch["choice"])]
        same = (np.asarray(batch["times"][:, 0]) == batch["times"][:, 1]).all(axis=1)
        return base.Overlay(
            [
                f"query {query}, key {key}, of " + ("one clip" if one else "two clips")
                for (query, key), one in zip(names, same, strict=True)
            ],
            clips=("query", "key"),
        )

    # Labels ----------------------------------------------------------------------

    def new_queue(self, rng: jax.Array) -> momentum.Entries:
        """With `label`, -1 where there is no key yet; InfoNCE does not look at it."""
        queue = super().new_queue(rng)
        return {**queue, "label": jnp.full(len(queue["key"]), -1, jnp.int32)}

    def entries(
        self, variables: base.Variables, batch: Batch, key: Float[Array, "b d"]
    ) -> momentum.Entries:
        return {"key": key, "label": batch["label"]}

    def positives(
        self, entries: momentum.Entries, queue: momentum.Entries, rng: jax.Array
    ) -> Bool[Array, "b m"]:
        own = super().positives(entries, queue, rng)
        if self.config.contrast.positives == "own":
            return own
        return own.at[:, 1:].set(entries["label"][:, None] == queue["label"])
