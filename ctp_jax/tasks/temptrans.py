"""TempTrans: at which speed does a clip run, or how else was its time transformed?

Jenni et al., "Video Representation Learning by Recognizing Temporal Transformations", ECCV
2020; the numbers are those of its authors' release. Four clips of a video show one
transformation each. Two linear layers on the pooled features tell which it is, for every
clip, and how fast the first two are. A held-out video shows one clip, of any of them.

Symbols: b videos, c clips per video, t frames, s side of the clip, k transformations.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.models.base import apply
from ctp_jax.ops import colour
from ctp_jax.tasks import base, classification

WITH_SPEED = 2
"""The first so many transformations have a speed to learn."""


class Task(classification.Task):
    """See `configs/temptrans.py` for its options."""

    class_names = ("speed", "periodic", "random", "warped")

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        speeds, frames = tuple(config.clip.strides), config.clip.num_frames
        if sorted(set(speeds)) != list(speeds) or speeds[0] != 1:
            raise UserError(
                f"config.clip.strides = {speeds}: TempTrans needs speeds that grow from 1"
            )
        if frames < 4:
            raise UserError(
                f"config.clip.num_frames = {frames}: TempTrans needs at least 4 frames, "
                "to run forwards and backwards"
            )

    def clip_spec(self, train: bool) -> ClipSpec:
        return dataclasses.replace(
            super().clip_spec(train),
            num_clips=len(self.class_names) if train else 1,
            frame_numbers=self.frame_numbers if train else self._one_of_them,
            shared_window=True,
            # In a video of the length of a clip, the warped one would be like the first.
            min_frames=self.config.clip.num_frames + 1,
        )

    def frame_numbers(self, rng, num_frames) -> tuple[Any, Any]:
        """Frames of the four clips, int32 (k, t), and the number of what each shows.

        That is the number of the transformation times the number of speeds, plus the
        number of the video's speed; `targets` takes it apart.
        """
        import tensorflow as tf

        length, speeds = self.config.clip.num_frames, self.config.clip.strides
        # Which speeds a video is long enough for: the first so many, at least one.
        enough = num_frames >= tf.constant([length * speed for speed in speeds])
        fitting = tf.maximum(tf.reduce_sum(tf.cast(enough, tf.int32)), 1)
        number = rng.integer((), fitting)
        speed = tf.gather(tf.constant(speeds, tf.int32), number)
        fastest = tf.gather(tf.constant(speeds, tf.int32), fitting - 1)

        def start(span):
            return rng.integer((), tf.maximum(num_frames - span, 0) + 1)

        at_speed = start(length * speed) + speed * tf.range(length)
        periodic = start((length - 1) * speed) + _forth_and_back(rng, length, speed)
        shuffled = start(length) + tf.argsort(rng.unit([length]))
        # With all speeds but the two slowest, steps of 1 to the fastest; else there is
        # little room, and it takes any of the frames in their order.
        warped = tf.where(
            fitting > 2,
            start(length * fastest) + tf.cumsum(1 + rng.integer([length], fastest)) - 1,
            _subset(rng, num_frames, length),
        )
        times = tf.stack([at_speed, periodic, shuffled, warped])
        kind = tf.range(len(self.class_names))
        return tf.clip_by_value(times, 0, num_frames - 1), kind * len(speeds) + number

    def _one_of_them(self, rng, num_frames) -> tuple[Any, Any]:
        """One of the four clips, (1, t) and (1,)."""
        times, choice = self.frame_numbers(rng, num_frames)
        one = rng.integer((), len(self.class_names))
        return times[one][None], choice[one][None]

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        from ctp_jax.data.plans import colour as plans  # imports TensorFlow

        clip = self.config.clip
        clips = self.clip_spec(train).num_clips
        kind = batch["choice"] // len(clip.strides)
        jitter = plans.sample_jitter(
            rng.split(clips), self.config.jitter, clip.num_frames
        )
        return {"label": kind if train else kind[:, 0], **jitter}

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        return colour.jitter(super().draw(batch), batch["plan"])

    def targets(self, batch: Batch) -> tuple[Int[Array, "b c"], Int[Array, "b c"]]:
        """The transformation of every clip, and the number of its video's speed."""
        return divmod(batch["choice"], len(self.config.clip.strides))

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        """The head's children are 'classifier', of the transformations, and 'speed'."""
        params, state = super().init(rng, batch)
        width = params["head"]["classifier"]["kernel"].shape[0]
        features = jnp.zeros((1, 1, 1, 1, width))
        new = self._speed_head().init(jax.random.fold_in(rng, 1), features, False)
        head = {**params["head"], "speed": new["params"]["classifier"]}
        return base.Variables({**params, "head": head}, state)

    def _speed_head(self) -> heads.ClassifierHead:
        speeds = len(self.config.clip.strides)
        return dataclasses.replace(self.make_head(), num_classes=speeds)

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        """The mean over all clips, and that of the speeds over those that have one."""
        clips = self.draw(batch)
        features, state = self.features(
            variables, clips.reshape(-1, *clips.shape[2:]), train=True
        )

        def compare(head, layer, label, clips_with_label):
            params = {"params": {"classifier": variables.params["head"][layer]}}
            logits = apply(head, params, features, train=True, rngs={"dropout": rng})
            logits = logits.reshape(*label.shape, -1)[:, :clips_with_label]
            label = label[:, :clips_with_label]
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return loss.mean(), (logits.argmax(-1) == label).mean()

        kind, speed = self.targets(batch)
        kind_loss, top1 = compare(self.make_head(), "classifier", kind, kind.shape[1])
        speed_loss, speed_top1 = compare(self._speed_head(), "speed", speed, WITH_SPEED)
        loss = kind_loss + speed_loss
        metrics = {
            "loss": loss,
            "top1": top1,
            "speed_loss": speed_loss,
            "speed_top1": speed_top1,
        }
        return loss, base.StepOutput(metrics, state)

    def chance_loss(self) -> float:
        return math.log(len(self.class_names)) + math.log(len(self.config.clip.strides))

    def overlay(
        self, batch: Batch, outputs: Mapping[str, np.ndarray] | None = None
    ) -> base.Overlay:
        """What each clip is; the caption says the speed and what is predicted."""
        speeds, names = self.config.clip.strides, self.class_names
        kind, speed = divmod(np.asarray(batch["choice"]), len(speeds))
        captions = [f"x{speeds[number]}" for number in speed[:, 0].tolist()]
        if kind.shape[1] == 1:  # held out
            captions = [
                f"{names[int(i)]} {each}" if i < WITH_SPEED else names[int(i)]
                for i, each in zip(kind[:, 0].tolist(), captions, strict=True)
            ]
        if outputs is not None:
            chosen = np.asarray(outputs["logits"]).argmax(-1).tolist()
            captions = [
                f"{caption}, predicted: {', '.join(names[int(i)] for i in row)}"
                for caption, row in zip(captions, chosen, strict=True)
            ]
        return base.Overlay(captions, clips=names if kind.shape[1] > 1 else ())


def _forth_and_back(rng, length: int, speed) -> Any:
    """Consecutive frames of a run that turns once, int32 (length,), from 0.

    `length - 2` frames forwards, then as many backwards, between or at those.
    """
    import tensorflow as tf

    forwards = speed * tf.range(length - 2)
    # Frames on the way back lie between those on the way there; at speed 1 there are
    # none, and they may be the same.
    shift = tf.where(
        speed > 1, 1 + rng.integer((), tf.maximum(speed - 1, 1)), rng.integer((), 2)
    )
    run = tf.concat([forwards, forwards[::-1] + shift], axis=0)
    first = rng.integer((), length - 3)
    return tf.gather(run, first + tf.range(length))


def _subset(rng, num_frames, length: int) -> Any:
    """A set of frame numbers in their order, int32 (length,); all sets equally likely.

    Floyd's algorithm: each new number is below one more than the one before was, and
    where it is taken already, the largest that it could be is free.
    """
    import tensorflow as tf

    chosen = tf.fill([length], -1)
    for i in range(length):
        largest = tf.maximum(num_frames - length, 0) + i
        new = rng.integer((), largest + 1)
        new = tf.where(tf.reduce_any(chosen == new), largest, new)
        chosen = tf.where(tf.range(length) == i, new, chosen)
    return tf.sort(chosen)
