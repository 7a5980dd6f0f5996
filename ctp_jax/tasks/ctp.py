"""Catch-the-Patch: follow patches that were pasted along invented trajectories.

Wang et al., "Unsupervised Visual Representation Learning by Tracking Patches in
Video", CVPR 2021. Given a clip and the box of each patch in its first frame, predict
the box in all frames. Symbols: b videos, n trajectories, t frames, s side of the clip.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import models
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.ops import boxes, colour
from ctp_jax.tasks import base, encoder, render


def smooth_l1(error: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Huber's loss with its corner at 1."""
    size = jnp.abs(error)
    return jnp.where(size < 1.0, 0.5 * size**2, size - 0.5)


def regression_losses(
    deltas: Float[Array, "*b t 4"], targets: Float[Array, "*b t 4"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Losses of centres and of sizes (paper section 3.2).

    Each sums its two terms and is averaged over clips, trajectories and frames.
    """
    loss = smooth_l1(deltas - targets)
    return loss[..., :2].sum(-1).mean(), loss[..., 2:].sum(-1).mean()


class Task(encoder.Task):
    """The game as a pretext task. See `configs/common.py` for its options."""

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        check_config(config)
        self._head = heads.CtPHead(
            channels=config.head.channels,
            roi_size=config.head.roi_size,
            sampling_ratio=config.head.sampling_ratio,
            squeeze=config.head.squeeze,
            stride=self._encoder.total_stride()[1],
            init_std=tuple(config.head.init_std),
        )

    # On the host -----------------------------------------------------------------

    def clip_spec(self, train: bool) -> ClipSpec:
        del train  # The game is the same on held-out videos.
        clip = self.config.clip
        return ClipSpec(
            num_clips=1,
            num_frames=clip.num_frames,
            size=clip.size,
            strides=tuple(clip.strides),
            jitter=clip.jitter,
            scales=tuple(clip.scales),
            flip=clip.flip,
        )

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour as colour_lib  # imports TensorFlow
        from ctp_jax.data.plans import trajectories

        clip = self.config.clip
        return {
            **trajectories.sample_game(
                rng, self.config.game, clip.num_frames, clip.size
            ),
            **colour_lib.sample_colour(rng, self.config.colour, clip.num_frames),
        }

    # On the device ---------------------------------------------------------------

    def draw(self, batch: Batch) -> Float[Array, "b t s s 3"]:
        """The clips of a batch with their patches, grey levels in [0, 255]."""
        clips = render.crop_clips(batch, self.config.clip.size)[:, 0]
        clips = render.paste_patches(clips, batch["plan"])
        return render.change_colours(clips, batch["plan"])

    def init(self, rng: jax.Array, batch: Batch) -> tuple[base.Params, base.ModelState]:
        encoder_rng, head_rng = jax.random.split(rng)
        params, model_state, features = self.init_encoder(encoder_rng)
        no_boxes = jnp.zeros((1, 1, 4))
        num_frames = self.config.clip.num_frames
        head = self._head.init(head_rng, features, no_boxes, num_frames)
        return {**params, "head": head["params"]}, model_state

    def _forward(
        self,
        params: base.Params,
        model_state: base.ModelState,
        batch: Batch,
        train: bool,
    ) -> tuple[Float[Array, "b n t 4"], base.ModelState]:
        """Predicted deltas, and the state with new batch statistics."""
        clips = colour.normalize(self.draw(batch))
        features, model_state = self.features(params, model_state, clips, train)
        query = batch["plan"]["boxes"][:, :, 0]
        deltas = self._head.apply(
            {"params": params["head"]}, features, query, self.config.clip.num_frames
        )
        return deltas, model_state

    def loss(
        self,
        params: base.Params,
        model_state: base.ModelState,
        batch: Batch,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        truth = batch["plan"]["boxes"]
        scale = self.config.head.target_scale
        deltas, model_state = self._forward(params, model_state, batch, train=True)
        targets = boxes.encode_trajectory_xyxy(truth, truth[..., 0, :], scale)
        centre, size = regression_losses(deltas, targets)
        predicted = boxes.decode_trajectory_xyxy(deltas, truth[..., 0, :], scale)
        metrics = {
            "loss": centre + size,
            "loss_center": centre,
            "loss_size": size,
            "iou": boxes.iou_xyxy(predicted, truth).mean(),
        }
        return centre + size, base.StepOutput(metrics, model_state)

    def predict(
        self, params: base.Params, model_state: base.ModelState, batch: Batch
    ) -> dict[str, jax.Array]:
        """`predicted` and true `boxes`, both (b, n, t, 4) in pixels of the clip."""
        truth = batch["plan"]["boxes"]
        deltas, _ = self._forward(params, model_state, batch, train=False)
        predicted = boxes.decode_trajectory_xyxy(
            deltas, truth[..., 0, :], self.config.head.target_scale
        )
        return {"predicted": predicted, "boxes": truth}

    # Off the device --------------------------------------------------------------

    def evaluators(self) -> Sequence[Any]:
        from ctp_jax.evaluators.tracking import TrackingEvaluator

        return (TrackingEvaluator(),)


def check_config(config: ConfigDict) -> None:
    """Raises `UserError` for the first thing in the config that cannot be."""
    clip, game, head = config.clip, config.game, config.head
    for name, values in (
        ("game.scales", game.scales),
        ("game.ratios", game.ratios),
    ):
        if not values or min(values) <= 0:
            raise UserError(
                f"config.{name} = {tuple(values)}: needs one or more, all above 0"
            )
    if clip.num_frames < 2:
        raise UserError(
            f"config.clip.num_frames = {clip.num_frames}: the game needs at least 2"
        )
    if game.num_trajectories < 1:
        raise UserError(
            f"config.game.num_trajectories = {game.num_trajectories}: needs at least 1"
        )
    for name, values in (
        ("game.key_frames", game.key_frames),
        ("game.interpolation", game.interpolation),
        ("game.shapes", game.shapes),
        ("colour.key_frames", config.colour.key_frames),
        ("colour.interpolation", config.colour.interpolation),
    ):
        if min(values, default=-1) < 0 or not np.isclose(sum(values), 1.0):
            raise UserError(
                f"config.{name} = {tuple(values)}: probabilities must add up to 1"
            )
    if len(head.target_scale) != 4 or min(head.target_scale) <= 0:
        raise UserError(
            f"config.head.target_scale = {tuple(head.target_scale)}: needs four "
            "positive divisors, of x, y, width and height"
        )
    temporal = models.create(config.model).total_stride()[0]
    steps = -(-clip.num_frames // temporal)
    if not head.squeeze and clip.num_frames % steps:
        raise UserError(
            f"config.clip.num_frames = {clip.num_frames} gives {steps} time steps of "
            "features, which config.head.squeeze = False cannot share out; use a "
            f"multiple of {temporal}"
        )
