"""Pace: how many frames does the clip skip?

Wang et al., "Self-supervised Video Representation Learning by Pace Prediction", ECCV 2020,
arXiv:2008.05861. As in its authors' release, a clip starts at any frame and goes on with the
first one after the last, and every frame has its own colours. The paper's contrastive term,
which was not released, is here as we read it: two clips of a video at different paces are
each other's positive, those of the other videos of the batch are negatives.

Symbols: b videos, c clips, t frames, s side of the clip, d channels of an embedding.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.models.base import apply
from ctp_jax.ops import colour
from ctp_jax.ops import contrast as ops_contrast
from ctp_jax.tasks import base, render, speednet


class Task(speednet.Task):
    """See `configs/pace.py` for its options. With the contrastive term, a label a clip."""

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        if min(config.clip.strides) < 1:
            raise UserError(
                f"config.clip.strides = {tuple(config.clip.strides)}: paces are at least "
                "1; config.task = 'speednet' takes 0 and backwards"
            )
        # Pictures are drawn one video at a time.
        if config.pace.contrast and config.batch_size > 1:
            count = config.batch_size // config.optimizer.accumulate
            base.check_videos(count, "config.pace.contrast")

    def clip_spec(self, train: bool) -> ClipSpec:
        config, clips = self.config, 2 if train and self.config.pace.contrast else 1

        def frame_numbers(rng, num_frames):
            from ctp_jax.data.plans import paces  # imports TensorFlow

            return paces.sample_frames(
                rng,
                num_frames,
                tuple(config.clip.strides),
                clips,
                config.clip.num_frames,
                config.pace.wrap,
            )

        spec = super().clip_spec(train)
        return dataclasses.replace(spec, num_clips=clips, frame_numbers=frame_numbers)

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour as colour_plans  # imports TensorFlow

        spec, choice = self.clip_spec(train), batch["choice"]
        jitter = colour_plans.sample_jitter(
            rng.split(spec.num_clips), self.config.jitter, spec.num_frames
        )
        return {"label": choice[:, 0] if spec.num_clips == 1 else choice, **jitter}

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        clips = render.crop_clips(batch, self.config.clip.size)
        return colour.jitter(clips, batch["plan"])

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        params, state = super().init(rng, batch)
        if self.config.pace.contrast:
            channels = params["head"]["classifier"]["kernel"].shape[0]
            projection = self._projection().init(rng, jnp.zeros((1, channels)))
            params = {**params, "projection": projection["params"]}
        return base.Variables(params, state)

    def _projection(self) -> nn.Dense:
        return nn.Dense(self.config.pace.dim, precision=jax.lax.Precision.HIGHEST)

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        weight = self.config.pace.contrast
        if not weight:
            return super().loss(variables, batch, step, rng)
        base.check_videos(len(batch["mask"]), "config.pace.contrast")
        logits, features, state = self.logits_and_features(variables, batch, rng)
        label = self.targets(batch)
        pace = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        projection = {"params": variables.params["projection"]}
        embedded = apply(self._projection(), projection, heads.pooled(features))
        contrast = contrastive_loss(embedded, self.config.pace.temperature)
        loss = pace + weight * contrast
        metrics = {"loss": loss, "pace": pace, "contrast": contrast}
        metrics["top1"] = (logits.argmax(-1) == label).mean()
        return loss, base.StepOutput(metrics, state)

    def chance_loss(self) -> float:
        videos = self.config.batch_size // self.config.optimizer.accumulate
        others = math.log(2 * videos - 1)
        return super().chance_loss() + self.config.pace.contrast * others


def contrastive_loss(
    embedded: Float[Array, "bc d"], temperature: float
) -> Float[Array, ""]:
    """InfoNCE over a batch: each clip finds the other clip of its video.

    Args:
        embedded: of all clips, the two of a video one after the other.
        temperature: of the softmax over cosines.
    """
    unit = ops_contrast.unit(embedded)
    cosines = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
    number = jnp.arange(len(unit))
    itself = number[:, None] == number
    logits = jnp.where(itself, -jnp.inf, cosines / temperature)
    # The clips of a video are 2 i and 2 i + 1.
    partner = number + 1 - 2 * (number % 2)
    return optax.softmax_cross_entropy_with_integer_labels(logits, partner).mean()
