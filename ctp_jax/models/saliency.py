"""What in a clip speaks for a class: Grad-CAM, guided backpropagation, their product.

Grad-CAM (Selvaraju et al., ICCV 2017) weights the channels of the last features with the
mean slopes of a class's logit; the sum, rectified, says where the evidence is, in the
coarse grid of the features. Guided backpropagation (Springenberg et al., ICLR Workshop
2015) says which pixels it is, whatever the class. Their product, guided Grad-CAM, is what
Fig. 5 and 8 of the CtP paper show.

Symbols in shapes: b clips, v rows of logits (one per clip, or one per few clips), t h w of
the clips, t_out h_out w_out and c channels of the features, k classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

Relu = Callable[[Array], Array]


class Saliency(NamedTuple):
    """What speaks for one class per row of logits.

    Attributes:
        logits: of the network.
        classes: the class that is explained.
        coarse: Grad-CAM at the resolution of the features, at least 0.
        grad_cam: the same, interpolated to that of the clip.
        guided: guided backpropagation: slopes of the logit by the pixels of the clip.
        guided_grad_cam: the product of the two.
    """

    logits: Float[Array, "v k"]
    classes: Int[Array, " v"]
    coarse: Float[Array, "b t_out h_out w_out"]
    grad_cam: Float[Array, "b t h w"]
    guided: Float[Array, "b t h w 3"]
    guided_grad_cam: Float[Array, "b t h w 3"]


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    """A relu whose gradient passes where both it and x are positive."""
    return nn.relu(x)


def _forward(x):
    return nn.relu(x), x > 0


def _backward(positive, slopes):
    return (jnp.where(positive, nn.relu(slopes), 0),)


guided_relu.defvjp(_forward, _backward)


def grad_cam(
    features: Float[Array, "b t_out h_out w_out c"],
    slopes: Float[Array, "b t_out h_out w_out c"],
) -> Float[Array, "b t_out h_out w_out"]:
    """relu(sum over c of mean slope times feature), the mean over place and time."""
    weights = slopes.mean((1, 2, 3), keepdims=True)
    return nn.relu((weights * features).sum(-1))


def upsample(
    maps: Float[Array, "b t_out h_out w_out"], size: tuple[int, ...]
) -> Float[Array, "b t h w"]:
    """Interpolates maps trilinearly to (t, h, w); voxels are centred at halves."""
    return jax.image.resize(maps, (len(maps), *size), "trilinear", antialias=False)


def explain(
    encode: Callable[[Array, Relu], Array],
    classify: Callable[[Array, Relu], Array],
    clips: Float[Array, "b t h w 3"],
    classes: Int[Array, " v"],
) -> Saliency:
    """What in the clips speaks for a class, with one pass forward and one backward.

    Args:
        encode: (clips, relu) -> features (b, t_out, h_out, w_out, c), with the relu as
            every relu of the network, in evaluation: no row may depend on another.
        classify: (features, relu) -> logits (v, k), likewise.
        clips: as the network sees them.
        classes: int (v,), which class to explain; -1 for the one that is predicted.
    """
    features, to_clips = jax.vjp(lambda x: encode(x, guided_relu), clips)
    logits, to_features = jax.vjp(lambda x: classify(x, nn.relu), features)
    _, to_features_guided = jax.vjp(lambda x: classify(x, guided_relu), features)
    classes = jnp.where(classes < 0, logits.argmax(-1), classes)
    # Of the sum over the rows: each clip is in one of them only.
    chosen = jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    (slopes,) = to_features(chosen)
    (guided_slopes,) = to_features_guided(chosen)
    (guided,) = to_clips(guided_slopes)
    precise = jnp.promote_types(features.dtype, jnp.float32)  # bfloat16 on accelerators
    coarse = grad_cam(features.astype(precise), slopes.astype(precise))
    fine = upsample(coarse, clips.shape[1:4])
    return Saliency(logits, classes, coarse, fine, guided, fine[..., None] * guided)
