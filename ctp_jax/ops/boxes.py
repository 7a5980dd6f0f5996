"""Boxes and their regression.

`xyxy` is x1, y1, x2, y2 in continuous pixel coordinates; `cxcywh` is centre, width,
height. A *trajectory* is the boxes of one patch over time, (..., t, 4). Everything is
float32, except areas and overlaps of NumPy arrays, which keep the arrays' precision.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = TypeVar("AnyArray", Array, np.ndarray)
"""A function of these returns what it is given: NumPy arrays for NumPy arrays."""


def xyxy_to_cxcywh(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """Centre and size, sizes at least one pixel so that their logarithm exists.

    >>> xyxy_to_cxcywh(jnp.array([10.0, 20.0, 30.0, 60.0])).tolist()
    [20.0, 40.0, 20.0, 40.0]
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, jnp.maximum(high - low, 1.0)], axis=-1)


def cxcywh_to_xyxy(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """Corners of boxes given by centre and size.

    >>> cxcywh_to_xyxy(jnp.array([20.0, 40.0, 20.0, 40.0])).tolist()
    [10.0, 20.0, 30.0, 60.0]
    """
    centre, size = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def encode_trajectory_xyxy(
    trajectory: Float[Array, "*b t 4"],
    query: Float[Array, "*b 4"],
    scale: Sequence[float],
) -> Float[Array, "*b t 4"]:
    """Regression targets of a trajectory relative to its first box (section 3.2).

    Args:
        trajectory: boxes over time, xyxy.
        query: the box in the first frame, xyxy.
        scale: four divisors, sigma in the paper.

    Returns:
        (dx, dy, log(w / w1), log(h / h1)) / scale.

    Example: a box of 16 x 16 pixels that moves 4 to the right and 2 down.

    >>> query = jnp.array([0.0, 0.0, 16.0, 16.0])
    >>> moved = query + jnp.array([4.0, 2.0, 4.0, 2.0])
    >>> scale = (0.5, 0.5, 0.04, 0.04)
    >>> encode_trajectory_xyxy(jnp.stack([query, moved]), query, scale).tolist()
    [[0.0, 0.0, 0.0, 0.0], [8.0, 4.0, 0.0, 0.0]]
    """
    boxes = xyxy_to_cxcywh(trajectory)
    first = xyxy_to_cxcywh(query)[..., None, :]
    deltas = jnp.concatenate(
        [
            boxes[..., :2] - first[..., :2],
            jnp.log(boxes[..., 2:]) - jnp.log(first[..., 2:]),
        ],
        axis=-1,
    )
    return deltas / jnp.asarray(scale, jnp.float32)


def decode_trajectory_xyxy(
    deltas: Float[Array, "*b t 4"],
    query: Float[Array, "*b 4"],
    scale: Sequence[float],
) -> Float[Array, "*b t 4"]:
    """The inverse of `encode_trajectory_xyxy`: predicted boxes, xyxy.

    >>> query = jnp.array([0.0, 0.0, 16.0, 16.0])
    >>> deltas = jnp.array([[0.0, 0.0, 0.0, 0.0], [8.0, 4.0, 0.0, 0.0]])
    >>> decode_trajectory_xyxy(deltas, query, (0.5, 0.5, 0.04, 0.04)).tolist()
    [[0.0, 0.0, 16.0, 16.0], [4.0, 2.0, 20.0, 18.0]]
    """
    first = xyxy_to_cxcywh(query)[..., None, :]
    deltas = deltas * jnp.asarray(scale, jnp.float32)
    boxes = jnp.concatenate(
        [
            first[..., :2] + deltas[..., :2],
            first[..., 2:] * jnp.exp(deltas[..., 2:]),
        ],
        axis=-1,
    )
    return cxcywh_to_xyxy(boxes)


def cut_to_frame(
    boxes: Float[Array, "*b 4"], size: float, min_side: float = 4.0
) -> Float[Array, "*b 4"]:
    """The part of boxes that lies in a frame, at least `min_side` of it per axis.

    Args:
        boxes: xyxy.
        size: side of the frame in pixels.
        min_side: pixels; of boxes that are smaller or outside.

    >>> cut_to_frame(jnp.array([-5.0, 2.0, 3.0, 3.0]), 10).tolist()
    [0.0, 2.0, 4.0, 6.0]
    >>> cut_to_frame(jnp.array([12.0, 9.0, 15.0, 30.0]), 10).tolist()
    [6.0, 6.0, 10.0, 10.0]
    """
    low = jnp.clip(boxes[..., :2], 0.0, size - min_side)
    high = jnp.clip(boxes[..., 2:], low + min_side, size)
    return jnp.concatenate([low, high], axis=-1)


def keep_in_sight(boxes: Float[Array, "*b 4"], size: float) -> Float[Array, "*b 4"]:
    """Boxes that are outside a frame, moved until a pixel of them is inside.

    Args:
        boxes: xyxy. What is farther away than the frame is large is left out of them.
        size: side of the frame in pixels.

    >>> keep_in_sight(jnp.array([-5.0, 2.0, -3.0, 3.0]), 10).tolist()
    [-1.0, 2.0, 1.0, 3.0]
    """
    boxes = jnp.clip(boxes, -size, 2 * size)
    low, high = boxes[..., :2], boxes[..., 2:]
    shift = jnp.maximum(1 - high, 0) + jnp.minimum(size - 1 - low, 0)
    return boxes + jnp.concatenate([shift, shift], axis=-1)


def area_xyxy(boxes: Float[AnyArray, "*b 4"]) -> Float[AnyArray, "*b"]:
    """Areas; 0 for boxes with x2 < x1 or y2 < y1.

    >>> area_xyxy(jnp.array([[0.0, 0.0, 4.0, 3.0], [4.0, 3.0, 0.0, 0.0]])).tolist()
    [12.0, 0.0]
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes.__array_namespace__().prod(sides.clip(min=0), axis=-1)


def iou_xyxy(
    a: Float[AnyArray, "*#b 4"], b: Float[AnyArray, "*#b 4"]
) -> Float[AnyArray, "*#b"]:
    """Intersection over union of pairs of boxes; 0 where both are empty.

    >>> a = jnp.array([0.0, 0.0, 4.0, 4.0])
    >>> iou_xyxy(a, jnp.array([2.0, 0.0, 4.0, 4.0])).item()  # the right half of it
    0.5
    """
    xp = a.__array_namespace__()
    overlap = xp.concatenate(
        [xp.maximum(a[..., :2], b[..., :2]), xp.minimum(a[..., 2:], b[..., 2:])],
        axis=-1,
    )
    intersection = area_xyxy(overlap)
    union = area_xyxy(a) + area_xyxy(b) - intersection
    return intersection / union.clip(min=1e-9)


def share_inside(
    maps: Float[np.ndarray, "t h w"], boxes: Float[np.ndarray, "n t 4"]
) -> float:
    """Share of the sum of a map that lies inside boxes: of pixels with their centre there.

    >>> maps, boxes = np.zeros((1, 2, 4)), np.array([[[1.0, 0.0, 3.0, 1.0]]])
    >>> maps[0, 0] = 1.0, 1.0, 1.0, 3.0
    >>> round(share_inside(maps, boxes), 3)
    0.333

    Args:
        maps: at least 0.
        boxes: xyxy over time, NaN where there is none.

    Returns:
        From 0 to 1, over the frames with a box; NaN if they have none, or sum to 0.
    """
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)[..., None, None]
    y, x = np.ogrid[: maps.shape[1], : maps.shape[2]]
    inside = (x1 <= x + 0.5) & (x + 0.5 < x2) & (y1 <= y + 0.5) & (y + 0.5 < y2)
    inside = inside.any(0)
    maps = maps * ~np.isnan(boxes[..., :1, None]).all(0)
    total = maps.sum(dtype=np.float64)
    return float(maps[inside].sum(dtype=np.float64) / total) if total > 0 else np.nan
