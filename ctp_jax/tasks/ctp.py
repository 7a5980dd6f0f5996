"""Catch-the-Patch: follow patches that were pasted along invented trajectories.

Wang et al., "Unsupervised Visual Representation Learning by Tracking Patches in
Video", CVPR 2021. Given a clip and the box of each patch in its first frame, predict
the box in all frames. The boxes may also come from elsewhere, see `config.truth`
(Table 1). Symbols: b videos, n trajectories, t frames, s side of the clip.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import models
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.data.plans import SOURCES
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.models.base import apply
from ctp_jax.ops import boxes, colour, paste
from ctp_jax.tasks import base, encoder, mixture


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
        self._mixture = mixture.Mixture(config)
        stored = set(self._mixture.period) <= {"real", "teacher"}
        self.shows = "boxes" if stored else "game"
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
        follow = self._mixture.follow(train)
        return dataclasses.replace(super().clip_spec(train), follow=follow)

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour, trajectories, truth  # import TensorFlow

        clip = self.config.clip
        plan = trajectories.sample_game(
            rng, self.config.game, clip.num_frames, clip.size
        )
        plan |= colour.sample_colour(rng, self.config.colour, clip.num_frames)
        if sources := self._mixture.entries(train):
            follow = self._mixture.follow(train)
            plan = truth.choose_truth(rng, plan, batch, sources, follow, clip.size)
        return plan

    # On the device ---------------------------------------------------------------

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The clips with their patches and colours; c is 1."""
        plan = batch["plan"]
        patches = paste.Patches(**{name: plan[name] for name in paste.Patches._fields})
        clips = paste.paste(super().draw(batch)[:, 0], patches)
        return change_colours(clips, plan)[:, None]

    def targets(self, batch: Batch) -> Targets:
        """The boxes to follow; in training, of clips with cycles only the first ones."""
        plan = batch["plan"]
        boxes = plan.get("truth", plan["boxes"])
        return Targets(boxes, boxes[:, :, 0], plan.get("weights"))

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        encoder_rng, head_rng = jax.random.split(rng)
        (params, state), features = self.init_encoder(encoder_rng)
        no_boxes = jnp.zeros((1, 1, 4))
        num_frames = self.config.clip.num_frames
        head = self._head.init(head_rng, features, no_boxes, num_frames)
        return base.Variables({**params, "head": head["params"]}, state)

    def trajectories(
        self,
        variables: base.Variables,
        features: Float[Array, "b _t _h _w c"],
        query: Float[Array, "b n 4"],
    ) -> tuple[Float[Array, "b n t 4"], Float[Array, "b n t 4"]]:
        """Deltas and boxes of every frame, given the features and the first boxes."""
        head, frames = {"params": variables.params["head"]}, self.config.clip.num_frames
        deltas = apply(self._head, head, features, query, frames)
        scale = self.config.head.target_scale
        return deltas, boxes.decode_trajectory_xyxy(deltas, query, scale)

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        """The loss of centres plus that of sizes, see `regression_losses`.

        Where boxes have weights, each is a mean over the boxes that count, of the whole
        batch: a clip with few of them counts little. With `config.optimizer.accumulate`
        it is the mean over the parts of each part's mean.
        """
        truth = self.targets(batch)
        clips = self.draw(batch)[:, 0]
        features, state = self.features(variables, clips, train=True)
        deltas, predicted = self.trajectories(variables, features, truth.query)
        wanted, known, more = truth, truth.weights, {}
        sources = dict.fromkeys(self._mixture.period)
        if "cycle" in sources:
            wanted, more = self._close_cycles(variables, clips, truth, predicted)
            known = self._mixture.put("cycle", truth.weights, 0.0)
        scale = self.config.head.target_scale
        targets = boxes.encode_trajectory_xyxy(wanted.boxes, wanted.query, scale)
        centre, size = regression_losses(deltas, targets, wanted.weights)
        metrics = {
            "loss": centre + size,
            "loss_center": centre,
            "loss_size": size,
            "iou": weighted_mean(boxes.iou_xyxy(predicted, truth.boxes), known),
            **more,
        }
        if list(sources) == ["cycle"]:
            del metrics["iou"]  # of no box
        if len(sources) > 1:
            every = deltas, targets, wanted.weights
            for name in sources:
                rows = (self._mixture.of(name, each) for each in every)
                metrics[f"loss_{name}"] = jnp.add(*regression_losses(*rows))
        loss = centre + size
        if weight := self.config.truth.cycle_loss:
            loss += weight * self._mixture.share("cycle") * metrics["cycle_gap"]
            metrics["loss"] = loss
        return loss, base.StepOutput(metrics, state)

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """`predicted` and true `boxes`, (b, n, t, 4), and the `query`, (b, n, 4).

        In pixels of the clip. Where not all true boxes are known, also their `weights`,
        (b, n, t), 0 or 1.
        """
        truth = self.targets(batch)
        features, _ = self.features(variables, self.draw(batch)[:, 0], train=False)
        predicted = self.trajectories(variables, features, truth.query)[1]
        weights = {} if truth.weights is None else {"weights": truth.weights}
        known = {"boxes": truth.boxes, "query": truth.query, **weights}
        return {"predicted": predicted, **known}

    def _close_cycles(
        self,
        variables: base.Variables,
        clips: Float[Array, "b t s s 3"],
        truth: Targets,
        predicted: Float[Array, "b n t 4"],
    ) -> tuple[Targets, dict[str, jax.Array]]:
        """Follows the last predicted boxes back through the reversed clips.

        The way back, reversed, is what the way there is to be: it gets no gradient.
        It is moved and scaled so that it begins at the query. Else standing still would
        be unstable: a network that drifts equally there and back would have twice its
        drift as label. Batch statistics of the reversed clips do not reach the running
        ones.

        Returns:
            The targets of the whole batch; and metrics of the clips with cycles:
            cycle_static: share of the trajectories whose last box is within a pixel of
                the query.
            cycle_iou: overlap of the ways there and back.
            cycle_gap: the classical cycle loss, from the query to the end of the way
                back. It has a gradient, through both ways, if `config.truth.cycle_loss`
                gives it a weight.
        """
        query, there = (
            self._mixture.of("cycle", rows) for rows in (truth.query, predicted)
        )
        last = boxes.cut_to_frame(there[:, :, -1], clips.shape[-2])
        if not self.config.truth.cycle_loss:
            last = jax.lax.stop_gradient(last)
        features, _ = self.apply_encoder(
            variables.params["encoder"],
            variables.state["batch_stats"]["encoder"],
            self._mixture.of("cycle", clips)[:, ::-1],
            train=True,
        )
        back = self.trajectories(variables, features, last)[1]
        scale = self.config.head.target_scale
        inverse = boxes.encode_trajectory_xyxy(back[:, :, ::-1], back[:, :, -1], scale)
        labels = boxes.decode_trajectory_xyxy(inverse, query, scale)
        labels = jax.lax.stop_gradient(labels)
        targets = Targets(
            self._mixture.put("cycle", truth.boxes, labels),
            truth.query,
            self._mixture.put("cycle", truth.weights, 1.0),
        )
        gap = boxes.encode_trajectory_xyxy(back[:, :, -1:], query, scale)
        moved = jnp.abs(there[:, :, -1] - query).max(axis=-1)
        metrics = {
            "cycle_static": (moved < 1.0).mean(),
            "cycle_iou": boxes.iou_xyxy(there, labels).mean(),
            "cycle_gap": jnp.add(*regression_losses(gap, jnp.zeros_like(gap))),
        }
        return targets, metrics

    # Off the device --------------------------------------------------------------

    def overlay(
        self, batch: Batch, outputs: Mapping[str, np.ndarray] | None = None
    ) -> base.Overlay:
        """The true boxes, and the predicted ones if there are `outputs`.

        Boxes that are not known are NaN. Unless all are of the game, the captions say the
        sources.
        """
        plan, truth = batch["plan"], self.targets(batch)
        shown = np.asarray(truth.boxes)[:, None]
        predicted, captions = None, [""] * len(shown)
        if outputs is not None:
            predicted = np.asarray(outputs["predicted"])[:, None]
        if truth.weights is not None:
            known = np.asarray(truth.weights)[:, None, ..., None] > 0
            shown = np.where(known, shown, np.nan)
            if predicted is not None:
                anywhere = known.any(axis=-2, keepdims=True)
                predicted = np.where(anywhere, predicted, np.nan)
            captions = np.array(SOURCES)[np.asarray(plan["origin"])].tolist()
        return base.Overlay(captions, shown, predicted)


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
