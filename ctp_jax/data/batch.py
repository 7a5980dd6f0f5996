"""What a batch is, and which clips a task wants in it. No TensorFlow here.

Symbols in shapes: b videos of the global batch, c clips per video, t frames per clip,
h w of the canvas (the decoded window), s side of the drawn clip.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Batch = Mapping[str, Any]
"""What the pipeline yields, leading dimension b everywhere:

    frames   uint8   (b, c, t, h, w, 3)  decoded window, zero-padded to the canvas
    extent   float32 (b, c, 2)           height and width of the canvas that is image
    window   float32 (b, c, 4)           y, x, height, width in canvas pixels to show
    flip     bool    (b, c)              mirror the drawn clip left-right
    times    int32   (b, c, t)           which frames of the video these are
    label    int32   (b,)                class, -1 where the data set has none
    index    int32   (b,)                record number in its split
    mask     float32 (b,)                1 for examples, 0 for padding (evaluation)
    replaced float32 (b,)                1 where the record could not be read: another one
                                         (training), or blank with mask 0 (evaluation)
    boxes    float32 (b, c, t, 4)        only for data sets with boxes: x1 y1 x2 y2 in
                                         the pixels of the drawn clip, after the flip
    plan     {name: array (b, ...)}      what `Task.plan` returned
"""


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Which frames and which window of them a task sees.

    Attributes:
        num_clips: c, clips per video.
        num_frames: t, frames per clip.
        size: s, side of the drawn clip in pixels.
        strides: frame strides to choose from, uniformly, one per clip.
        jitter: shift every frame by U{0..stride-1}.
        sampling: 'random' starts, or 'uniform': clip i starts at
            int(d / 2c + i d / c), d the number of possible starts (the ten-clip test).
        scales: short sides, in pixels, to scale the frame to before cropping, as
            ints; or (width, height) pairs, which ignore the aspect ratio and swap for
            portrait videos.
        crop: 'random' or 'center'.
        flip: probability of mirroring.
    """

    num_clips: int
    num_frames: int
    size: int
    strides: Sequence[int] = (1,)
    jitter: bool = False
    sampling: str = "random"
    scales: Sequence[int | tuple[int, int]] = (128,)
    crop: str = "random"
    flip: float = 0.0
