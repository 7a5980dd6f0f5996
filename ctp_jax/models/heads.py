"""Prediction heads on top of an encoder's features. They compute in float32.

Symbols in shapes: b clips, n query boxes per clip, t h w positions and c channels of
the features, f frames of the clip.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ctp_jax.errors import UserError
from ctp_jax.models.layers import Conv3D
from ctp_jax.ops.roi_align import roi_align


class CtPHead(nn.Module):
    """Predicts the trajectory of each query box (paper, section 3.2).

    With `squeeze`, a convolution over all time steps makes one map of the clip; the
    region of the query box is pooled from it, and two dense layers predict the boxes of
    all frames. Without (Table 8; the paper says only that the time axis is kept, this
    is our reading): the convolution is 1x1x1, the query box pools every time step, and
    the same two dense layers predict, at each step, the boxes of the f / t frames that
    it stands for.

    Children: 'temporal' (convolution with bias), 'dense1', 'dense2'. The pooled region
    is flattened in the order row, column, channel; PyTorch's is channel, row, column.

    Attributes:
        channels: of the convolution and of the hidden layer.
        roi_size: side of the pooled grid.
        sampling_ratio: sampling points per bin and axis, see `roi_align`.
        squeeze: predict from one map of the clip.
        stride: input pixels per feature pixel.
        init_std: standard deviations of the two dense layers' initial weights.
    """

    channels: int = 512
    roi_size: int = 5
    sampling_ratio: int = 2
    squeeze: bool = True
    stride: int = 8
    init_std: tuple[float, float] = (0.001, 0.001)

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        boxes: Float[Array, "b n 4"],
        num_frames: int,
    ) -> Float[Array, "b n f 4"]:
        """Normalised box deltas (see `ctp_jax.ops.boxes`) of every frame.

        Args:
            features: of the encoder.
            boxes: x1, y1, x2, y2 in the first frame, in input pixels.
            num_frames: f.

        Raises:
            UserError: without `squeeze`, where f is not a multiple of t.
        """
        steps = features.shape[1]
        if not self.squeeze and num_frames % steps:
            raise UserError(
                f"config.head.squeeze = False: {num_frames} frames do not divide into "
                f"the {steps} time steps of the features; change config.clip.num_frames"
                " or config.model.temporal_strides"
            )
        taps = steps if self.squeeze else 1
        x = Conv3D(self.channels, (taps, 1, 1), use_bias=True, name="temporal")(
            features
        )
        x = nn.relu(x)
        # One RoI per box and remaining time step.
        per_step = jnp.repeat(boxes[:, None], x.shape[1], axis=1)
        x = roi_align(x, per_step, self.roi_size, 1 / self.stride, self.sampling_ratio)
        x = x.reshape(*x.shape[:3], -1)
        x = nn.relu(self._dense(self.channels, self.init_std[0], "dense1")(x))
        x = self._dense(num_frames // x.shape[1] * 4, self.init_std[1], "dense2")(x)
        x = x.reshape(*x.shape[:3], -1, 4)
        return jnp.moveaxis(x, 1, 2).reshape(*boxes.shape[:2], num_frames, 4)

    def _dense(self, features, std, name):
        # Full float32: deltas are in pixels, and TF32 would round them to about 0.1.
        return nn.Dense(
            features,
            kernel_init=nn.initializers.normal(std),
            precision=jax.lax.Precision.HIGHEST,
            name=name,
        )


def pooled(features: Float[Array, "b t h w c"]) -> Float[Array, "b c"]:
    """The global average of features, in float32 at least."""
    wide = jnp.promote_types(features.dtype, jnp.float32)
    return features.astype(wide).mean(axis=(1, 2, 3))


class OrderHead(nn.Module):
    """The order of clips from their features, pair by pair (Xu et al., CVPR 2019).

    Each clip's features are pooled. Those of every two clips go through the same dense
    layer and a relu. The results of all pairs are concatenated and classified. Children:
    'pair', 'classifier'.

    Attributes:
        num_classes: k, how many orders there are.
        num_clips: c, how many clips a video has.
        hidden: width of the dense layer of the pairs.
        dropout: share of the pairs' results that are dropped in training.
        init_std: standard deviation of the classifier's initial weights.
        relu: see `ctp_jax.models.base.Encoder`.
    """

    num_classes: int
    num_clips: int = 3
    hidden: int = 512
    dropout: float = 0.5
    init_std: float = 0.001
    relu: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(
        self, features: Float[Array, "bc t h w d"], train: bool
    ) -> Float[Array, "b k"]:
        """Logits; with `train`, needs a random key 'dropout'.

        Args:
            features: of all clips, those of a video one after the other.
            train: apply dropout.
        """
        x = pooled(features)
        clips = x.reshape(-1, self.num_clips, x.shape[-1])
        pairs = jnp.array(list(itertools.combinations(range(self.num_clips), 2)))
        x = clips[:, pairs].reshape(len(clips), len(pairs), -1)
        x = nn.Dense(
            self.hidden,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            precision=jax.lax.Precision.HIGHEST,
            name="pair",
        )(x)
        x = self.relu(x).reshape(len(clips), -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal(self.init_std),
            precision=jax.lax.Precision.HIGHEST,
            name="classifier",
        )(x)


class ClassifierHead(nn.Module):
    """Global average pooling, dropout, a linear layer. Child: 'classifier'.

    Attributes:
        num_classes: k.
        dropout: share of the pooled features that are dropped in training.
        init_std: standard deviation of the initial weights.
        num_clips: clips of a video, one after the other, whose pooled features are
            concatenated.
    """

    num_classes: int
    dropout: float = 0.5
    init_std: float = 0.001
    num_clips: int = 1

    @nn.compact
    def __call__(
        self, features: Float[Array, "bc t h w d"], train: bool
    ) -> Float[Array, "b k"]:
        """Logits; with `train`, needs a random key 'dropout'."""
        x = pooled(features)
        x = x.reshape(-1, self.num_clips * x.shape[-1])
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal(self.init_std),
            precision=jax.lax.Precision.HIGHEST,
            name="classifier",
        )(x)


class ProjectionHead(nn.Module):
    """Global average pooling, a dense layer, a relu, a dense layer: embeddings (MoCo v2).

    Initialised as PyTorch's linear layers: weights and biases are U(+-1/sqrt(inputs)).
    Children: 'hidden', 'embedding'.

    Attributes:
        dim: numbers in an embedding.
        hidden: width of the hidden layer; 0: as many as the features have channels.
    """

    dim: int = 128
    hidden: int = 0

    @nn.compact
    def __call__(
        self, features: Float[Array, "b t h w c"], train: bool
    ) -> Float[Array, "b d"]:
        """Embeddings of any length."""
        x = pooled(features)
        x = nn.relu(_torch_dense(self.hidden or x.shape[-1], x, "hidden"))
        return _torch_dense(self.dim, x, "embedding")


def _torch_dense(outputs: int, x: Float[Array, "b n"], name: str) -> Array:
    """A dense layer that starts as PyTorch's `Linear`."""
    bound = x.shape[-1] ** -0.5

    def uniform(rng, shape, dtype=jnp.float32):
        return jax.random.uniform(rng, shape, dtype, -bound, bound)

    return nn.Dense(
        outputs,
        kernel_init=uniform,
        bias_init=uniform,
        precision=jax.lax.Precision.HIGHEST,
        name=name,
    )(x)
