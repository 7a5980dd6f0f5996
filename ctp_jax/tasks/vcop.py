"""VCOP: in which order are three clips of a video?

Xu et al., "Self-supervised Spatiotemporal Learning via Video Clip Order Prediction", CVPR
2019; the numbers are those of the CtP authors' release, where the encoder is R3D-18 (in
VCOP's own code it has ten layers). Symbols: b videos, c clips per video, t frames, s side
of the clip, k orders.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.models import heads
from ctp_jax.tasks import classification

CLIPS = 3
ORDERS = np.array(list(itertools.permutations(range(CLIPS))), np.int32)
"""(k, c), lexicographic: the clip that is shown at each position."""


class Task(classification.Task):
    """See `configs/vcop.py` for its options."""

    class_names = tuple("-".join(str(clip + 1) for clip in order) for order in ORDERS)

    def clip_spec(self, train: bool) -> ClipSpec:
        return dataclasses.replace(
            super().clip_spec(train),
            num_clips=CLIPS,
            sampling="ordered",
            gap=self.config.clip.gap,
            shared_window=True,
        )

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        return {"label": rng.integer((), math.factorial(CLIPS))}

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The clips in the order of the label."""
        order = jnp.asarray(ORDERS)[batch["plan"]["label"]]
        clips = super().draw(batch)
        return jnp.take_along_axis(clips, order[:, :, None, None, None, None], axis=1)

    def make_head(self) -> heads.OrderHead:
        head = self.config.head
        return heads.OrderHead(
            len(self.class_names), CLIPS, head.hidden, head.dropout, head.init_std
        )
