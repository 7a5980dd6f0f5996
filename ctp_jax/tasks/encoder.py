"""Nothing but an encoder: what tasks with an encoder share, and a task to probe one.

As a task of its own it trains nothing (`config.epochs = 0`): the evaluators of
`config.probe` look at the features of the encoder that `config.init_from` names.
Symbols: b clips, t frames, s side of a clip.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.errors import UserError
from ctp_jax.models import resnet3d
from ctp_jax.tasks import base


class Task(base.Task):
    """Parameters are {'encoder': ..., 'head': ...}; subclasses add the head."""

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        self._encoder = resnet3d.create(config.model)

    def clip_spec(self, train: bool) -> base.ClipSpec:
        clip = self.config.clip
        return base.ClipSpec(
            num_clips=1,
            num_frames=clip.num_frames,
            size=clip.size,
            strides=tuple(clip.strides),
            scales=tuple(clip.scales),
        )

    def init(
        self, rng: jax.Array, batch: base.Batch
    ) -> tuple[base.Params, base.ModelState]:
        params, model_state, _ = self.init_encoder(rng)
        return params, model_state

    def init_encoder(
        self, rng: jax.Array
    ) -> tuple[base.Params, base.ModelState, Float[Array, "1 _t _h _w c"]]:
        """Parameters and state of the encoder alone, and features of one clip."""
        size, num_frames = self.config.clip.size, self.config.clip.num_frames
        clip = jnp.zeros((1, num_frames, size, size, 3))
        variables = self._encoder.init(rng, clip, train=False)
        features = self._encoder.apply(variables, clip, train=False)
        params = {"encoder": variables["params"]}
        return params, {"batch_stats": {"encoder": variables["batch_stats"]}}, features

    def features(
        self,
        params: base.Params,
        model_state: base.ModelState,
        clips: Float[Array, "b t s s 3"],
        train: bool,
        frozen: int = 0,
    ) -> tuple[Float[Array, "b _t _h _w c"], base.ModelState]:
        """Features of normalised clips, and the state with new batch statistics.

        See `resnet3d.ResNet3D` for `train` and `frozen`.
        """
        variables = {
            "params": params["encoder"],
            "batch_stats": model_state["batch_stats"]["encoder"],
        }
        if not train:
            return self._encoder.apply(variables, clips, train=False), model_state
        features, changed = self._encoder.apply(
            variables, clips, train=True, frozen=frozen, mutable=["batch_stats"]
        )
        stats = {**model_state["batch_stats"], "encoder": changed["batch_stats"]}
        return features, {**model_state, "batch_stats": stats}

    def loss(self, params, model_state, batch, rng):
        raise UserError(
            f"config.task = {self.config.task!r} trains nothing: set config.epochs and "
            "config.steps to 0"
        )

    def encoder(
        self, params: base.Params, model_state: base.ModelState
    ) -> tuple[base.Params, Mapping[str, Any], dict[str, Any]]:
        return (
            params["encoder"],
            model_state["batch_stats"]["encoder"],
            resnet3d.architecture(self.config.model),
        )

    def check_encoder(self, architecture: Mapping[str, Any]) -> None:
        resnet3d.check_same_weights(self.config.model, architecture)

    def load_encoder(
        self,
        params: base.Params,
        model_state: base.ModelState,
        encoder_params: base.Params,
        encoder_stats: Mapping[str, Any],
    ) -> tuple[base.Params, base.ModelState]:
        stats = {**model_state["batch_stats"], "encoder": encoder_stats}
        return (
            {**params, "encoder": encoder_params},
            {**model_state, "batch_stats": stats},
        )
