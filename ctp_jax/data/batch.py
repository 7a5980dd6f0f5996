"""What a batch is, and which clips a task wants in it. No TensorFlow here.

Symbols in shapes: b videos of the global batch, c clips per video, t frames per clip,
h w of the canvas (the decoded window), s side of the drawn clip.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Batch = Mapping[str, Any]
"""What the pipeline yields, leading dimension b everywhere:

    frames   uint8   (b, c, t, h, w, 3)  decoded window, zero-padded to the canvas
    extent   float32 (b, c, 2)           height and width of the canvas that is image
    window   float32 (b, c, 4)           y, x, height, width in canvas pixels to show
    flip     bool    (b, c)              mirror the drawn clip left-right
    times    int32   (b, c, t)           which frames of the video these are
    choice   int32   (b, c)              what was chosen with the frames: the number of
                                         the clip's stride in `ClipSpec.strides`, or of
                                         the window in its video, or what
                                         `ClipSpec.frame_numbers` says
    label    int32   (b,)                class, -1 where the data set has none
    index    int32   (b,)                record number among those of the split that are
                                         used (`config.data.fraction`, `skip_short`)
    mask     float32 (b,)                1 for examples, 0 for padding (evaluation)
    replaced float32 (b,)                1 where the record could not be read: another one
                                         (training), or blank with mask 0 (evaluation)
    annotations {name: float32 (b, c, t, ...)}  what the data set knows of every frame;
                                         boxes, see `VISIBILITY`, are x1 y1 x2 y2 in the
                                         pixels of the drawn clip, after the flip,
                                         unclipped
    flow     bool    (b, c)              only where a clip shows optical flow: which of
                                         them do, see `ctp_jax.flow`
    followed int32   (b, c, 2)           only with `ClipSpec.follow`: the number of the
                                         clip's entry there, and of the object that it
                                         follows, -1 if none
    plan     {name: array (b, ...)}      what `Task.plan` returned
"""

PER_CLIP = ("frames", "extent", "window", "flip", "times", "choice", "flow", "followed")
"""Entries of a batch whose second dimension is c."""

VISIBILITY = {"boxes": "visibility", "tracks": "tracks_visibility"}
"""Annotations of every frame that are boxes, float32 (n, 4) or (4,) for one object, and
those that say how far each object is visible, float32 (n,) in [0, 1]. Without the latter,
an object is visible wherever its box has an area."""


def labels(batch: Batch) -> Any:
    """The labels to learn: the plan's where it has some, else those of the data set.

    Returns:
        int32 (b, ...), of the kind of arrays that the batch holds.
    """
    plan = batch.get("plan", {})
    return plan["label"] if "label" in plan else batch["label"]


def num_windows(num_frames: Any, length: int) -> Any:
    """How many windows cover a video, if each begins with the last frame of the one before.

    Args:
        num_frames: of the video, or of each of several, at least 1.
        length: frames of a window, at least 2.

    >>> [int(num_windows(frames, 4)) for frames in (1, 4, 5, 7, 8)]
    [1, 1, 2, 2, 3]
    """
    return np.maximum(1, -(-(num_frames - 1) // (length - 1)))


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Which frames and which window of them a task sees.

    A clip of stride r spans |r| (t - 1) + 1 frames. In a video that is shorter, the last
    frame is repeated, whatever the sampling.

    Attributes:
        num_clips: c, clips per video.
        num_frames: t, frames per clip.
        size: s, side of the drawn clip in pixels.
        strides: frame strides to choose from, uniformly: one per clip, or with 'ordered'
            one per video. 0 repeats one frame, a negative one runs backwards.
        jitter: shift every frame by U{0..|stride|-1}.
        sampling: where clips start.
            'random': anywhere, each by itself.
            'uniform': clip i at int(d / 2c + i d / c), d the number of possible starts
            (the ten-clip test); takes the first stride.
            'ordered': one after the other with `gap` frames between them, together
            anywhere. A video that is too short for that has smaller gaps, and one that is
            too short for gaps has clips that overlap: they start as with 'uniform'.
            'windows': an evaluation sees the whole of every video, in windows of one
            clip each that overlap in one frame. A row of a batch goes on where that row
            of the batch before ended, until its video ends; then it begins another one.
        gap: frames between the end of a clip and the start of the next, for 'ordered'.
        frame_numbers: the task's own sampling, in place of all of the above. A function
            of (rng, num_frames), a `ctp_jax.data.rng.Rng` and an int32 scalar tensor, that
            gives frame numbers, int32 (c, t), each in [0, num_frames), and int32 (c,)
            for `choice` in the batch.
        scales: short sides, in pixels, to scale the frame to before cropping, as
            ints; or (width, height) pairs, which ignore the aspect ratio and swap for
            portrait videos.
        crop: 'random' or 'center'.
        flip: probability of mirroring.
        shared_window: all clips of a video have the same scale, crop and flip; or so
            many of them have, the first ones.
        follow: annotations (keys of `VISIBILITY`) with the objects to follow, '' for none;
            the video at position p of the run has entry p modulo their number. With
            'random' sampling and crop, its clips start where an object is visible and
            show it, see `ctp_jax.data.following`; with others, an object is chosen of
            those that the clip shows. Empty: nothing is followed.
        other_stream: numbers of clips to show a second time, in the stream that
            `config.data.stream` does not name: flow for RGB and RGB for flow. They have
            the same frames, window and flip, and come after the others: c in the batch is
            `num_clips` and so many.
        min_frames: refuse a data set with shorter videos, where the repeated last frame
            would give the label away.
    """

    num_clips: int
    num_frames: int
    size: int
    strides: Sequence[int] = (1,)
    jitter: bool = False
    sampling: str = "random"
    gap: int = 0
    frame_numbers: Callable[[Any, Any], tuple[Any, Any]] | None = None
    scales: Sequence[int | tuple[int, int]] = (128,)
    crop: str = "random"
    flip: float = 0.0
    shared_window: bool | int = False
    follow: Sequence[str] = ()
    other_stream: Sequence[int] = ()
    min_frames: int = 1
