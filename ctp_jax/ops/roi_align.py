"""RoIAlign (Mask R-CNN, He et al. 2017) as two matrix products."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctp_jax.ops.resample import hat_weights


def _axis_weights(
    low: Float[Array, "*b"],
    high: Float[Array, "*b"],
    output_size: int,
    sampling_ratio: int,
    size: int,
) -> Float[Array, "*b out size"]:
    """Weights of the pixels in each bin along one axis: means over its points."""
    points = output_size * sampling_ratio
    steps = (jnp.arange(points, dtype=jnp.float32) + 0.5) / points
    coordinates = low[..., None] + (high - low)[..., None] * steps
    inside = (coordinates >= -1.0) & (coordinates <= size)
    weights = hat_weights(jnp.clip(coordinates, 0.0, size - 1.0), size)
    weights = jnp.where(inside[..., None], weights, 0.0)
    return weights.reshape(*weights.shape[:-2], output_size, sampling_ratio, size).mean(
        -2
    )


def roi_align(
    features: Float[Array, "*b h w c"],
    boxes: Float[Array, "*b n 4"],
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int = 2,
) -> Float[Array, "*b n out out c"]:
    """Pools the features under each box to a fixed grid, bilinearly.

    The convention of `torchvision.ops.roi_align(aligned=True)` and mmcv: the box is
    shifted by half a feature pixel; each of output_size^2 bins averages
    sampling_ratio^2 points; points outside [-1, size] give 0, others are clamped to
    [0, size - 1]. The weights of a bin factorise over the axes, so no gather is needed.

    Args:
        features: feature maps.
        boxes: x1, y1, x2, y2 in input pixels.
        output_size: bins along each axis.
        spatial_scale: feature pixels per input pixel, 1 / stride.
        sampling_ratio: sampling points along each axis of a bin.

    Returns:
        float32 features per box.

    Example: features that count columns, read under a box of 32 x 32 pixels at stride 8.

    >>> columns = jnp.broadcast_to(jnp.arange(8.0)[:, None], (8, 8, 1))
    >>> box = jnp.array([[16.0, 16.0, 48.0, 48.0]])
    >>> print(roi_align(columns, box, 2, spatial_scale=1 / 8)[0, :, :, 0])
    [[2.5 4.5]
     [2.5 4.5]]
    """
    height, width = features.shape[-3:-1]
    x1, y1, x2, y2 = jnp.moveaxis(boxes * spatial_scale - 0.5, -1, 0)
    rows = _axis_weights(y1, y2, output_size, sampling_ratio, height)
    columns = _axis_weights(x1, x2, output_size, sampling_ratio, width)
    return jnp.einsum(
        "...nyh,...nxw,...hwc->...nyxc",
        rows,
        columns,
        features.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
        optimize="optimal",
    )
