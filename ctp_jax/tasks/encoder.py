"""What tasks with an encoder share; as a task, the evaluation of a given encoder.

The task `encoder` trains nothing (`config.epochs = 0`). Its evaluators look at the
features, see `ctp_jax.tasks.probe`, of the encoder that `config.init_from` names.
Symbols: b clips, t frames, s side of a clip.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import models
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models.base import apply
from ctp_jax.ops import colour
from ctp_jax.tasks import base


class Task(base.Task):
    """Parameters are {'encoder': ..., 'head': ...}; subclasses add the head.

    Attributes:
        frozen_parts: how many parts of the encoder are frozen (`config.freeze`, where
            there is such a field), see `ctp_jax.models.base.Encoder`.
    """

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        self._encoder = models.create(config.model)
        stride, size = self._encoder.total_stride()[1], config.clip.size
        if size < stride:
            raise UserError(
                f"config.clip.size = {size}: needs at least {stride} pixels, the stride "
                "of the network"
            )
        options, freeze = self._encoder.freeze_options, config.get("freeze", "")
        if freeze not in options:
            known = ", ".join(repr(name) for name in options)
            raise UserError(f"config.freeze = {freeze!r}: needs one of {known}")
        self.frozen_parts = options.index(freeze)

    def clip_spec(self, train: bool) -> ClipSpec:
        """One clip as `config.clip` says, of held-out videos, too.

        A subclass that wants other clips changes this one (`dataclasses.replace`).
        """
        clip = self.config.clip
        return ClipSpec(
            num_clips=1,
            num_frames=clip.num_frames,
            size=clip.size,
            strides=tuple(clip.strides),
            jitter=clip.jitter,
            scales=tuple(clip.scales),
            flip=clip.flip,
        )

    def init(self, rng: jax.Array, batch: Batch) -> base.Variables:
        return self.init_encoder(rng)[0]

    def init_encoder(
        self, rng: jax.Array
    ) -> tuple[base.Variables, Float[Array, "1 _t _h _w c"]]:
        """Variables of the encoder alone, and features of one clip."""
        size, num_frames = self.config.clip.size, self.config.clip.num_frames
        clip = jnp.zeros((1, num_frames, size, size, 3))
        features, variables = self._encoder.init_with_output(rng, clip, train=False)
        params = {"encoder": variables["params"]}
        state = {"batch_stats": {"encoder": variables.get("batch_stats", {})}}
        return base.Variables(params, state), features

    def init_with_head(
        self, rng: jax.Array, head: nn.Module, **options
    ) -> base.Variables:
        """Variables of the encoder, and of a head that gets the features of one video.

        Args:
            rng: random key.
            head: called with the features of its clips, `train` and the options.
            **options: of that call.
        """
        encoder_rng, head_rng = jax.random.split(rng)
        (params, state), features = self.init_encoder(encoder_rng)
        features = jnp.repeat(features, self.clip_spec(True).num_clips, axis=0)
        own = head.init(head_rng, features, train=False, **options)
        stats = dict(state["batch_stats"])
        if "batch_stats" in own:
            stats["head"] = own["batch_stats"]
        return base.Variables({**params, "head": own["params"]}, {"batch_stats": stats})

    def features(
        self,
        variables: base.Variables,
        clips: Float[Array, "b t s s 3"],
        train: bool,
    ) -> tuple[Float[Array, "b _t _h _w c"], base.ModelState]:
        """Features of clips as drawn, and the state with new batch statistics.

        Args:
            variables: of the task.
            clips: grey levels; they are normalised here.
            train: see `ctp_jax.models.base.Encoder`.
        """
        params, state = variables
        features, batch_stats = self.apply_encoder(
            params["encoder"],
            state["batch_stats"]["encoder"],
            clips,
            train,
        )
        if not train:
            return features, state
        stats = {**state["batch_stats"], "encoder": batch_stats}
        return features, {**state, "batch_stats": stats}

    def apply_encoder(
        self,
        params: base.Params,
        batch_stats: base.ModelState,
        clips: Float[Array, "b t s s 3"],
        train: bool,
    ) -> tuple[Float[Array, "b _t _h _w c"], base.ModelState]:
        """As `features`, for any network with the architecture of the encoder.

        A task with several such networks keeps those that get no gradient in its state,
        under `networks`: {name: {'params': ..., 'batch_stats': ...}}. There
        `load_encoder` finds them, and `load_head` an entry 'head', if there is one.
        """
        variables = {"params": params, "batch_stats": batch_stats}
        clips = colour.normalize(clips)
        if not train:
            return apply(self._encoder, variables, clips, train=False), batch_stats
        features, changed = self._encoder.apply(
            variables,
            clips,
            train=True,
            frozen=self.frozen_parts,
            mutable=["batch_stats"],
        )
        return features, dict(changed).get("batch_stats", {})

    def frozen(self, params: base.Params) -> Any | None:
        if not self.frozen_parts:
            return None
        trained = jax.tree.map(lambda _: False, params)
        frozen = self._encoder.frozen_parameters(params["encoder"], self.frozen_parts)
        return {**trained, "encoder": frozen}

    def loss(self, variables, batch, step, rng):
        raise UserError(
            f"config.task = {self.config.task!r} trains nothing: set config.epochs and "
            "config.steps to 0"
        )

    def encoder(
        self, variables: base.Variables
    ) -> tuple[base.Params, Mapping[str, Any], dict[str, Any]]:
        return (
            variables.params["encoder"],
            variables.state["batch_stats"]["encoder"],
            self._encoder.architecture(),
        )

    def check_encoder(self, architecture: Mapping[str, Any]) -> None:
        self._encoder.check_same_weights(architecture)

    def load_encoder(
        self,
        variables: base.Variables,
        params: base.Params,
        batch_stats: Mapping[str, Any],
    ) -> base.Variables:
        """Puts the encoder also into every network that is kept under `networks`."""
        stats = {**variables.state["batch_stats"], "encoder": batch_stats}
        state = {**variables.state, "batch_stats": stats}
        network = {"params": params, "batch_stats": batch_stats}
        state = _change_networks(state, lambda old: {**old, **network})
        return base.Variables({**variables.params, "encoder": params}, state)

    def load_head(self, variables: base.Variables, head: base.Params) -> base.Variables:
        """Puts the head also into every network under `networks` that has one."""
        state = _change_networks(
            variables.state,
            lambda old: {**old, "head": head} if "head" in old else old,
        )
        return base.Variables({**variables.params, "head": head}, state)


def _change_networks(
    state: base.ModelState, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> base.ModelState:
    """The state with every entry of `networks` changed, where there are any."""
    if "networks" not in state:
        return state
    networks = {name: change(old) for name, old in state["networks"].items()}
    return {**state, "networks": networks}
