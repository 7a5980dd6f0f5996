"""Action recognition: finetuning an encoder, from a checkpoint or from scratch.

The protocol is that of the authors' release: one clip per training video, ten evenly
spread clips per test video, whose logits are averaged. Symbols: b videos, c clips per
video, t frames, s side of the clip, k classes.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import formatting
from ctp_jax.data import selection
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.tasks import base, classification, render


class Task(classification.Task):
    """See `configs/common.py:finetune` for its options."""

    # On the host -----------------------------------------------------------------

    def see_data(self, train: Any, held_out: Any | None) -> None:
        check_data(self.config, train, held_out)
        self.class_names = train.class_names

    def clip_spec(self, train: bool) -> ClipSpec:
        if train:
            return super().clip_spec(train)
        clip, test = self.config.clip, self.config.test
        return ClipSpec(
            num_clips=test.num_clips,
            num_frames=clip.num_frames,
            size=clip.size,
            strides=(test.stride,),
            sampling="uniform",
            scales=tuple(test.scales),
            crop="center",
        )

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour  # imports TensorFlow

        if not train:
            return {}
        num_frames = self.config.clip.num_frames
        return colour.sample_clip_colour(rng, self.config.colour, num_frames)

    # On the device ---------------------------------------------------------------

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        clips = super().draw(batch)
        if not batch["plan"]:  # held-out videos
            return clips
        return classification.change_colours(clips, batch["plan"])

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """`logits` (b, c, k), of clip after clip: there are ten of a test video."""

        def one(part):
            return self.logits(variables, part)[0][:, 0]

        return {"logits": render.map_clips(one, batch)}


def check_data(config: ConfigDict, train: Any, held_out: Any | None) -> None:
    """Raises `UserError` for splits that cannot train or test a classifier.

    Args:
        config: has `num_classes`, 0 for any number; one class is not enough in the split
            `data.split`, while others may also be looked at.
        train: `ctp_jax.data.records.Records` of the split to train on or to look at.
        held_out: those of the split to test on, or None.
    """
    found, num_classes = len(train.class_names), config.num_classes
    for split in filter(None, (train, held_out)):
        learn = split.split == config.data.split
        selection.check_labels(split, "recognition", learn)
    if num_classes not in (0, found):
        raise UserError(
            f"{train.name} has {formatting.count(found, 'class', 'classes')}, "
            f"config.num_classes is {num_classes}: "
            "check the label file that the data set was prepared with, or set "
            f"--config.num_classes={found} (0 takes any number)"
        )
    if held_out is None:
        return
    both = np.intersect1d(train.id_bytes, held_out.id_bytes)
    if len(both):
        first = both[0].decode(errors="backslashreplace")
        raise UserError(
            f"{train.name}: {formatting.count(len(both), 'video')}, {first} the first, "
            "are in the split to "
            f"train on, {train.split!r}, and in the one to test on, "
            f"{held_out.split!r}: set config.data.eval_split to the test list that "
            "belongs to config.data.split"
        )
