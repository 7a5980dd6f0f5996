"""Features of a task's encoder, for evaluators of nearest neighbours.

The protocol is the paper's (appendix): ten evenly spread clips per video, the last
feature map pooled to 2x3x3, averaged over the clips, cosine similarity. It follows that
of VCOP (Xu et al. 2019); docs/fidelity.md says where VCOP's code differs.

Symbols: b videos, c clips per video, t frames, s side of the clip, d numbers in a
feature vector.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import models
from ctp_jax.config import check_scales
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.models.base import apply
from ctp_jax.ops import colour
from ctp_jax.tasks import base, render


class Probe(base.Task):
    """Computes features with the encoder of another task.

    It has no parameters of its own: `predict` takes those of the other task. See
    `configs/common.py:probe` for its options.
    """

    def __init__(self, config: ConfigDict, task: base.Task):
        super().__init__(config)
        check_scales(config, "probe.scales")
        self._task = task
        model = ConfigDict(config.model)
        model.spatial_strides = tuple(config.probe.spatial_strides)
        self._network = models.create(model)

    def see_data(self, train: Any, held_out: Any) -> None:
        for split in (train, held_out):
            if not len(split.class_names) or (split.label < 0).any():
                raise UserError(
                    f"{split.name}: videos of split {split.split!r} have no labels, "
                    "which nearest neighbours need"
                )

    def clip_spec(self, train: bool) -> ClipSpec:
        probe = self.config.probe
        return ClipSpec(
            num_clips=probe.num_clips,
            num_frames=self.config.clip.num_frames,
            size=self.config.clip.size,
            strides=(probe.stride,),
            sampling="uniform",
            scales=tuple(probe.scales),
            crop="center",
        )

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The clips without whatever the other task adds to them."""
        return render.crop_clips(batch, self.config.clip.size)

    def predict(self, variables: base.Variables, batch: Batch) -> dict[str, jax.Array]:
        """`features` (b, d), float32: d is 2*3*3*512 for R3D-18."""
        weights, stats, _ = self._task.encoder(variables)
        encoder_variables = {"params": weights, "batch_stats": stats}

        def describe(part):
            clips = colour.normalize(self.draw(part)[:, 0])
            features = apply(self._network, encoder_variables, clips, train=False)
            return adaptive_pool(
                features, tuple(self.config.probe.pool), self.config.probe.pooling
            )

        features = render.map_clips(describe, batch).mean(axis=1)
        return {"features": features.reshape(len(features), -1)}


def adaptive_pool(
    features: Float[Array, "b t h w c"],
    sizes: tuple[int, int, int],
    pooling: str = "average",
) -> Float[Array, "b _t _h _w c"]:
    """The average or the maximum of `sizes` bins per axis, float32.

    Bin i of n on an axis of length m covers floor(i m / n) to ceil((i + 1) m / n), as in
    PyTorch's adaptive pooling; bins overlap where n does not divide m.
    """
    x = features.astype(jnp.float32)
    reduce = {"average": jnp.mean, "max": jnp.max}[pooling]
    for axis, bins in zip((1, 2, 3), sizes, strict=True):
        length = x.shape[axis]
        edges = [
            (i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)
        ]
        parts = [
            reduce(jax.lax.slice_in_dim(x, start, stop, axis=axis), axis)
            for start, stop in edges
        ]
        x = jnp.stack(parts, axis=axis)
    return x
