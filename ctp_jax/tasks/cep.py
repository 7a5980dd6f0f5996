"""CEP: past, present and future of a video from each other, there and back again.

Yang et al., "Back to the Future: Cycle Encoding Prediction for Self-supervised Contrastive
Video Representation Learning", arXiv:2010.07217; the numbers are those of its authors'
configs. Three clips follow each other. As in MoCo, their embeddings of appearance shall be
like that of a fourth clip, of frames from all three, and unlike those in the queue. Their
embeddings of time are predicted from each other, in both directions, and the predictions of
these are to come back to where they started.

Symbols: b videos, c = 4 clips (past, present, future, key), t frames, s side of the clip, n
keys in the queue, d numbers in an embedding.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.models import cycle
from ctp_jax.ops import colour, contrast
from ctp_jax.tasks import base, momentum

SHOWN = 3
"""Clips of the query: past, present and future."""


class Task(momentum.Task):
    """See `configs/cep.py` for its options."""

    # On the host -----------------------------------------------------------------

    def clip_spec(self, train: bool) -> ClipSpec:
        return dataclasses.replace(
            super().clip_spec(train),
            num_clips=SHOWN + 1,
            frame_numbers=self._frame_numbers,
            # Seen from one place; the key, from another.
            shared_window=SHOWN,
        )

    def _frame_numbers(self, rng, num_frames) -> tuple[Any, Any]:
        """See `ClipSpec.frame_numbers`."""
        import tensorflow as tf

        frames = self.config.clip.num_frames
        run = SHOWN * frames
        start = rng.integer((), tf.maximum(num_frames - run, 0) + 1)
        key = tf.sort(tf.argsort(rng.unit([run]))[:frames])
        steps = tf.concat([tf.range(run), key], axis=0)
        times = tf.minimum(start + steps, num_frames - 1)
        return tf.reshape(times, [-1, frames]), tf.zeros([SHOWN + 1], tf.int32)

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        """Colours of query and key, (b, 2, t)."""
        from ctp_jax.data.plans import colour  # imports TensorFlow

        return colour.sample_jitter(
            rng.split(2), self.config.jitter, self.config.clip.num_frames
        )

    # On the device ---------------------------------------------------------------

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        view = jnp.array([0] * SHOWN + [1])
        plan = {name: values[:, view] for name, values in batch["plan"].items()}
        return colour.jitter(super().draw(batch), plan)

    def make_head(self) -> cycle.CycleHead:
        options, network = self.config.contrast, self._encoder
        return cycle.CycleHead(
            options.dim, options.hidden, network.epsilon, network.batch_norm_groups
        )

    def _predictors(self) -> cycle.CyclePredictors:
        options, network = self.config.cep, self._encoder
        hidden = (options.hidden,) * (options.layers - 1)
        return cycle.CyclePredictors(
            (*hidden, self.config.contrast.dim),
            network.epsilon,
            network.batch_norm_groups,
        )

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        rng, predictors_rng = jax.random.split(rng)
        params, state = super().init(rng, batch)
        some = jnp.zeros((1, self.config.contrast.dim))
        own = self._predictors().init(predictors_rng, some, some, some, train=False)
        stats = {**state["batch_stats"], "predictors": own.get("batch_stats", {})}
        params = {**params, "predictors": own["params"]}
        return base.Variables(params, {**state, "batch_stats": stats})

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        options, clips = self.config.cep, self.draw(batch)
        query, state = self.query(variables, _flat(clips[:, :SHOWN]))
        key, state = self.key(state, _flat(clips), rng)
        query, key = (
            jax.tree.map(lambda x: x.reshape(len(clips), -1, x.shape[-1]), each)
            for each in (query, key)
        )
        own = key["appearance"][:, SHOWN]
        alike, top1 = self._contrast(query["appearance"], own, state["queue"]["key"])
        stats = state["batch_stats"]
        (there, again), changed = self._predictors().apply(
            {
                "params": variables.params["predictors"],
                "batch_stats": stats["predictors"],
            },
            *(query["time"][:, i] for i in range(SHOWN)),
            train=True,
            mutable=["batch_stats"],
        )
        stats = {**stats, "predictors": dict(changed).get("batch_stats", {})}
        wanted = jnp.moveaxis(key["time"][:, :SHOWN], 1, 0)[:, None]  # (3, 1, b, d)
        predicted, cycles = (_distance(each, wanted) for each in (there, again))
        loss = alike + options.prediction * predicted + options.cycle * cycles
        metrics = {
            "loss": loss,
            "top1": top1,
            "appearance": alike,
            "prediction": predicted,
            "cycle": cycles,
        }
        state = {**state, "batch_stats": stats}
        return loss, base.StepOutput(metrics, state, {"key": own})

    def _contrast(
        self,
        query: Float[Array, "b 3 d"],
        key: Float[Array, "b d"],
        queue: Float[Array, "n d"],
    ) -> tuple[jax.Array, jax.Array]:
        """The loss of a video's three positives, added, among 3 (1 + n) products."""
        temperature = self.config.contrast.temperature
        each = [
            contrast.similarities(query[:, i], key, queue, temperature)
            for i in range(SHOWN)
        ]
        logits = jnp.stack(each, axis=1)  # (b, 3, 1 + n)
        positive = logits[:, :, 0]
        every = jax.nn.logsumexp(logits, axis=(1, 2))
        top1 = (positive.max(axis=1) >= logits.max(axis=(1, 2))).mean()
        return (SHOWN * every - positive.sum(axis=1)).mean(), top1

    def chance_loss(self) -> float:
        """With equal logits, and predictions at right angles to what they shall be."""
        options = self.config.cep
        keys = SHOWN * (1 + self.config.contrast.queue)
        return SHOWN * math.log(keys) + 2 * (options.prediction + options.cycle)

    # Evaluation and pictures -----------------------------------------------------

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """`embedding` (b, 2, d), of the appearance of present and key."""
        clips = self.draw(batch)
        pair = [
            self.query(variables, clips[:, i], train=False)[0]["appearance"]
            for i in (1, SHOWN)
        ]
        return {"embedding": jnp.stack(pair, axis=1)}

    def overlay(self, batch: Batch, outputs=None) -> base.Overlay:
        names = ("past", "present", "future", "key")
        return base.Overlay([""] * len(batch["label"]), clips=names)


def _flat(clips: Float[Array, "b c t s s 3"]) -> Float[Array, "bc t s s 3"]:
    """All clips in one batch."""
    return clips.reshape(-1, *clips.shape[2:])


def _distance(found: Float[Array, "*b d"], wanted: Float[Array, "*#b d"]) -> jax.Array:
    """The mean squared distance of directions, 2 - 2 cosine, to unit vectors."""
    return (2 - 2 * (contrast.unit(found) * wanted).sum(-1)).mean()
