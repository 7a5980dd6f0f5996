"""A made-up task that uses everything the interface carries, on tiny pictures.

It is momentum contrast between two clips of a video, with a queue, plus a class that
the plan decides, plus the mean box of the second clip: several clips per video, labels
from the plan, boxes per frame, state that changes after the step, a loss over the
global batch, BatchNorm.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ctp_jax.data.batch import ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.evaluators.base import Evaluator
from ctp_jax.tasks import base

QUEUE = 16
CLASSES = 3


class Encoder(nn.Module):
    """(n, t, h, w, 3) in [0, 1] -> (n, width)."""

    width: int

    @nn.compact
    def __call__(self, clips, train):
        features = nn.Dense(self.width, name="dense")(
            clips.reshape(clips.shape[0], -1) - 0.5
        )
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-3,
            use_fast_variance=False,
            name="norm",
        )
        return nn.relu(norm(features))


class Task(base.Task):
    """See above."""

    def __init__(self, config):
        super().__init__(config)
        if config.model.width < 2:
            raise UserError("config.model.width: the toy needs 2 or more")
        self._encoder = Encoder(config.model.width)
        self._head = nn.Dense(CLASSES + 4)

    def clip_spec(self, train):
        return ClipSpec(num_clips=2, num_frames=3, size=8)

    def init(self, rng, batch):
        clips = jnp.zeros((2, *batch["frames"].shape[2:]))
        encoder_rng, head_rng, queue_rng = jax.random.split(rng, 3)
        variables = self._encoder.init(encoder_rng, clips, train=False)
        width = self.config.model.width
        head = self._head.init(head_rng, jnp.zeros((1, width)))["params"]
        params = {"encoder": variables["params"], "head": head}
        queue = _unit(jax.random.normal(queue_rng, (QUEUE, width)))
        state = {
            "batch_stats": variables["batch_stats"],
            "networks": {"key": {"params": variables["params"]}},
            "queue": queue,
            "pointer": jnp.zeros((), jnp.int32),
        }
        return base.Variables(params, state)

    def loss(self, variables, batch, step, rng):
        params, model_state = variables
        clips = batch["frames"].astype(jnp.float32) / 255
        clips += 0.01 * jax.random.normal(rng, clips.shape)
        features, changed = self._encoder.apply(
            {"params": params["encoder"], "batch_stats": model_state["batch_stats"]},
            clips[:, 0],
            train=True,
            mutable=["batch_stats"],
        )
        keys = self._encoder.apply(
            {
                **model_state["networks"]["key"],
                "batch_stats": model_state["batch_stats"],
            },
            clips[:, 1],
            train=False,
        )
        queries, keys = _unit(features), jax.lax.stop_gradient(_unit(keys))
        # Every video of the global batch against every other, and the queue.
        logits = queries @ jnp.concatenate([keys, model_state["queue"]]).T / 0.2
        right = jnp.arange(len(logits))
        contrast = optax.softmax_cross_entropy_with_integer_labels(logits, right).mean()
        out = self._head.apply({"params": params["head"]}, features)
        label = batch["plan"]["speed"]
        loss_class = optax.softmax_cross_entropy_with_integer_labels(
            out[:, :CLASSES], label
        ).mean()
        boxes = (
            batch["annotations"]["boxes"][:, 1].mean(axis=1) / self.clip_spec(True).size
        )
        loss_box = jnp.square(out[:, CLASSES:] - boxes).mean()
        total = contrast + loss_class + loss_box
        total = jnp.where(batch["plan"]["poison"].max() > 0, jnp.nan, total)
        metrics = {
            "loss_contrast": contrast,
            "loss_class": loss_class,
            "accuracy": (out[:, :CLASSES].argmax(-1) == label).mean(),
        }
        state = {**model_state, "batch_stats": changed["batch_stats"]}
        return total, base.StepOutput(metrics, state, carry=keys)

    def after_step(self, variables, carry, step):
        params, model_state = variables
        # A schedule: the key network follows faster at first.
        keep = jnp.minimum(0.9, 0.5 + 0.1 * step)
        key = jax.tree.map(
            lambda old, new: keep * old + (1 - keep) * new,
            model_state["networks"]["key"]["params"],
            params["encoder"],
        )
        at = (model_state["pointer"] + jnp.arange(len(carry))) % QUEUE
        return {
            **model_state,
            "networks": {"key": {"params": key}},
            "queue": model_state["queue"].at[at].set(carry),
            "pointer": (model_state["pointer"] + len(carry)) % QUEUE,
        }

    def predict(self, variables, batch):
        params, model_state = variables
        clips = batch["frames"].astype(jnp.float32) / 255
        features = self._encoder.apply(
            {"params": params["encoder"], "batch_stats": model_state["batch_stats"]},
            clips[:, 0],
            train=False,
        )
        out = self._head.apply({"params": params["head"]}, features)
        return {"class": out[:, :CLASSES].argmax(-1), "embedding": features}

    def encoder(self, variables):
        params, model_state = variables
        architecture = {"name": "toy", "width": self.config.model.width}
        return params["encoder"], model_state["batch_stats"], architecture

    def check_encoder(self, architecture):
        if architecture["width"] != self.config.model.width:
            raise UserError(
                f"init_from: width {architecture['width']}, this config has "
                f"{self.config.model.width}"
            )

    def load_encoder(self, variables, params, batch_stats):
        state = {
            **variables.state,
            "batch_stats": batch_stats,
            "networks": {"key": {"params": params}},
        }
        return base.Variables({**variables.params, "encoder": params}, state)


LOOKS_AT = "predictions"


def make(options, subject):
    """The module is an evaluator, too."""
    return Accuracy()


class Accuracy(Evaluator):
    """Share of right classes; also counts what it saw."""

    def reset(self):
        self.right, self.seen, self.embeddings = 0, [], []

    def update(self, batch, outputs):
        assert "frames" not in batch
        real = batch["mask"] > 0
        right = outputs["class"] == batch["plan"]["speed"]
        self.right += int(right[real].sum())
        self.seen += batch["index"][real].tolist()
        self.embeddings.append(outputs["embedding"][real])

    def results(self):
        yield "accuracy", self.right / max(len(self.seen), 1)
        yield "videos", len(set(self.seen))
        yield "indices", self.seen


def _unit(x):
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-6)
