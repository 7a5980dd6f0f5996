"""Optical flow by OpenCV, and how it is stored as pictures.

A flow frame is a uint8 image: red is the motion to the right and green the motion down, in
pixels to the next frame, clipped to +-`bound` and in steps of bound / `STEPS`. `ZERO` is no
motion, exactly; blue is `ZERO` everywhere. Symbols: k frames, h w pixels.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ctp_jax import trackers

METHODS = ("tvl1", "dis")
"""TV-L1 (Zach et al. 2007; CoCLR's, of OpenCV's contributed modules), and DIS (Kroeger et
al. 2016), about a hundred times faster."""

ZERO, STEPS = 128, 127


def require(method: str) -> Any:
    """OpenCV, which has this method. Raises `UserError` where there is none that has it."""
    contributed = {"tvl1": ["optflow"], "dis": []}
    return trackers.load_opencv(f"flow {method!r}", *contributed[method])


def compute(
    frames: UInt8[np.ndarray, "k h w 3"], method: str
) -> Iterator[Float[np.ndarray, "h w 2"]]:
    """The motion from each frame to the next: float32, x before y, in pixels.

    The last frame has no next one: it has the motion of the one before it, so that frame
    and flow have the same numbers. In a video of one frame, nothing moves.

    Args:
        frames: RGB; the grey levels decide.
        method: one of `METHODS`.

    Raises:
        UserError: see `require`.
    """
    cv2 = require(method)
    if method == "tvl1":
        estimator = cv2.optflow.DualTVL1OpticalFlow_create()
    else:
        estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    found = np.zeros((*grey[0].shape, 2), np.float32)
    for now, following in itertools.pairwise(grey):
        found = estimator.calc(now, following, None)
        yield found
    yield found


def to_image(
    motion: Float[np.ndarray, "h w 2"], bound: float
) -> UInt8[np.ndarray, "h w 3"]:
    """A flow frame. `bound` in pixels."""
    levels = np.rint(np.clip(motion / bound, -1, 1) * STEPS) + ZERO
    return np.pad(levels, ((0, 0), (0, 0), (0, 1)), constant_values=ZERO).astype(
        np.uint8
    )


def from_image(
    image: UInt8[np.ndarray, "*k h w 3"], bound: float
) -> Float[np.ndarray, "*k h w 2"]:
    """The motion of a flow frame, pixels."""
    return (image[..., :2].astype(np.float64) - ZERO) * bound / STEPS
