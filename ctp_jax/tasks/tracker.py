"""Follows boxes through whole videos, window by window, for evaluators of sequences.

The network sees t frames. A longer video is cut into windows that overlap in one frame,
and two boxes per object are asked for in each: the true one in its first frame, as in the
paper (section 4.4), and the one that was predicted for it in the window before, which
makes one track of the whole video. The whole frame is resized to s x s, each axis by
itself, so no object is ever outside; overlaps do not change by that.

Symbols: b videos, n objects, t frames of a window, s side of the clip.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.ops import boxes
from ctp_jax.tasks import base, render


class Tracker(base.Task):
    """Tracks with the network of another task, `ctp` or one with its methods.

    It has no parameters of its own: `predict` takes those of the other task.
    """

    def __init__(self, config: ConfigDict, task: base.Task):
        super().__init__(config)
        if not hasattr(task, "trajectories"):
            raise UserError(
                f"config.evaluators: boxes in sequences are predicted by the task ctp, not "
                f"by config.task = {str(config.task)!r}: choose other evaluators"
            )
        self._task: Any = task
        self._objects = 1

    def see_data(self, train: Any, held_out: Any) -> None:
        shape = held_out.features.annotations.get("boxes")
        if shape is None:
            raise UserError(
                f"{held_out.name}: videos of split {held_out.split!r} have no boxes, which "
                "config.evaluators.sequences needs: choose a data set that has (got10k, or "
                "one of `python -m ctp_jax.prepare boxes`), or other evaluators"
            )
        self._objects = shape[0] if len(shape) > 1 else 1

    def clip_spec(self, train: bool) -> ClipSpec:
        size = self.config.clip.size
        return ClipSpec(
            num_clips=1,
            num_frames=self.config.clip.num_frames,
            size=size,
            sampling="windows",
            scales=((size, size),),
            crop="center",
        )

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The windows without whatever the other task adds to them."""
        return render.crop_clips(batch, self.config.clip.size)

    def first_carry(self, videos: int) -> dict[str, np.ndarray]:
        return {"carried": np.zeros((videos, self._objects, 4), np.float32)}

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """Boxes x1 y1 x2 y2 in shares of the frame, all (b, n, t, 4).

        `boxes` are the true ones, `predicted` those from the true first box of the
        window, `chained` those from the first box of the video. `visibility` (b, n, t)
        is that of the true boxes.
        """
        size = self.config.clip.size
        truth, visibility = annotated_boxes(batch)
        first = truth[:, :, 0]
        begins = batch["choice"][:, :1, None] == 0
        query = jnp.where(begins, first, batch["carried"])
        clips = self.draw(batch)[:, 0]
        predicted = follow(
            self._task, variables, clips, jnp.concatenate([first, query], axis=1)
        )
        given, chained = jnp.split(predicted, 2, axis=1)
        return {
            "boxes": truth / size,
            "visibility": visibility,
            "predicted": given / size,
            "chained": chained / size,
            "carried": next_query(chained, size),
        }


def follow(
    task: Any,
    variables: base.Variables,
    clips: Float[Array, "b t s s 3"],
    query: Float[Array, "b n 4"],
) -> Float[Array, "b n t 4"]:
    """The boxes in every frame of a window, given those in its first; pixels of the clip.

    Args:
        task: `ctp_jax.tasks.ctp.Task`.
        variables: of it.
        clips: grey levels.
        query: the boxes in the first frame.
    """
    features, _ = task.features(variables, clips, train=False)
    return task.trajectories(variables, features, query)[1]


def next_query(predicted: Float[Array, "b n t 4"], size: int) -> Float[Array, "b n 4"]:
    """The boxes that the next window is given: the last ones, not quite outside."""
    return boxes.keep_in_sight(predicted[:, :, -1], size)


def annotated_boxes(
    batch: Batch,
) -> tuple[Float[Array, "b n t 4"], Float[Array, "b n t"]]:
    """Boxes of the first clip in its pixels, and their visibility in [0, 1].

    Without visibility, an object is visible where its box has an area. A data set with one
    object may have no axis for it.
    """
    known = batch["annotations"]
    truth = known["boxes"][:, 0]
    truth = truth[:, :, None] if truth.ndim == 3 else truth
    visibility = (boxes.area_xyxy(truth) > 0).astype(jnp.float32)
    if "visibility" in known:
        visibility = known["visibility"][:, 0]
    return jnp.moveaxis(truth, 1, 2), jnp.moveaxis(visibility, 1, 2)
