"""Fits boxes to the frames of their video.

What comes out has a value per frame and object: `boxes` (k, n, 4), x1 y1 x2 y2 in
continuous pixels of the frame, from 0; `visibility` (k, n) in [0, 1], 0 where an object
is absent or its box cannot be used (the box is then the last known one, or zeros). Boxes
that reach over the border stay as they are: cut ones would shrink and stop where the
object goes on moving. GOT-10k's measures bind both boxes to the image themselves.

Imports no TensorFlow, see `ctp_jax.prepare.video`.
"""

import concurrent.futures
import dataclasses
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
ABSENCE, COVER = "absence.label", "cover.label"
_FAR = 1e6  # pixels; what is farther away is no box


@dataclasses.dataclass(frozen=True)
class File:
    """The boxes of one video in a file; an `Annotate`.

    A dataclass of plain values: its `repr` is part of the fingerprint of the data set.

    Attributes:
        path: see `box_files.read_rows`. GOT-10k's `absence.label` and `cover.label` beside
            it count: an object is as visible as its cover in eighths, unless it is absent.
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
        if not self.box_format and not rows.corners:
            _check_format(name, rows.boxes, size)
        if self.box_format != "xyxy" and not rows.corners:
            corners[:, 2:] = corners[:, :2] + rows.boxes[:, 2:]
        kept = rows.objects < self.objects
        place = frames[kept], rows.objects[kept]
        boxes = np.zeros((count, self.objects, 4))
        visibility = np.zeros((count, self.objects))
        boxes[place], visibility[place] = corners[kept], rows.visibility[kept]
        visibility *= _cover(os.path.dirname(self.path), count)[:, None]
        found = settle(boxes, visibility, size)
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
        float32 `boxes` (k, n, 4) and `visibility` (k, n), see the top of this file.
    """
    usable = np.all(np.abs(boxes) < _FAR, axis=-1)
    x1, y1, x2, y2 = np.moveaxis(np.where(usable[..., None], boxes, 0), -1, 0)
    usable &= (x2 - x1 > 1) & (y2 - y1 > 1)
    usable &= (x2 > 0) & (y2 > 0) & (x1 < size[0]) & (y1 < size[1])
    visible = usable & (visibility > 0)
    last = np.where(visible, np.arange(len(boxes))[:, None], -1)
    last = np.maximum.accumulate(last, axis=0)[..., None]
    held = np.take_along_axis(boxes, np.maximum(last, 0), axis=0)
    return {
        "boxes": np.where(last >= 0, held, 0).astype(np.float32),
        "visibility": np.where(visible, visibility, 0).astype(np.float32),
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


def _check_format(name: str, boxes: np.ndarray, size: tuple[int, int]) -> None:
    """Raises `VideoError` if most boxes are far out of the frame, but not as corners."""
    boxes = boxes[np.isfinite(boxes).all(axis=-1)]
    far = np.multiply(size, 1.1)
    leaves = (boxes[:, :2] + boxes[:, 2:] > far).any(axis=-1)
    fits = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= np.add(size, 1))
    fits = fits.all(axis=-1)
    wrong = int((leaves & fits).sum())
    if 2 * wrong > len(boxes):
        raise VideoError(
            f"{name}: {wrong} of {len(boxes)} boxes x,y,w,h leave the frame of "
            f"{size[0]}x{size[1]}, and x1,y1,x2,y2 would not: pass --box_format=xyxy, or "
            "xywh if they are right"
        )


def _cover(folder: str, count: int) -> np.ndarray:
    """Visibility (k,) by GOT-10k's files of labels in a folder; 1 without them."""
    visible = np.ones(count)
    for file in (ABSENCE, COVER):
        path = os.path.join(folder, file)
        if epath.Path(path).exists():
            cells = box_files.read_text(path).split()
            if len(cells) != count:
                raise VideoError(f"{file}: {len(cells)} values for {count} frames")
            values = np.array([box_files.number(file, "a value", c) for c in cells])
            visible *= values != 1 if file == ABSENCE else np.clip(values / 8, 0, 1)
    return visible


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a file of boxes and the labels beside it are like.

    Attributes:
        digest: of their contents.
        lines: of the file that are not blank.
        labels: whether both files of labels are there.
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
    for path in (file.path, *(os.path.join(folder, name) for name in (ABSENCE, COVER))):
        try:
            with remote.opened(path, box_files.MAX_BYTES) as opened:
                found.append(opened.read())
        except OSError:
            found.append(b"")
    whole = b"".join(hashlib.sha256(data).digest() for data in found)
    lines = sum(bool(line.strip()) for line in found[0].splitlines())
    return Survey(hashlib.sha256(whole).hexdigest(), lines, all(found))


def digest(seen: Mapping[str, Survey]) -> str:
    """A digest of the contents of all files of boxes, by the names of their videos."""
    text = repr(sorted((name, each.digest) for name, each in seen.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
