"""PRP: at which rate is a clip played, and what does it look like at twice that rate?

Yao et al., "Video Playback Rate Perception for Self-supervised Spatio-Temporal
Representation Learning", CVPR 2020; the numbers are those of its authors' release. The
network sees every r-th frame. From its features, one head classifies the rate r, another
reconstructs every r/2-th frame; pixels where something moves count more.

Symbols: b videos, c clips per video, t frames of a clip, s side of it, k rates.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models import decoder, layers
from ctp_jax.models.base import apply
from ctp_jax.tasks import base, classification

STILLS = 4
"""Frames, of t consecutive ones, whose differences say where something moves."""


class Task(classification.Task):
    """See `configs/prp.py` for its options.

    The first clip of a video is the input, the second has the frames in between: taken
    in turn, they are the clip at twice the rate.
    """

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        self.class_names = tuple(f"{rate}x" for rate in config.clip.strides)
        time, space = self._encoder.total_stride()
        self._doublings = decoder.doublings((2 * time, space, space))

    # On the host -----------------------------------------------------------------

    def see_data(self, train: Any, held_out: Any | None) -> None:
        if train.split != self.config.data.split:  # only to be looked at
            return
        fastest = max(self.config.clip.strides)
        needed, longest = self._needed(fastest), int(train.num_frames.max())
        if longest < needed:
            raise UserError(
                f"{train.name}: no video of split {train.split!r} has the {needed} frames "
                f"that rate {fastest} needs, the longest has {longest}: leave that rate "
                "out of config.clip.strides, or lower config.clip.num_frames"
            )

    def clip_spec(self, train: bool) -> ClipSpec:
        return dataclasses.replace(
            super().clip_spec(train),
            num_clips=2,
            frame_numbers=self._frame_numbers,
            crop="center",
            shared_window=True,
            # In a shorter one, no rate would fit.
            min_frames=self._needed(min(self.config.clip.strides)),
        )

    def _needed(self, rate: int) -> int:
        """Frames of the shortest video that is shown at a rate, as in the release."""
        return self.config.clip.num_frames * rate + 1

    def _frame_numbers(self, rng, num_frames) -> tuple[Any, Any]:
        """See `ClipSpec.frame_numbers`: each of the rates that fit is as likely."""
        import tensorflow as tf

        frames, rates = self.config.clip.num_frames, self.config.clip.strides
        fits = num_frames >= tf.constant([self._needed(rate) for rate in rates])
        # Numbers of the rates that fit, before those of the others.
        order = tf.argsort(tf.cast(~fits, tf.int32), stable=True)
        count = tf.reduce_sum(tf.cast(fits, tf.int32))
        choice = order[rng.integer((), tf.maximum(count, 1))]
        rate = tf.constant(rates)[choice]
        start = rng.integer((), tf.maximum(num_frames - frames * rate, 0) + 1)
        times = start + tf.range(2 * frames) * rate // 2
        times = tf.minimum(times, num_frames - 1)
        return tf.transpose(tf.reshape(times, [frames, 2])), tf.fill([2], choice)

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        return {"label": batch["choice"][:, 0]}

    # On the device ---------------------------------------------------------------

    def make_head(self) -> decoder.PlaybackHead:
        return decoder.PlaybackHead(
            self.config.head.channels,
            num_classes=len(self.class_names),
            doublings=self._doublings,
            init_std=self.config.head.init_std,
            **layers.block_options(self._encoder),
        )

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        return self.init_with_head(rng, self.make_head(), decode=True)

    def logits(
        self, variables: base.Variables, batch: Batch, rng: jax.Array | None = None
    ) -> tuple[Float[Array, "b c k"], base.ModelState]:
        """Logits of every clip in evaluation; both clips of a video have its rate."""
        clips = self.draw(batch)
        flat = clips.reshape(-1, *clips.shape[2:])
        features, state = self.features(variables, flat, train=False)
        logits = apply(self.make_head(), _head(variables), features, train=False)
        return logits.reshape(*clips.shape[:2], -1), state

    def reconstruct(
        self, variables: base.Variables, clips: Float[Array, "b t s s 3"], train: bool
    ) -> tuple[Float[Array, "b k"], Float[Array, "b _t s s 3"], base.ModelState]:
        """Logits, the clips at twice their rate, in [0, 1], and the new state.

        Args:
            variables: of encoder and head.
            clips: the input, grey levels.
            train: see `ctp_jax.models.base.Encoder`.
        """
        features, state = self.features(variables, clips, train)
        (logits, decoded), changed = self.make_head().apply(
            _head(variables),
            features,
            train=train,
            decode=True,
            mutable=["batch_stats"] if train else [],
        )
        if train:
            stats = {**state["batch_stats"], "head": dict(changed)["batch_stats"]}
            state = {**state, "batch_stats": stats}
        # Where strides do not divide the clip, features stand for more than the clip.
        frames, size = clips.shape[1:3]
        decoded = decoded[:, : 2 * frames, :size, :size]
        return (
            logits,
            decoded.astype(jnp.promote_types(decoded.dtype, "float32")),
            state,
        )

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        options, label = self.config.prp, self.targets(batch)
        clips = self.draw(batch)
        head = variables.params["head"]
        faster = _scale_gradient(head["classifier"], options.classifier_rate)
        params = {**variables.params, "head": {**head, "classifier": faster}}
        logits, decoded, state = self.reconstruct(
            variables._replace(params=params), clips[:, 0], train=True
        )
        target = in_turn(clips) / 255
        rate = jnp.asarray(self.config.clip.strides)[label]
        mask = motion_mask(target, rate, max(self.config.clip.strides), options.mask)
        real = real_frames(rate, target.shape[1])
        reconstruction = _masked_mean(mask * jnp.square(decoded - target), real)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        loss = reconstruction + options.classification * entropy
        metrics = {
            "loss": loss,
            "top1": (logits.argmax(-1) == label).mean(),
            "cross_entropy": entropy,
            "reconstruction": reconstruction,
            # Of a network that has learnt nothing but the mean colour of videos.
            "mean_colour": _masked_mean(
                mask * jnp.square(target.mean(axis=(0, 1, 2, 3)) - target), real
            ),
        }
        return loss, base.StepOutput(metrics, state)

    def head(self, variables: base.Variables) -> base.Params:
        """With the statistics of its norms, without which it is another network."""
        return _head(variables)

    def load_head(self, variables: base.Variables, head: base.Params) -> base.Variables:
        params, state = super().load_head(variables, head["params"])
        stats = {**state["batch_stats"], "head": head["batch_stats"]}
        return base.Variables(params, {**state, "batch_stats": stats})

    def picture(
        self, batch: Batch, variables: base.Variables | None = None
    ) -> Float[Array, "b c t s s 3"]:
        clips = self.draw(batch)
        if variables is None:
            return clips
        decoded = self.reconstruct(variables, clips[:, 0], train=False)[1]
        return jnp.concatenate([clips, 255 * decoded[:, None, 1::2]], axis=1)

    def overlay(self, batch: Batch, outputs=None) -> base.Overlay:
        names = ("input", "frames in between", "these, reconstructed")
        shown = names if outputs is not None else names[:2]
        return dataclasses.replace(super().overlay(batch, outputs), clips=shown)

    def chance_loss(self) -> None:
        """Not known: that of the reconstruction depends on the videos."""


def _head(variables: base.Variables) -> dict[str, Any]:
    stats = variables.state["batch_stats"]["head"]
    return {"params": variables.params["head"], "batch_stats": stats}


def _scale_gradient(tree: Any, factor: float) -> Any:
    """The same values, with `factor` times the gradient."""

    def scale(x):
        value = jax.lax.stop_gradient(x)
        return value + factor * (x - value)

    return jax.tree.map(scale, tree)


def in_turn(clips: Float[Array, "b 2 t s s 3"]) -> Float[Array, "b _t s s 3"]:
    """The frames of two clips of each video, taken in turn."""
    both = jnp.moveaxis(clips, 1, 2)
    return both.reshape(len(both), -1, *both.shape[3:])


def real_frames(rate: Int[Array, " b"], frames: int) -> Bool[Array, "b {frames}"]:
    """Which frames at twice a rate a video has: at rate 1, every second one."""
    return (jnp.arange(frames) % 2 == 0) | (rate[:, None] % 2 == 0)


def _masked_mean(
    error: Float[Array, "b t s s 3"], real: Bool[Array, "b t"]
) -> Float[Array, ""]:
    """The mean over the real frames of each video, and over videos."""
    each = error.mean(axis=(2, 3, 4))
    return ((each * real).sum(axis=1) / real.sum(axis=1)).mean()


def motion_mask(
    target: Float[Array, "b t s s 3"],
    rate: Int[Array, " b"],
    fastest: int,
    values: tuple[float, float],
) -> Float[Array, "b t s s 3"]:
    """How much every pixel of the target counts.

    A clip at rate r covers r times as many frames of the video as it has, r chunks. Of
    each chunk, squared differences between four stills are averaged over time and over
    patches a quarter of the side wide, a quarter of that apart, stretched to `values`,
    and enlarged bilinearly. A chunk without motion counts 1.

    The stills are frames 0, 5, 10, 15 of 16 at rates 1 and 2, as in the release. At 4
    and 8, where these are not in the target, they are the last ones before (0, 4, 10, 14
    and 0, 4, 8, 12), so that no other frames have to be decoded.

    Args:
        target: in [0, 1], 2r frames for every r that the video has.
        rate: of each video.
        fastest: the largest possible rate.
        values: of the pixels with least and with most motion.
    """
    frames, size = target.shape[1:3]
    length = frames // 2  # of a chunk, in frames of the video
    stills = np.arange(STILLS) * (length - 1) // (STILLS - 1)
    in_video = np.arange(fastest)[:, None] * length + stills
    chosen = jnp.minimum(2 * in_video // rate[:, None, None], frames - 1)
    seen = jax.vmap(lambda clip, index: clip[index])(target, chosen)
    motion = jnp.square(jnp.diff(seen, axis=2)).mean(axis=2)  # (b, fastest, s, s, 3)
    patch, step = size // 4, max(size // 16, 1)
    pooled = nn.avg_pool(motion, (patch, patch), (step, step))
    low, high = (f(pooled, axis=(2, 3), keepdims=True) for f in (jnp.min, jnp.max))
    share = (pooled - low + 1e-6) / (high - low + 1e-6)
    weight = values[0] + (values[1] - values[0]) * share
    weight = jnp.where((high > low).any(axis=-1, keepdims=True), weight, 1.0)
    weight = jax.image.resize(weight, motion.shape, "linear")
    chunk = jnp.arange(frames) * rate[:, None] // frames
    return jax.vmap(lambda masks, index: masks[index])(weight, chunk)
