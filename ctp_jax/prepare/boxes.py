"""Fits boxes to the frames of their video.

What comes out has a value per frame and object: `boxes` (k, n, 4), x1 y1 x2 y2 in
continuous pixels of the frame, from 0; `visibility` (k, n) in [0, 1], 0 where an object
is absent or its box cannot be used (the box is then the last known one, or zeros). Boxes
that reach over the border stay as they are: cut ones would shrink and stop where the
object goes on moving. GOT-10k's measures bind both boxes to the image themselves.
`causes` (k, n) are not stored but counted: numbers in `CAUSES`.

Imports no TensorFlow, see `ctp_jax.prepare.video`.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath

from ctp_jax.prepare import box_files
from ctp_jax.prepare.presentation import VideoError
from ctp_jax.storage import remote

Annotate = Callable[[int, tuple[int, int]], Mapping[str, np.ndarray]]
"""Function of the number of frames of a video and of their width and height as they are
shown. It returns {name: float32 (k, ...)}, `boxes` in these pixels."""

FORMATS = ("xywh", "xyxy")
ABSENCE, COVER, CUT = "absence.label", "cover.label", "cut_by_image.label"
MISTAKEN = "leave the frame, and would not as x1,y1,x2,y2"
CAUSES = (
    "",
    "are no numbers, or far away",
    "are no more than a pixel wide or high",
    "are outside the frame",
    MISTAKEN,
)
"""What is odd about a box. But for the last, its object is not visible there."""
_FAR = 1e6  # pixels; what is farther away is no box


@dataclasses.dataclass(frozen=True)
class File:
    """The boxes of one video in a file; an `Annotate`.

    A dataclass of plain values: its `repr` is part of the fingerprint of the data set.

    Attributes:
        path: see `box_files.read_rows`. GOT-10k's `absence.label` and `cover.label` beside
            it count: an object is as visible as its cover in eighths, unless it is absent.
        cut: also give `cut` (k, n), GOT-10k's `cut_by_image.label`: 1 where the border of
            the image cuts the object; 0 without the file.
        objects: n; the objects that appear after the first n are left out.
        first_pixel: coordinate of the left upper corner of the frame; -1: 0 for 'csv',
            else 1.
        first_frame: number of the first frame; likewise.
        box_format: one of `FORMATS`; empty: xywh, if that is plausible.
    """

    path: str
    objects: int = 1
    first_pixel: int = -1
    first_frame: int = -1
    box_format: str = ""
    cut: bool = False

    def __call__(self, count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """The annotations; raises `VideoError` for a file that does not fit the video."""
        rows, name = box_files.read_rows(self.path), os.path.basename(self.path)
        own = 0 if rows.kind == "csv" else 1
        frames = rows.frames
        if rows.kind != "bare":
            first = own if self.first_frame < 0 else self.first_frame
            frames = frames - first
            outside = rows.frames[(frames < 0) | (frames >= count)]
            if len(outside):
                shifted = " (--first_frame)" * bool(rows.frames.min() != first)
                raise VideoError(
                    f"{name}: a box in frame {outside[-1]}, but the {count} frames are "
                    f"numbered from {first}{shifted}"
                )
        elif len(frames) != count:
            raise VideoError(f"{name}: {len(frames)} boxes for {count} frames")
        corners = rows.boxes - (own if self.first_pixel < 0 else self.first_pixel)
        mistaken = np.zeros(len(corners), bool)
        if self.box_format != "xyxy" and not rows.corners:
            # `settle` leaves out what is not finite.
            with np.errstate(invalid="ignore", over="ignore"):
                corners[:, 2:] = corners[:, :2] + rows.boxes[:, 2:]
            mistaken = would_fit_as_corners(rows.boxes, size)
            known = np.isfinite(rows.boxes).all(axis=-1).sum()
            if not self.box_format and 2 * mistaken.sum() > known:
                raise VideoError(
                    f"{name}: {mistaken.sum()} of {known} boxes x,y,w,h leave the frame "
                    f"of {size[0]}x{size[1]}, and x1,y1,x2,y2 would not: pass "
                    "--box_format=xyxy, or xywh if they are right"
                )
        kept = rows.objects < self.objects
        place = frames[kept], rows.objects[kept]
        boxes = np.zeros((count, self.objects, 4))
        visibility = np.zeros((count, self.objects))
        boxes[place], visibility[place] = corners[kept], rows.visibility[kept]
        labels = functools.partial(_labels, os.path.dirname(self.path), count)
        cover = np.clip(labels(COVER, 8) / 8, 0, 1) * (labels(ABSENCE, 0) != 1)
        found = settle(boxes, visibility * cover[:, None], size)
        odd = np.zeros_like(found["causes"])
        odd[place] = mistaken[kept] * CAUSES.index(MISTAKEN)
        found["causes"] = np.where(found["visibility"] > 0, odd, found["causes"])
        if self.cut:
            cut = (labels(CUT, 0) == 1).astype(np.float32)
            found["cut"] = np.tile(cut[:, None], self.objects)
        if not found["visibility"].any():
            raise VideoError(
                f"{name}: none of its {len(frames)} boxes is visible, inside the frame of "
                f"{size[0]}x{size[1]} and larger than a pixel"
            )
        return found


def settle(
    boxes: np.ndarray, visibility: np.ndarray, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Makes annotations of boxes, some of which cannot be used.

    Those that are not finite, wholly outside, or no more than a pixel wide or high have
    visibility 0.

    Args:
        boxes: float (k, n, 4), x1 y1 x2 y2 in pixels from 0.
        visibility: float (k, n).
        size: width and height of the frames.

    Returns:
        float32 `boxes` (k, n, 4) and `visibility` (k, n), and int `causes` (k, n), see the
        top of this file.
    """
    known = np.all(np.abs(boxes) < _FAR, axis=-1)
    x1, y1, x2, y2 = np.moveaxis(np.where(known[..., None], boxes, 0), -1, 0)
    large = (x2 - x1 > 1) & (y2 - y1 > 1)
    inside = (x2 > 0) & (y2 > 0) & (x1 < size[0]) & (y1 < size[1])
    causes = np.select([visibility <= 0, ~known, ~large, ~inside], [0, 1, 2, 3], 0)
    visible = (visibility > 0) & (causes == 0)
    last = np.where(visible, np.arange(len(boxes))[:, None], -1)
    last = np.maximum.accumulate(last, axis=0)[..., None]
    held = np.take_along_axis(boxes, np.maximum(last, 0), axis=0)
    return {
        "boxes": np.where(last >= 0, held, 0).astype(np.float32),
        "visibility": np.where(visible, visibility, 0).astype(np.float32),
        "causes": causes,
    }


def annotations(
    annotate: Annotate | None,
    count: int,
    size: tuple[int, int],
    scaled: tuple[int, int],
) -> dict[str, np.ndarray]:
    """The annotations of a video of `count` frames, scaled from `size` to `scaled`.

    Raises:
        VideoError: another number of values than frames, or what `annotate` raises.
    """
    found = dict(annotate(count, size)) if annotate else {}
    for name, values in found.items():
        if len(values) != count:
            raise VideoError(f"{len(values)} {name} for {count} frames")
    if "boxes" in found:
        boxes = found["boxes"] * np.tile(np.divide(scaled, size), 2)
        found["boxes"] = boxes.astype(np.float32)
    return found


def would_fit_as_corners(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which boxes leave a frame as x,y,w,h, but would not as x1,y1,x2,y2.

    Args:
        boxes: float (m, 4), pixels from 0 or 1.
        size: width and height of the frame.

    Returns:
        bool (m,).
    """
    boxes = np.where(np.abs(boxes) < _FAR, boxes, np.nan)
    leaves = (boxes[:, :2] + boxes[:, 2:] > np.multiply(size, 1.1)).any(axis=-1)
    fits = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= np.add(size, 1))
    fits &= boxes[:, :2] >= -1
    return np.logical_and(leaves, fits.all(axis=-1))


def _labels(folder: str, count: int, file: str, usual: float) -> np.ndarray:
    """GOT-10k's labels (k,) in a file of a folder; `usual` without it."""
    path = os.path.join(folder, file)
    if not epath.Path(path).exists():
        return np.full(count, usual)
    cells = box_files.read_text(path).split()
    if len(cells) != count:
        raise VideoError(f"{file}: {len(cells)} values for {count} frames")
    return np.array([box_files.number(file, "a value", cell) for cell in cells])


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a file of boxes and the labels beside it are like.

    Attributes:
        digest: of their contents.
        lines: of the file that are not blank.
        labels: whether the files are there that say what is visible.
    """

    digest: str
    lines: int
    labels: bool


def survey(files: Mapping[str, File]) -> dict[str, Survey]:
    """Looks at the files of boxes of all videos, by name."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # may lie on a slow network
        return dict(zip(files, pool.map(_survey, files.values()), strict=True))


def _survey(file: File) -> Survey:
    found, folder = [], os.path.dirname(file.path)
    labels = (ABSENCE, COVER, *((CUT,) if file.cut else ()))
    for path in (file.path, *(os.path.join(folder, name) for name in labels)):
        try:
            with remote.opened(path, box_files.MAX_BYTES) as opened:
                found.append(opened.read())
        except OSError:
            found.append(b"")
    whole = b"".join(hashlib.sha256(data).digest() for data in found)
    lines = sum(bool(line.strip()) for line in found[0].splitlines())
    return Survey(hashlib.sha256(whole).hexdigest(), lines, all(found[:3]))


def digest(seen: Mapping[str, Survey]) -> str:
    """A digest of the contents of all files of boxes, by the names of their videos."""
    text = repr(sorted((name, each.digest) for name, each in seen.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
