"""Catch-the-Patch: follow patches that were pasted along invented trajectories.

Wang et al., "Unsupervised Visual Representation Learning by Tracking Patches in
Video", CVPR 2021. Given a clip and the box of each patch in its first frame, predict
the box in all frames. Symbols: b videos, n trajectories, t frames, s side of the clip.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import models
from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.models.base import apply
from ctp_jax.ops import boxes, colour, paste
from ctp_jax.tasks import base, encoder


def smooth_l1(error: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The Huber loss with threshold 1."""
    size = jnp.abs(error)
    return jnp.where(size < 1.0, 0.5 * size**2, size - 0.5)


class Targets(NamedTuple):
    """What the network has to predict, and from what.

    Attributes:
        boxes: of each trajectory in every frame, x1 y1 x2 y2 in pixels.
        query: the box that the network is given; in the game, that of the first frame.
        weights: of every box in the loss and in the metrics; None: all equal.
    """

    boxes: Float[Array, "b n t 4"]
    query: Float[Array, "b n 4"]
    weights: Float[Array, "b n t"] | None = None


def weighted_mean(
    values: Float[Array, "*b"], weights: Float[Array, "*b"] | None
) -> Float[Array, ""]:
    """The mean over all axes; 0 where no weight is above 0."""
    if weights is None:
        return values.mean()
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1e-6)


def regression_losses(
    deltas: Float[Array, "*b t 4"],
    targets: Float[Array, "*b t 4"],
    weights: Float[Array, "*b t"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Losses of centres and of sizes (paper section 3.2).

    Each sums its two terms and is averaged over clips, trajectories and frames.
    """
    loss = smooth_l1(deltas - targets)
    centre, size = loss[..., :2].sum(-1), loss[..., 2:].sum(-1)
    return weighted_mean(centre, weights), weighted_mean(size, weights)


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

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour, trajectories  # import TensorFlow

        clip = self.config.clip
        return {
            **trajectories.sample_game(
                rng, self.config.game, clip.num_frames, clip.size
            ),
            **colour.sample_colour(rng, self.config.colour, clip.num_frames),
        }

    # On the device ---------------------------------------------------------------

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The clips with their patches and colours; c is 1."""
        plan = batch["plan"]
        patches = paste.Patches(**{name: plan[name] for name in paste.Patches._fields})
        clips = paste.paste(super().draw(batch)[:, 0], patches)
        return change_colours(clips, plan)[:, None]

    def targets(self, batch: Batch) -> Targets:
        boxes = batch["plan"]["boxes"]
        return Targets(boxes, boxes[:, :, 0])

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        encoder_rng, head_rng = jax.random.split(rng)
        (params, state), features = self.init_encoder(encoder_rng)
        no_boxes = jnp.zeros((1, 1, 4))
        num_frames = self.config.clip.num_frames
        head = self._head.init(head_rng, features, no_boxes, num_frames)
        return base.Variables({**params, "head": head["params"]}, state)

    def _forward(
        self, variables: base.Variables, batch: Batch, targets: Targets, train: bool
    ) -> tuple[Float[Array, "b n t 4"], Float[Array, "b n t 4"], base.ModelState]:
        """Predicted deltas and boxes, and the state with new batch statistics."""
        features, state = self.features(variables, self.draw(batch)[:, 0], train)
        return *self.trajectories(variables, features, targets.query), state

    def trajectories(
        self,
        variables: base.Variables,
        features: Float[Array, "b _t _h _w c"],
        query: Float[Array, "b n 4"],
    ) -> tuple[Float[Array, "b n t 4"], Float[Array, "b n t 4"]]:
        """Deltas and boxes of every frame, given the features and the first boxes."""
        deltas = apply(
            self._head,
            {"params": variables.params["head"]},
            features,
            query,
            self.config.clip.num_frames,
        )
        scale = self.config.head.target_scale
        return deltas, boxes.decode_trajectory_xyxy(deltas, query, scale)

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        truth = self.targets(batch)
        deltas, predicted, state = self._forward(variables, batch, truth, train=True)
        wanted = boxes.encode_trajectory_xyxy(
            truth.boxes, truth.query, self.config.head.target_scale
        )
        centre, size = regression_losses(deltas, wanted, truth.weights)
        metrics = {
            "loss": centre + size,
            "loss_center": centre,
            "loss_size": size,
            "iou": weighted_mean(boxes.iou_xyxy(predicted, truth.boxes), truth.weights),
        }
        return centre + size, base.StepOutput(metrics, state)

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """`predicted` and true `boxes`, (b, n, t, 4), and the `query`, (b, n, 4).

        In pixels of the clip.
        """
        truth = self.targets(batch)
        predicted = self._forward(variables, batch, truth, train=False)[1]
        return {"predicted": predicted, "boxes": truth.boxes, "query": truth.query}

    # Off the device --------------------------------------------------------------

    def overlay(
        self, batch: Batch, outputs: Mapping[str, np.ndarray] | None = None
    ) -> base.Overlay:
        """The true boxes, and the predicted ones if there are `outputs`."""
        truth = np.asarray(self.targets(batch).boxes)[:, None]
        predicted = None
        if outputs is not None:
            predicted = np.asarray(outputs["predicted"])[:, None]
        return base.Overlay([""] * len(truth), truth, predicted)


def change_colours(
    clips: Float[Array, "*b t s s 3"], plan: Mapping[str, Array]
) -> Float[Array, "*b t s s 3"]:
    """Changes colours as `ctp_jax.data.plans.colour.sample_colour` planned."""
    clips = colour.adjust_hue_saturation(
        clips, plan["hue"], plan["saturation"], plan["hue_saturation"]
    )
    return colour.adjust_brightness_contrast(
        clips, plan["brightness"], plan["contrast"]
    )


def check_config(config: ConfigDict) -> None:
    """Raises `UserError` for clips that the head cannot divide among time steps."""
    num_frames = config.clip.num_frames
    temporal = models.create(config.model).total_stride()[0]
    steps = -(-num_frames // temporal)
    if not config.head.squeeze and num_frames % steps:
        raise UserError(
            f"config.clip.num_frames = {num_frames} is not a multiple of the {steps} "
            "time steps of the features, which config.head.squeeze = False requires: use "
            f"a multiple of {temporal}"
        )
