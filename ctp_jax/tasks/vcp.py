"""VCP: what was done to the second of three clips?

Luo et al., "Video Cloze Procedure for Self-Supervised Spatio-Temporal Learning", AAAI
2020. Its authors released no code; the numbers are those of a public reimplementation
(docs/methods.md). The second clip is one of five: as it is; turned by a quarter, a half or
three quarters; its quadrants in reversed order; two of its four quarters of time swapped;
or another clip from farther away. What happens to frame numbers is decided on the host, and
what happens to pixels is done on the device.

Symbols: b videos, c = 3 clips per video, t frames, s side of the clip.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.tasks import base, classification, rotation

CLIPS, CHUNKS = 3, 4
NONE, ROTATED, QUADRANTS, SWAPPED, REMOTE = range(5)


class Task(classification.Task):
    """See `configs/vcp.py` for its options."""

    class_names = (
        "unchanged",
        "rotated",
        "quadrants reversed",
        "chunks of time swapped",
        "a remote clip",
    )

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        if config.clip.num_frames % CHUNKS:
            raise UserError(
                f"config.clip.num_frames = {config.clip.num_frames}: needs a multiple of "
                f"{CHUNKS}, since VCP swaps two of {CHUNKS} chunks of a clip"
            )

    def overlay(self, batch: Batch, outputs=None) -> base.Overlay:
        captions = super().overlay(batch, outputs).captions
        return base.Overlay(captions, clips=("before", "in question", "after"))

    def clip_spec(self, train: bool) -> ClipSpec:
        return dataclasses.replace(
            super().clip_spec(train),
            num_clips=CLIPS,
            frame_numbers=self.frame_numbers,
        )

    def frame_numbers(self, rng, num_frames) -> tuple[Any, Any]:
        """Frames of the three clips, int32 (c, t), and the label, three times."""
        import tensorflow as tf

        from ctp_jax.data import clips  # imports TensorFlow

        clip, options = self.config.clip, self.config.vcp
        length = clip.num_frames
        spec = dataclasses.replace(
            super().clip_spec(True), num_clips=CLIPS, gap=clip.gap
        )
        starts = clips.one_after_the_other(rng, num_frames, length, spec)
        # How many starts there are for a remote clip before the three, and after them.
        before = starts[0] - options.distance - length + 1
        first_after = starts[-1] + length + options.distance
        after = num_frames - length - first_after + 1
        early = rng.bernoulli((), 0.5)
        if options.both_sides:
            fits = (before > 0) & (after > 0)
        else:
            fits = (before > 0) | (after > 0)
            early = tf.where(after > 0, early & (before > 0), True)
        label = rng.integer((), len(self.class_names))
        # One of the others where there is no room for it.
        other = rng.integer((), REMOTE)
        label = tf.where((label == REMOTE) & ~fits, other, label)
        offset = rng.integer((), tf.maximum(tf.where(early, before, after), 1))
        remote = tf.where(early, offset, first_after + offset)
        middle = tf.where(label == REMOTE, remote, starts[1])
        order = tf.where(label == SWAPPED, _swapped(rng), tf.range(CHUNKS))
        steps = tf.range(length)
        chunk = length // CHUNKS
        moved = tf.repeat(order * chunk, chunk) + steps % chunk
        times = tf.stack([starts[0] + steps, middle + moved, starts[2] + steps])
        return tf.minimum(times, num_frames - 1), tf.fill([CLIPS], label)

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        label = batch["choice"][:, 0]
        return {"label": label, "quarters": 1 + rng.integer((), 3)}

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        clips, label = super().draw(batch), batch["plan"]["label"]
        quarters = jnp.where(label == ROTATED, batch["plan"]["quarters"], 0)
        middle = jax.vmap(rotation.rotate)(clips[:, 1], quarters)
        half = self.config.clip.size // 2
        reversed_order = jnp.roll(middle, (half, half), axis=(2, 3))
        chosen = (label == QUADRANTS)[:, None, None, None, None]
        return clips.at[:, 1].set(jnp.where(chosen, reversed_order, middle))

    def make_head(self) -> heads.ClassifierHead:
        return dataclasses.replace(super().make_head(), num_clips=CLIPS)


def _swapped(rng) -> Any:
    """The order of the chunks with two different ones swapped, int32 (CHUNKS,)."""
    import tensorflow as tf

    first = rng.integer((), CHUNKS)
    second = (first + 1 + rng.integer((), CHUNKS - 1)) % CHUNKS
    order = tf.range(CHUNKS)
    return tf.where(order == first, second, tf.where(order == second, first, order))
