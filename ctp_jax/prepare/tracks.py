"""Follows boxes through the frames of a stored video: the teacher of the paper's Table 1.

Worker processes import this module: neither TensorFlow nor TFDS at the top.
Symbols: k frames of a video, m tracks, l frames of a track.
"""

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Float, Int, UInt8

from ctp_jax import trackers
from ctp_jax.prepare import stored as stored_lib
from ctp_jax.prepare import video

TRACKS, VISIBILITY = "tracks", "tracks_visibility"
"""Annotations: float32 (k, m, 4), x1 y1 x2 y2, and (k, m), 1 where a track is known. A
track that was dropped has visibility 0, and the boxes that the tracker gave; boxes are
zeros where it gave none. So the reason can be read from the record, see `fates`."""

KEPT, FLAT, LOST, STRAYED = 0, 1, 2, 3
"""What becomes of a track: kept; nothing to follow; lost too soon; not found to be where
it started when it is followed back."""

# Those of the game, configs/common.py: pixels of a clip out of frames with a short side of
# 128, the middle one of its scales; width / height; and the jitter of the sides.
SCALES = (16.0, 24.0, 28.0, 32.0, 48.0, 64.0)
RATIOS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
JITTER = 0.18
SHORT_SIDE = 128

TOGETHER = 4
"""So many tracks start in the same frame: a clip follows several."""
_TRIES = 10  # boxes that are drawn for a track until one is not flat


@dataclasses.dataclass(frozen=True)
class Options:
    """How videos are tracked. All of it decides what is written.

    Attributes:
        tracker: one of `trackers.TRACKERS`.
        tracks: m.
        length: l; shorter videos have shorter tracks.
        min_valid: frames in which a track must be known, or all of a shorter video.
        min_std: of the grey levels in a box, so that there is something to follow.
        min_iou: of a track's first box, and where it ends when it is followed back.
        seed: of the boxes.
        opencv: its version.
    """

    tracker: str
    tracks: int
    length: int
    min_valid: int
    min_std: float
    min_iou: float
    seed: int
    opencv: str


def encode_tracks(
    stored: stored_lib.Stored, name: str, options: Options
) -> video.EncodedVideo:
    """The video of a record with the same frames, its own annotations and tracks.

    Args:
        stored: where it is.
        name: of the video; with the seed it decides which boxes are followed.
        options: how.

    Raises:
        VideoError: the record or a frame cannot be read.
        RuntimeError: another OpenCV than that of the machine that started the job.
    """
    found = trackers.require(options.tracker).__version__
    stored_lib.check_opencv(found, options.opencv)
    with video.errors_of_one_file():
        encoded = stored_lib.read(stored)
        frames = stored_lib.decode(encoded.frames)
        boxes, visibility = track(frames, name, options)
    more = {TRACKS: boxes, VISIBILITY: visibility}
    return dataclasses.replace(encoded, annotations={**encoded.annotations, **more})


def track(
    frames: UInt8[np.ndarray, "k h w 3"], name: str, options: Options
) -> tuple[Float[np.ndarray, "k m 4"], Float[np.ndarray, "k m"]]:
    """The `TRACKS` of a video and their `VISIBILITY`, functions of the arguments."""
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([options.seed, *digest])
    count, length = len(frames), min(options.length, len(frames))
    boxes = np.zeros((count, options.tracks, 4), np.float32)
    visibility = np.zeros((count, options.tracks), np.float32)
    starts = draw_starts(rng, count - length + 1, options.tracks)
    for i, start in enumerate(starts):
        box = draw_box(rng, frames[start], options.min_std)
        if box is None:
            continue
        shown = frames[start : start + length]
        path, ok = trackers.follow(shown, box, options.tracker)
        valid = int(ok.sum())  # the first ones: what is lost stays lost
        boxes[start : start + valid, i] = path[:valid]
        # A track that strayed did so late, perhaps: its first half is tried, too.
        while valid >= min(options.min_valid, length):
            if _returns(shown[:valid], path[:valid], options):
                visibility[start : start + valid, i] = 1
                break
            valid //= 2
    return boxes, visibility


def _returns(
    frames: np.ndarray, path: Float[np.ndarray, "l 4"], options: Options
) -> bool:
    """Whether a track, followed back from its last box, ends where it started."""
    back, ok = trackers.follow(frames[::-1], path[-1], options.tracker)
    a, b = back[-1], path[0]
    # Not with `ops.boxes`: every worker would import JAX.
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = np.prod(sides.clip(min=0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both
    return bool(ok[-1] and both / union > options.min_iou)


def draw_starts(
    rng: np.random.Generator, possible: int, tracks: int
) -> Int[np.ndarray, " m"]:
    """First frames of the tracks, in groups that are spread over the video."""
    groups = -(-tracks // TOGETHER)
    starts = (np.arange(groups) + rng.uniform(size=groups)) / groups * possible
    return np.repeat(starts.astype(int), TOGETHER)[:tracks]


def draw_box(
    rng: np.random.Generator, frame: UInt8[np.ndarray, "h w 3"], min_std: float
) -> Float[np.ndarray, "4"] | None:
    """A box as in the game, of whole pixels inside the frame; None if all are flat."""
    size = np.array(frame.shape[1::-1])
    for _ in range(_TRIES):
        ratio = np.sqrt(rng.choice(RATIOS))
        sides = (
            rng.choice(SCALES) * size.min() / SHORT_SIDE * np.array([ratio, 1 / ratio])
        )
        sides *= np.exp(rng.uniform(-JITTER, JITTER, 2))
        sides = np.round(np.clip(sides, trackers.SMALLEST, size)).astype(int)
        low = rng.integers(0, size - sides + 1)
        x1, y1, x2, y2 = *low, *(low + sides)
        if frame[y1:y2, x1:x2].mean(axis=-1).std() >= min_std:
            return np.array([x1, y1, x2, y2], np.float64)
    return None


def fates(
    boxes: Float[np.ndarray, "k m 4"],
    visibility: Float[np.ndarray, "k m"],
    options: Options,
) -> Int[np.ndarray, " m"]:
    """What became of every track: `KEPT`, `FLAT`, `LOST` or `STRAYED`."""
    given = (boxes[..., 2] > boxes[..., 0]).sum(axis=0)
    enough = given >= min(options.min_valid, options.length, len(boxes))
    dropped = np.where(given == 0, FLAT, np.where(enough, STRAYED, LOST))
    return np.where((visibility > 0).any(axis=0), KEPT, dropped)


def displacements(
    boxes: Float[np.ndarray, "k m 4"], visibility: Float[np.ndarray, "k m"], span: int
) -> list[float]:
    """How far centres move in stretches of `span` frames of the kept tracks, pixels.

    The greatest distance from the first of the frames.
    """
    centres, found = (boxes[..., :2] + boxes[..., 2:]) / 2, []
    for i in range(boxes.shape[1]):
        path = centres[visibility[:, i] > 0, i]
        for start in range(0, len(path) - span + 1, span):
            moved = path[start : start + span] - path[start]
            found.append(float(np.linalg.norm(moved, axis=-1).max()))
    return found
