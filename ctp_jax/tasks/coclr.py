"""CoCLR, its second stage: the videos that are alike in another stream are positives, too.

Han, Xie, Zisserman, "Self-supervised Co-training for Video Representation Learning", NeurIPS
2020; the numbers are those of its release. The first stage is the task `infonce`, once on
RGB frames and once on optical flow. Here one of the two networks goes on (`config.init_from`
with `init_head`), in the stream that `config.data.stream` names. The other one stays as it is:
the sampler, `config.coclr.sampler`. It sees the key's clip in the other stream, and the keys
in the queue that are nearest in its space are positives, as are the query's own key and keys
of the same source. Then the streams change their roles.

Until the queue is full of keys, there are no nearest ones.

Symbols: b videos, c = 3 clips (query, key, the key's in the other stream), n keys in the queue,
m = 1 + n, d numbers in an embedding, t frames, s side of the clip.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from ctp_jax.data import selection
from ctp_jax.data.batch import PER_CLIP, Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.ops import contrast
from ctp_jax.tasks import base, infonce, momentum, render

KEY, OTHER = 1, 2
"""Numbers of clips in a batch: of the key, and of the key in the other stream."""


class Task(infonce.Task):
    """See `configs/coclr.py` for its options."""

    head_tasks = ("infonce", "coclr")
    _sources: np.ndarray | None = None

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        if config.contrast.positives != "own":
            raise UserError(
                f"config.contrast.positives = {config.contrast.positives!r}: the sampler "
                "says what is positive, leave it at 'own'"
            )
        nearest, queue = config.coclr.nearest, config.contrast.queue
        if nearest > queue:
            raise UserError(
                f"config.coclr.nearest = {nearest}: needs at most config.contrast.queue = "
                f"{queue}"
            )

    def see_data(self, train: Any, held_out: Any | None) -> None:
        """Numbers the sources of the videos, in the order of `batch["index"]`."""
        super().see_data(train, held_out)
        needed = self.clip_spec(True).min_frames
        _, used, _ = selection.choose(train, self.config.data, self.config.seed, needed)
        cut = re.compile(self.config.coclr.source_of.encode())
        names = [cut.sub(b"", name) for name in used.id_bytes.tolist()]
        self._sources = np.unique(names, return_inverse=True)[1].astype(np.int32)

    # Clips -----------------------------------------------------------------------

    def clip_spec(self, train: bool) -> ClipSpec:
        return dataclasses.replace(super().clip_spec(train), other_stream=(KEY,))

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The pair as for InfoNCE, and the key's clip in the other stream as it is."""
        pair = super().draw(_clips(batch, 0, OTHER))
        return jnp.concatenate([pair, self._draw_other(batch)], axis=1)

    def _draw_other(self, batch: Batch) -> Float[Array, "b 1 t s s 3"]:
        return render.crop_clips(_clips(batch, OTHER, OTHER + 1), self.config.clip.size)

    def overlay(self, batch: Batch, outputs=None) -> base.Overlay:
        pair = super().overlay(_clips(batch, 0, OTHER), outputs)
        flow = self.config.data.stream == "rgb"
        other = "the key's " + ("flow" if flow else "RGB frames")
        return base.Overlay(pair.captions, clips=(*pair.clips, other))

    # The sampler -----------------------------------------------------------------

    def other_network(self) -> tuple[str, str]:
        field, path = "config.coclr.sampler", self.config.coclr.sampler
        if not path:
            raise UserError(
                f"{field} is empty: needs a finished run of configs/infonce.py on the "
                f"other stream (its argument stream={self._other_stream()}), or 'random'"
            )
        return field, path if path != "random" else ""

    def _other_stream(self) -> str:
        return "flow" if self.config.data.stream == "rgb" else "rgb"

    def load_other_network(
        self, variables: base.Variables, encoder: Any
    ) -> base.Variables:
        self.check_encoder(encoder.architecture)
        if encoder.head_task not in self.head_tasks:
            raise UserError(
                f"{encoder.path}: its head is of task {encoder.head_task!r}: needs one of "
                f"{', '.join(self.head_tasks)}"
            )
        data = encoder.provenance.get("config", {}).get("data", {})
        stream = data.get("stream", "rgb") if isinstance(data, dict) else "rgb"
        if stream != self._other_stream():
            raise UserError(
                f"{encoder.path}: is of the stream {stream!r}, as is this run "
                f"(config.data.stream): name a run on {self._other_stream()!r}"
            )
        sampler = {
            "params": encoder.params,
            "batch_stats": encoder.batch_stats,
            "head": encoder.head,
        }
        old = variables.state["sampler"]
        return variables._replace(
            state={**variables.state, "sampler": {**old, **sampler}}
        )

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        """With a random sampler; it lies outside `networks`, which `init_from` fills."""
        params, state = super().init(rng, batch)
        sampler = jax.tree.map(jnp.copy, state["networks"]["key"])
        return base.Variables(params, {**state, "sampler": sampler})

    # Contrast --------------------------------------------------------------------

    def new_queue(self, rng: jax.Array) -> momentum.Entries:
        """With `other`, embeddings by the sampler, and `source`, -1 where there is no key."""
        key_rng, other_rng = jax.random.split(rng)
        queue = super().new_queue(key_rng)
        other = super().new_queue(other_rng)["key"]
        return {**queue, "other": other, "source": jnp.full_like(queue["label"], -1)}

    def entries(
        self, variables: base.Variables, batch: Batch, key: Float[Array, "b d"]
    ) -> momentum.Entries:
        entries = super().entries(variables, batch, key)
        clips = self._draw_other(batch)[:, 0]
        other, _ = self.embed(variables.state["sampler"], clips, train=False)
        source = batch["index"]
        if self._sources is not None:
            source = jnp.asarray(self._sources)[source]
        other = jax.lax.stop_gradient(other)
        return {**entries, "other": other, "source": source}

    def nearest(
        self, entries: momentum.Entries, queue: momentum.Entries
    ) -> Bool[Array, "b n"]:
        """The keys of other sources that are nearest for the sampler; none at first."""
        alike = jnp.matmul(
            entries["other"], queue["other"].T, precision=jax.lax.Precision.HIGHEST
        )
        alike = jnp.where(same_source(entries, queue), -jnp.inf, alike)
        _, columns = jax.lax.top_k(alike, self.config.coclr.nearest)
        found = jnp.zeros(alike.shape, bool)
        found = found.at[jnp.arange(len(alike))[:, None], columns].set(True)
        return found & (queue["source"] >= 0).all()

    def positives(
        self, entries: momentum.Entries, queue: momentum.Entries, rng: jax.Array
    ) -> Bool[Array, "b m"]:
        own = jnp.ones((len(entries["key"]), 1), bool)
        others = same_source(entries, queue) | self.nearest(entries, queue)
        return jnp.concatenate([own, others], axis=1)

    def compare(
        self,
        query: Float[Array, "b d"],
        entries: momentum.Entries,
        queue: momentum.Entries,
        rng: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """As for InfoNCE; `same_class` is the share of the nearest with the query's label.

        In a share of the steps, `config.coclr.leave_own`, the own key of a query that has
        other positives counts as none: the network knows it from the first stage.
        """
        temperature = self.config.contrast.temperature
        logits = contrast.similarities(query, entries["key"], queue["key"], temperature)
        positives = self.positives(entries, queue, rng)
        found = jnp.take_along_axis(positives, logits.argmax(1)[:, None], axis=1)
        leave = jax.random.bernoulli(rng, self.config.coclr.leave_own)
        own = positives[:, 0] & ~(leave & (positives.sum(1) > 1))
        loss = contrast.log_sum_likelihood(logits, positives.at[:, 0].set(own)).mean()
        nearest = self.nearest(entries, queue)
        label = entries["label"][:, None]
        right = nearest & (label >= 0) & (label == queue["label"])
        share = right.sum() / jnp.maximum(nearest.sum(), 1)
        return loss, {"loss": loss, "top1": found.mean(), "same_class": share}

    def chance_loss(self) -> float | None:
        """With equal logits and a full queue, where no two videos are of one source."""
        options, among = self.config.coclr, math.log(1 + self.config.contrast.queue)
        left, kept = options.nearest or 1, options.nearest + 1
        share = options.leave_own
        return among - share * math.log(left) - (1 - share) * math.log(kept)


def same_source(
    entries: momentum.Entries, queue: momentum.Entries
) -> Bool[Array, "b n"]:
    """Which keys in the queue are of the same source as a key of this batch."""
    return entries["source"][:, None] == queue["source"]


def _clips(batch: Batch, start: int, end: int) -> Batch:
    """The batch with some of its clips only."""
    some = {name: batch[name][:, start:end] for name in PER_CLIP if name in batch}
    return {**batch, **some}
