"""What contrastive tasks with a momentum encoder and a queue of keys share.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020.
The query encoder is trained; the key encoder follows it as a moving average. The query of a
video shall be like its key and unlike the keys of earlier batches, which the queue holds.

    params  encoder, head                                   of queries
    state   batch_stats   encoder, head                     of queries
            networks/key  params, batch_stats, head, head_stats
            queue         key (n, d), and what `entries` adds to it, (n, ...)
            pointer       int32: the row that the next key takes

In one step: queries; keys of the key encoder, in training mode, with statistics of its own;
loss against the queue *before* these keys are in it; the optimiser; in `after_step` the key
encoder moves towards the new parameters and the keys enter the queue. Releases move the key
encoder at the start of the step instead: the same sequence, as both encoders start equal.

A subclass says which clips are query and key (`clip_spec`, `plan`, `draw`), and may override
`make_head`, `new_queue` with `entries`, `positives`, `compare`, or `loss` with `query`,
and `key` as its parts. `config.contrast` has the options.

Symbols: b videos, n keys in the queue, m = 1 + n, d numbers in an embedding, t frames, s side
of a clip.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.ops import contrast
from ctp_jax.tasks import base, encoder

Entries = Mapping[str, jax.Array]
"""Rows of the queue by name, 'key' (b or n, d) among them."""


class Task(encoder.Task):
    """Finds the key of a query among those of a queue; see the module."""

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        size, batch = config.contrast.queue, config.batch_size
        if size % batch:
            whole = max(size // batch, 1) * batch
            raise UserError(
                f"config.contrast.queue = {size} is not divisible by config.batch_size = "
                f"{batch}, the keys that enter it in a step: use {whole}, or another batch"
            )

    def clip_spec(self, train: bool) -> ClipSpec:
        """Two clips of a video, independent of each other; of held-out videos, too."""
        return dataclasses.replace(super().clip_spec(train), num_clips=2)

    # Networks --------------------------------------------------------------------

    def make_head(self) -> nn.Module:
        """The Flax module on top of the encoder, called with (features, train).

        It may return several embeddings, as any pytree, and have batch statistics; then
        `query` and `key` return that, and `loss` is to be overridden.
        """
        return heads.ProjectionHead(
            self.config.contrast.dim, self.config.contrast.hidden
        )

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        encoder_rng, head_rng, queue_rng = jax.random.split(rng, 3)
        (params, state), features = self.init_encoder(encoder_rng)
        head = self.make_head().init(head_rng, features, train=False)
        params = {**params, "head": head["params"]}
        stats = {**state["batch_stats"], "head": head.get("batch_stats", {})}
        key = {
            "params": params["encoder"],
            "batch_stats": stats["encoder"],
            "head": params["head"],
            "head_stats": stats["head"],
        }
        state = {
            "batch_stats": stats,
            # A copy: a step donates the variables, so no array may be in them twice.
            "networks": {"key": jax.tree.map(jnp.copy, key)},
            "queue": self.new_queue(queue_rng),
            "pointer": jnp.zeros((), jnp.int32),
        }
        return base.Variables(params, state)

    def embed(
        self, network: Mapping[str, Any], clips: Float[Array, "b t s s 3"], train: bool
    ) -> tuple[Any, Mapping[str, Any]]:
        """What the head says of clips, each vector of length one; the network after it.

        Args:
            network: params, batch_stats, head and head_stats, as under `networks`.
            clips: grey levels.
            train: normalise with the statistics of the batch, and update the others.
        """
        features, stats = self.apply_encoder(
            network["params"], network["batch_stats"], clips, train
        )
        found, changed = self.make_head().apply(
            {"params": network["head"], "batch_stats": network["head_stats"]},
            features,
            train=train,
            mutable=["batch_stats"] if train else [],
        )
        head_stats = dict(changed).get("batch_stats", network["head_stats"])
        new = {**network, "batch_stats": stats, "head_stats": head_stats}
        return jax.tree.map(contrast.unit, found), new

    def query(
        self,
        variables: base.Variables,
        clips: Float[Array, "b t s s 3"],
        train: bool = True,
    ) -> tuple[Any, base.ModelState]:
        """Embeddings by the trained network, and the state with its new statistics."""
        params, state = variables
        network = {
            "params": params["encoder"],
            "batch_stats": state["batch_stats"]["encoder"],
            "head": params["head"],
            "head_stats": state["batch_stats"]["head"],
        }
        found, new = self.embed(network, clips, train)
        stats = {"encoder": new["batch_stats"], "head": new["head_stats"]}
        return found, {**state, "batch_stats": {**state["batch_stats"], **stats}}

    def key(
        self, state: base.ModelState, clips: Float[Array, "b t s s 3"], rng: jax.Array
    ) -> tuple[Any, base.ModelState]:
        """Embeddings by the key network, without gradient, and the state after it.

        With BatchNorm in groups, the clips are permuted first and put back afterwards, so
        that a key does not share its statistics with its query (He et al., section 3.3).
        """
        shuffle = self.config.model.batch_norm_groups > 1
        order = jax.random.permutation(rng, len(clips)) if shuffle else None
        clips = clips if order is None else clips[order]
        found, new = self.embed(state["networks"]["key"], clips, train=True)
        if order is not None:
            found = jax.tree.map(lambda rows: rows[jnp.argsort(order)], found)
        state = {**state, "networks": {**state["networks"], "key": new}}
        return jax.lax.stop_gradient((found, state))

    # Contrast --------------------------------------------------------------------

    def new_queue(self, rng: jax.Array) -> Entries:
        """The queue before the first step: random unit vectors, float32 (n, d).

        A subclass adds what travels with the keys, e.g. {'label': int32 (n,) of -1}.
        """
        shape = (self.config.contrast.queue, self.config.contrast.dim)
        return {"key": contrast.unit(jax.random.normal(rng, shape, jnp.float32))}

    def entries(
        self, variables: base.Variables, batch: Batch, key: Float[Array, "b d"]
    ) -> Entries:
        """What enters the queue of this batch, rows (b, ...) of `new_queue`'s names."""
        return {"key": key}

    def positives(
        self, entries: Entries, queue: Entries, rng: jax.Array
    ) -> Bool[Array, "b m"]:
        """Which keys a query shall be like: column 0 is its own, the others the queue's.

        At least one in each row. By default: its own.
        """
        shape = (len(entries["key"]), 1 + len(queue["key"]))
        return jnp.zeros(shape, bool).at[:, 0].set(True)

    def compare(
        self,
        query: Float[Array, "b d"],
        entries: Entries,
        queue: Entries,
        rng: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of queries, a mean, and metrics.

        `top1` is the share of queries whose most alike key is a positive.
        """
        temperature = self.config.contrast.temperature
        logits = contrast.similarities(query, entries["key"], queue["key"], temperature)
        positives = self.positives(entries, queue, rng)
        found = jnp.take_along_axis(positives, logits.argmax(1)[:, None], axis=1)
        loss = contrast.mean_log_likelihood(logits, positives).mean()
        return loss, {"loss": loss, "top1": found.mean()}

    def loss(
        self,
        variables: base.Variables,
        batch: Batch,
        step: jax.Array | int,
        rng: jax.Array,
    ) -> tuple[jax.Array, base.StepOutput]:
        """Of clip 0 of every video as query, and clip 1 as its key."""
        order_rng, positives_rng = jax.random.split(rng)
        clips = self.draw(batch)
        query, state = self.query(variables, clips[:, 0])
        key, state = self.key(state, clips[:, 1], order_rng)
        entries = self.entries(variables, batch, key)
        loss, metrics = self.compare(query, entries, state["queue"], positives_rng)
        return loss, base.StepOutput(metrics, state, entries)

    def after_step(
        self, variables: base.Variables, carry: Entries, step: jax.Array
    ) -> base.ModelState:
        """Moves the key encoder, and puts the keys where the oldest ones are."""
        params, state = variables
        key = state["networks"]["key"]
        own = {"params": params["encoder"], "head": params["head"]}
        keep = self.config.contrast.momentum
        moved = optax.incremental_update(own, {n: key[n] for n in own}, 1 - keep)
        queue = {
            name: jax.lax.dynamic_update_slice_in_dim(
                rows, carry[name].astype(rows.dtype), state["pointer"], axis=0
            )
            for name, rows in state["queue"].items()
        }
        size = len(queue["key"])
        return {
            **state,
            "networks": {**state["networks"], "key": {**key, **moved}},
            "queue": queue,
            "pointer": (state["pointer"] + len(carry["key"])) % size,
        }

    def chance_loss(self) -> float | None:
        """With equal logits. The first steps lie below it: until the queue is full of
        keys, its random vectors are easily told from any clip."""
        return math.log(1 + self.config.contrast.queue)

    # Evaluation and pictures -----------------------------------------------------

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """`embedding` (b, 2, d) of query and key clip, both by the trained network.

        See `ctp_jax.evaluators.pairs`.
        """
        clips = self.draw(batch)
        pair = [self.query(variables, clips[:, i], train=False)[0] for i in (0, 1)]
        return {"embedding": jnp.stack(pair, axis=1)}

    def overlay(self, batch: Batch, outputs=None) -> base.Overlay:
        """Says which clip is which, whatever labels there are."""
        return base.Overlay([""] * len(batch["label"]), clips=("query", "key"))
