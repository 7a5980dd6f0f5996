"""OpenCV's trackers: they follow a box through a video. The only door to OpenCV.

`ctp_jax.flow` goes through it, too.

`kcf` is the teacher of the paper's Table 1 (Henriques et al. 2015): a box of constant
size, in steps of whole pixels. `csrt` (Lukezic et al. 2017) and `median_flow` (Kalal et
al. 2010) adapt the size; docs/data.md compares the three.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ctp_jax.errors import UserError

TRACKERS = ("kcf", "csrt", "median_flow")
"""Those of OpenCV that need no model files and follow a moving square at all."""

SMALLEST = 4
"""Pixels of a box's shorter side, inside the image; below it, there is nothing to see."""

_REMEDY = (
    "pip uninstall opencv-python-headless opencv-python, then "
    "pip install 'opencv-contrib-python-headless>=4.10'"
)


def require(tracker: str) -> Any:
    """OpenCV, which has this tracker.

    Raises:
        UserError: no such tracker, no OpenCV, or one without its contributed modules.
    """
    if tracker not in TRACKERS:
        raise UserError(f"tracker {tracker!r}: needs one of {', '.join(TRACKERS)}")
    return load_opencv(f"tracker {tracker!r}", "TrackerKCF", "legacy")


def load_opencv(wanted: str, *names: str) -> Any:
    """OpenCV with one thread.

    Args:
        wanted: what for, for the messages.
        *names: that it must have, of its contributed modules.

    Raises:
        UserError: no OpenCV, or one without its contributed modules.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"{wanted}: needs OpenCV ({error}): "
            'pip install -e ".[tracking]", without opencv-python beside it'
        ) from error
    if not all(hasattr(cv2, name) for name in names):
        raise UserError(
            f"{wanted}: OpenCV {cv2.__version__} is installed without its "
            f"contributed modules: {_REMEDY}"
        )
    # Images are small: threads cost more than they give, and there is a process per core.
    cv2.setNumThreads(1)
    return cv2


def follow(
    frames: Iterable[np.ndarray],
    box: np.ndarray,
    tracker: str = "kcf",
    *,
    comes_back: bool = False,
) -> tuple[Float[np.ndarray, "t 4"], Bool[np.ndarray, " t"]]:
    """Follows a box through a video.

    Trackers want boxes inside the image, some of them of whole pixels. So they are given
    the visible part of the box, rounded; what that leaves out is put back into every box
    that they return. The first box is the given one exactly, and no rounding adds up.

    Args:
        frames: uint8 RGB (h, w, 3), all of one size; read one after the other.
        box: x1 y1 x2 y2 in the first frame, in continuous pixels; may be partly outside.
        tracker: one of `TRACKERS`.
        comes_back: whether a lost object may be found again. If not, it stays lost: where
            a tracker finds something again, it is often something else.

    Returns:
        boxes: float64 (t, 4), x1 y1 x2 y2; where the object is lost, the last known box.
        ok: bool (t,), whether the box is known. All False if less than `SMALLEST` pixels
            of the first box are in the image, or the tracker cannot start from it.

    Raises:
        UserError: see `require`.
        ValueError: no frames, or a box that is not finite.
    """
    cv2 = require(tracker)
    box = np.asarray(box, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"box {box}: needs four finite numbers")
    images = iter(frames)
    first = next(images, None)
    if first is None:
        raise ValueError("no frames")
    followed = _Followed(cv2, tracker, first, box)
    boxes, ok = [box], [followed.alive]
    for image in images:
        found = None
        if ok[-1] or comes_back:
            found = followed.update(image)
        boxes.append(boxes[-1] if found is None else found)
        ok.append(found is not None)
    return np.stack(boxes), np.array(ok)


class _Followed:
    """A tracker that has seen its first frame. `alive` is False if it saw no object."""

    def __init__(self, cv2: Any, tracker: str, first: np.ndarray, box: np.ndarray):
        self._cv2, self._fixed_size = cv2, tracker == "kcf"
        self._size = np.array(first.shape[1::-1])
        low = np.round(np.clip(box[:2], 0, self._size)).astype(int)
        high = np.round(np.clip(box[2:], 0, self._size)).astype(int)
        self.alive = bool((high - low >= SMALLEST).all())
        if not self.alive:
            return
        self._shape = high - low
        # What the tracker is not told: centre and size of the box relative to its own.
        self._offset = (box[:2] + box[2:] - low - high) / 2 / self._shape
        self._scale = (box[2:] - box[:2]) / self._shape
        self._tracker = {
            "kcf": cv2.TrackerKCF,
            "csrt": cv2.TrackerCSRT,
            "median_flow": cv2.legacy.TrackerMedianFlow,
        }[tracker].create()
        image = cv2.cvtColor(first, cv2.COLOR_RGB2BGR)
        try:
            self._tracker.init(image, tuple(map(int, (*low, *self._shape))))
            if tracker == "kcf":
                # Its `init` looks at no pixels: it learns from the first update.
                self._tracker.update(image)
        except cv2.error:  # CSRT, of some boxes that are much wider than high
            self.alive = False

    def update(self, image: np.ndarray) -> np.ndarray | None:
        """The box in the next frame, or None if the object is lost."""
        if not self.alive:
            return None
        try:
            found, (x, y, *shape) = self._tracker.update(
                self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR)
            )
        except self._cv2.error:  # of boxes that have shrunk to nothing
            return None
        low, shape = np.array([x, y], np.float64), np.array(shape, np.float64)
        if not found or not np.isfinite((*low, *shape)).all() or (shape <= 0).any():
            return None
        if self._fixed_size:
            # At the border, it returns the visible part.
            low = np.where(low <= 0, low + shape - self._shape, low)
            shape = self._shape
        visible = np.minimum(low + shape, self._size) - np.maximum(low, 0)
        if (visible < SMALLEST).any():
            return None
        centre = low + shape / 2 + self._offset * shape
        sides = self._scale * shape
        return np.concatenate([centre - sides / 2, centre + sides / 2])
