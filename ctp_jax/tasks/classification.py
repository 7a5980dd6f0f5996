"""Classification of clips: what recognition and several pretext tasks share.

A subclass says what it draws and where its labels come from. The network is the encoder,
global average pooling, dropout and a linear layer. Symbols: b videos, c clips per video,
t frames, s side of the clip, k classes.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError
from ctp_jax.models import heads, saliency
from ctp_jax.models.base import apply
from ctp_jax.ops import colour
from ctp_jax.tasks import base, encoder


class Task(encoder.Task):
    """Learns the label of the video, or of each clip, from its clips, by cross-entropy."""

    def make_head(self):
        """The Flax module on top of the encoder, called with (features, train)."""
        head = self.config.head
        if not self.class_names:
            raise UserError(
                f"config.task = {self.config.task!r}: no class_names: set them in the "
                "class, or in __init__ after that of the base class"
            )
        return heads.ClassifierHead(len(self.class_names), head.dropout, head.init_std)

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        return self.init_with_head(rng, self.make_head())

    def logits(
        self, variables: base.Variables, batch: Batch, rng: jax.Array | None = None
    ) -> tuple[Float[Array, "b c k"], base.ModelState]:
        """Logits of every clip, and the state with new batch statistics.

        Args:
            variables: of encoder and head.
            batch: see `Batch`.
            rng: random key for dropout in training; None for evaluation.
        """
        logits, _, state = self.logits_and_features(variables, batch, rng)
        return logits, state

    def logits_and_features(
        self, variables: base.Variables, batch: Batch, rng: jax.Array | None = None
    ) -> tuple[Float[Array, "b c k"], Float[Array, "bc _t _h _w d"], base.ModelState]:
        """As `logits`, with the features of all clips, one after the other."""
        train = rng is not None
        clips = self.draw(batch)
        videos = len(clips)
        features, state = self.features(
            variables,
            # All clips in one batch: BatchNorm sees them together.
            clips.reshape(-1, *clips.shape[2:]),
            train,
        )
        logits = apply(
            self.make_head(),
            {"params": variables.params["head"]},
            features,
            train=train,
            rngs={"dropout": rng} if train else None,
        )
        return logits.reshape(videos, -1, logits.shape[-1]), features, state

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        logits, state = self.logits(variables, batch, rng)
        label = self.targets(batch)
        videos, clips = logits.shape[:2]
        if label.shape not in ((videos,), (videos, clips)):
            raise UserError(
                f"config.task = {self.config.task!r}: its labels are {label.shape}, not "
                f"{(videos,)}: one per video, or {(videos, clips)}: one per clip"
            )
        label = jnp.broadcast_to(label.reshape(videos, -1), (videos, clips))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        top1 = (logits.argmax(-1) == label).mean()
        return loss, base.StepOutput({"loss": loss, "top1": top1}, state)

    def chance_loss(self) -> float:
        return math.log(len(self.class_names))

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """`logits` (b, c, k) of every clip, of all clips at once."""
        return {"logits": self.logits(variables, batch)[0]}

    def explain(
        self, variables: base.Variables, batch: Batch, classes: Int[Array, " v"]
    ) -> saliency.Saliency:
        """What in the clips speaks for a class, see `ctp_jax.models.saliency.explain`.

        Args:
            variables: of encoder and head.
            batch: see `Batch`.
            classes: of every row of logits, -1 for the predicted one. A row is a clip, or
                a video where the head looks at all clips of one.

        Raises:
            UserError: for a network of the user's with relus of its own.
        """
        relus = []

        def encode(clips, relu):
            def counted(x):
                relus.append(x.shape)
                return relu(x)

            network = self._encoder.clone(relu=counted)
            stats = variables.state["batch_stats"]["encoder"]
            network_variables = {"params": params["encoder"], "batch_stats": stats}
            return apply(network, network_variables, clips, train=False)

        def classify(features, relu):
            head = self.make_head()
            head = head.clone(relu=relu) if hasattr(head, "relu") else head
            stats = variables.state["batch_stats"].get("head", {})
            weights = {"params": params["head"], "batch_stats": stats}
            return apply(head, weights, features, train=False)

        params, clips = variables.params, self.draw(batch)
        clips = colour.normalize(clips.reshape(-1, *clips.shape[2:]))
        found = saliency.explain(encode, classify, clips, classes)
        if not relus:
            raise UserError(
                f"config.model.name = {self.config.model.name!r}: none of its relus is "
                "self.relu, which guided backpropagation replaces: call that one, see "
                "ctp_jax/models/base.py"
            )
        return found


def change_colours(
    clips: Float[Array, "b c t s s 3"], plan: Mapping[str, Array]
) -> Float[Array, "b c t s s 3"]:
    """Changes colours as `ctp_jax.data.plans.colour.sample_clip_colour` planned.

    Hue and saturation change last, as in the authors' release for recognition. All
    clips of a video change alike.
    """
    frames = {
        name: jnp.broadcast_to(plan[name][:, None], clips.shape[:3])
        for name in ("brightness", "contrast")
    }
    clips = colour.adjust_brightness_contrast(clips, **frames)
    chosen, degrees, factor = (
        jnp.broadcast_to(plan[name][:, None], clips.shape[:2])
        for name in ("hue_saturation", "hue", "saturation")
    )
    return colour.adjust_hue_saturation(clips, degrees, factor, chosen)
