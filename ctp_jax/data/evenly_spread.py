"""The clips of an evaluation, evenly spread and from the centre of the frame, in NumPy.

What `ctp_jax.data.clips` says of `sampling='uniform'` and `crop='center'`, where nothing is
random: without TensorFlow, for videos that are in no data set.
"""

import numpy as np
from jaxtyping import Float, Int

from ctp_jax.data.batch import ClipSpec


def sample_times(num_frames: int, spec: ClipSpec) -> Int[np.ndarray, "c t"]:
    """The frame numbers of every clip of a video.

    >>> sample_times(11, ClipSpec(num_clips=2, num_frames=3, size=8, strides=(2,)))
    array([[1, 3, 5],
           [4, 6, 8]])
    """
    (stride,) = spec.strides
    # The test protocol counts a whole stride after the last frame, too.
    starts = max(num_frames - stride * spec.num_frames + 1, 0)
    odd = np.arange(1, 2 * spec.num_clips, 2)
    first = starts * odd // (2 * spec.num_clips)
    times = first[:, None] + stride * np.arange(spec.num_frames)
    return np.minimum(times, num_frames - 1)


def sample_segments(
    num_frames: int, length: float, spec: ClipSpec
) -> Int[np.ndarray, "c t"]:
    """The frame numbers of a clip from the middle of each segment of a video.

    Args:
        num_frames: of the video.
        length: of a segment, in frames, at least 1. The last one may be shorter, down to
            half of that.
        spec: of the clip; its number of clips does not count.

    >>> spec = ClipSpec(num_clips=1, num_frames=3, size=8, strides=(2,))
    >>> sample_segments(18, 8.0, spec)
    array([[ 1,  3,  5],
           [ 9, 11, 13]])
    """
    count = max(1, int(num_frames / length + 0.5))
    edges = np.minimum(np.arange(count + 1) * length, num_frames).astype(int)
    (stride,) = spec.strides
    steps = stride * np.arange(spec.num_frames)
    middle = (edges[:-1] + edges[1:] - steps[-1] - 1) // 2
    first = np.clip(middle, 0, max(num_frames - steps[-1] - 1, 0))
    return np.minimum(first[:, None] + steps, num_frames - 1)


def sample_window(height: int, width: int, spec: ClipSpec) -> Float[np.ndarray, "4"]:
    """The window of the frames that a clip shows: y, x, height, width in their pixels.

    >>> spec = ClipSpec(num_clips=1, num_frames=3, size=112, scales=((171, 128),))
    >>> sample_window(128, 171, spec)
    array([  8.,  29., 112., 112.], dtype=float32)
    """
    (scale,) = spec.scales
    size = np.array([height, width])
    if isinstance(scale, int):
        scaled = np.round(size * (scale / size.min())).astype(int)
    else:
        # Of portrait videos, the sides are swapped.
        swapped = (height > width) != (scale[1] > scale[0])
        scaled = np.array(scale if swapped else scale[::-1])
    pixel = size.astype(np.float32) / scaled.astype(np.float32)
    offset = ((scaled - spec.size) // 2).astype(np.float32)
    return np.concatenate([offset * pixel, np.float32(spec.size) * pixel])
