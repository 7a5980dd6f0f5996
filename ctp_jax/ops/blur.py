"""Gaussian blur, float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gaussian(
    clip: Float[Array, "*b t h w 3"], sigma: Float[Array, "*b"]
) -> Float[Array, "*b t h w 3"]:
    """Blurs every frame of a clip; with sigma 0, nothing changes.

    Weights are normalised over the pixels inside the frame.

    Args:
        clip: of any values.
        sigma: standard deviation in pixels.

    >>> dot = jnp.zeros((1, 1, 3, 3)).at[:, :, 1].set(100.0)  # a frame of 1 x 3 pixels
    >>> print(gaussian(dot, jnp.array(1.0))[0, 0, :, 0].round(2))
    [34.82 45.19 34.82]
    """
    for axis in (-3, -2):
        # Products with a matrix of weights: the sigmas differ, so a kernel has no size.
        pixels = jnp.arange(clip.shape[axis], dtype=jnp.float32)
        apart = (pixels[:, None] - pixels) / jnp.maximum(sigma, 1e-3)[..., None, None]
        weights = jnp.exp(-0.5 * apart**2)
        weights = weights / weights.sum(axis=-1, keepdims=True)
        spelled = "...ij,...tjwk->...tiwk" if axis == -3 else "...ij,...thjk->...thik"
        clip = jnp.einsum(spelled, weights, clip, precision=jax.lax.Precision.HIGHEST)
    return clip
