"""DPC: which features will the next blocks of the video have, at each place?

Han et al., "Video Representation Learning by Dense Predictive Coding", ICCVW 2019. A run
of frames is cut into blocks. A prediction should have a larger dot product with the
description of its own block and place than with those of all other predicted blocks and
places, of the same video and of the others in its group: a cross-entropy.

Symbols: b videos, k blocks of t frames (the clips of a batch), s side of a frame, p blocks
to predict, r directions, h w places, d channels of a description.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models import future
from ctp_jax.ops import colour
from ctp_jax.tasks import base, encoder


class Task(encoder.Task):
    """See `configs/dpc.py` for its options.

    Attributes:
        both_ways: see `ctp_jax.models.future.FutureHead`.
    """

    both_ways = False

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        count, predicted = config.blocks.count, config.blocks.predicted
        if not 0 < predicted < count:
            raise UserError(
                f"config.blocks.predicted = {predicted}: needs at least 1 block, and "
                f"fewer than config.blocks.count = {count}"
            )
        if min(config.clip.strides) < 1:
            raise UserError(
                f"config.clip.strides = {tuple(config.clip.strides)}: blocks follow each "
                "other in time: needs strides of 1 or more"
            )

    def clip_spec(self, train: bool) -> ClipSpec:
        """The blocks of one run of frames."""
        clip, count = self.config.clip, self.config.blocks.count
        return dataclasses.replace(
            super().clip_spec(train),
            num_clips=count,
            frame_numbers=self._frame_numbers,
            shared_window=True,
            min_frames=count * clip.num_frames * max(clip.strides) + 1,
        )

    def _frame_numbers(self, rng, num_frames):
        from ctp_jax.data.plans import blocks  # imports TensorFlow

        clip = self.config.clip
        shape = self.config.blocks.count, clip.num_frames
        return blocks.sample_blocks(rng, num_frames, shape, clip.strides, clip.jitter)

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        """Changes of colour of every frame, (b, c t): one run, not c clips."""
        from ctp_jax.data.plans import colour  # imports TensorFlow

        frames = self.config.blocks.count * self.config.clip.num_frames
        return colour.sample_jitter(rng, self.config.jitter, frames)

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        clips = super().draw(batch)
        plan = {k: each.reshape(clips.shape[:3]) for k, each in batch["plan"].items()}
        return colour.jitter(clips, plan)

    def make_head(self) -> future.FutureHead:
        """The Flax module on top of the encoder, called with (features, train)."""
        head, blocks = self.config.head, self.config.blocks
        channels = head.channels if head.project else 0
        return future.FutureHead(
            blocks.count,
            blocks.predicted,
            channels,
            head.get("memory", 0),
            self.both_ways,
            head.dropout,
            head.init_gain,
        )

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        return self.init_with_head(rng, self.make_head())

    def judge(
        self, variables: base.Variables, batch: Batch, rng: jax.Array | None = None
    ) -> tuple[tuple[Float[Array, " b"], Float[Array, " b"]], base.ModelState]:
        """What `contrast` says, and the state with new batch statistics.

        Args:
            variables: of encoder and head.
            batch: see `Batch`.
            rng: random key for dropout in training; None for evaluation.
        """
        train = rng is not None
        clips = self.draw(batch)
        videos, group = len(clips), self.config.negatives_of
        features, state = self.features(
            variables,
            # All blocks in one batch: BatchNorm sees them together.
            clips.reshape(-1, *clips.shape[2:]),
            train,
        )
        head = self.make_head().apply(
            {"params": variables.params["head"]},
            features,
            train=train,
            rngs={"dropout": rng} if train else None,
        )
        predicted, target = cast(tuple[Array, Array], head)
        # A few videos to look at are one group.
        group = videos if videos % group else group
        # What pads an evaluation is no video to be told from.
        mask = None if train else batch["mask"]
        return contrast(predicted, target, group, mask), state

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        (losses, hits), state = self.judge(variables, batch, rng)
        loss = losses.mean()
        return loss, base.StepOutput({"loss": loss, "top1": hits.mean()}, state)

    def chance_loss(self) -> float:
        """The logarithm of the descriptions to choose from, summed over directions."""
        stride = self._encoder.total_stride()[1]
        places = math.ceil(self.config.clip.size / stride) ** 2
        choices = self.config.negatives_of * self.config.blocks.predicted * places
        return (1 + self.both_ways) * math.log(choices)

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """`eval_loss` and `top1`, (b,) each, of every video in its group of the batch.

        See `ctp_jax.evaluators.means`.
        """
        (losses, hits), _ = self.judge(variables, batch)
        return {"eval_loss": losses, "top1": hits}

    def overlay(
        self, batch: Batch, outputs: Mapping[str, np.ndarray] | None = None
    ) -> base.Overlay:
        captions = [""] * len(batch["index"])
        if outputs is not None:
            captions = [f"{hit:.0%} of its places found" for hit in outputs["top1"]]
        count, predicted = self.config.blocks.count, self.config.blocks.predicted
        names = [
            f"block {block + 1}"
            + ", to predict" * (block >= count - predicted)
            + ", to predict backwards" * (self.both_ways and block < predicted)
            for block in range(count)
        ]
        return base.Overlay(captions, clips=names)


def contrast(
    predicted: Float[Array, "r b p h w d"],
    target: Float[Array, "r b p h w d"],
    group: int,
    mask: Float[Array, " b"] | None = None,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """How well each prediction finds its own target among those of its group.

    The logits are dot products, neither scaled nor normalised. Gradients flow into the
    targets, too.

    Args:
        predicted: see `ctp_jax.models.future.FutureHead`.
        target: likewise.
        group: how many consecutive videos are negatives of each other; divides b.
        mask: 0 for videos that are negatives of none.

    Returns:
        Of each video, the cross-entropy, a mean over its blocks and places, summed over
        the directions; and the share of predictions whose own target comes first.
    """
    ways, videos = predicted.shape[:2]
    shape = (ways, videos // group, -1, predicted.shape[-1])
    logits = jnp.einsum(
        "rgnd,rgmd->rgnm",
        predicted.reshape(shape),
        target.reshape(shape),
        precision=jax.lax.Precision.HIGHEST,
    )
    if mask is not None:
        count = logits.shape[-1]
        real = jnp.repeat(mask.reshape(-1, group) > 0, count // group, axis=-1)
        logits = jnp.where(real[:, None] | jnp.eye(count, dtype=bool), logits, -jnp.inf)
    own = jnp.diagonal(logits, axis1=-2, axis2=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - own
    hits = logits.argmax(axis=-1) == jnp.arange(logits.shape[-1])
    of_video = (ways, videos, -1)
    return (
        losses.reshape(of_video).mean(axis=-1).sum(axis=0),
        hits.reshape(of_video).mean(axis=(0, 2)),
    )
