"""Samples the frames of a clip and the window of them that it shows.

Both are sampled per video before decoding, so that only the necessary pixels are
decoded.
Symbols: c clips per video, t frames per clip.
"""

import numpy as np
import tensorflow as tf

from ctp_jax.data.batch import ClipSpec
from ctp_jax.data.rng import Rng

MARGIN = (0, 1)
"""Rows and columns to decode around those that are used: libjpeg guesses the chroma of
the outermost columns of a partially decoded JPEG, with errors up to 40 grey levels.
"""


def sample_times(
    rng: Rng, num_frames: tf.Tensor, spec: ClipSpec, window: tf.Tensor | int = 0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Samples the frame numbers of every clip of a video.

    Args:
        rng: numbers for this video.
        num_frames: of the video, int32 scalar.
        spec: see `ClipSpec`.
        window: number of the window of the video, int32 scalar, for 'windows'.

    Returns:
        int32 (c, t), and `choice`, int32 (c,).
    """
    if spec.frame_numbers is not None:
        times, choice = spec.frame_numbers(rng, num_frames)
        times = tf.ensure_shape(times, [spec.num_clips, spec.num_frames])
        return times, tf.ensure_shape(choice, [spec.num_clips])
    clips = [spec.num_clips]
    if spec.sampling == "random":
        choice = rng.integer(clips, len(spec.strides))
        span = spanned(choice, spec)
        start = rng.integer(clips, tf.maximum(num_frames - span, 0) + 1)
    elif spec.sampling == "uniform":
        choice = tf.zeros(clips, tf.int32)
        # The test protocol counts a whole stride after the last frame, too.
        start = _evenly_spread(num_frames, abs(spec.strides[0]) * spec.num_frames, spec)
    elif spec.sampling == "ordered":
        own = rng.integer((), len(spec.strides))
        choice = own + tf.zeros(clips, tf.int32)
        span = spanned(own, spec)
        start = one_after_the_other(rng, num_frames, span, spec)
    elif spec.sampling == "windows":
        start = tf.fill(clips, window * (spec.num_frames - 1))
        times = tf.minimum(start[:, None] + tf.range(spec.num_frames), num_frames - 1)
        return times, tf.fill(clips, window)
    else:
        raise ValueError(f"sampling {spec.sampling!r}")
    times = frame_numbers(rng, start[..., None], choice, num_frames, spec)
    return times[..., 0, :], choice


def spanned(choice: tf.Tensor, spec: ClipSpec) -> tf.Tensor:
    """The frames that clips with these strides span, int32."""
    stride = tf.gather(tf.constant(spec.strides), choice)
    return tf.abs(stride) * (spec.num_frames - 1) + 1


def frame_numbers(
    rng: Rng,
    starts: tf.Tensor,
    choice: tf.Tensor,
    num_frames: tf.Tensor,
    spec: ClipSpec,
) -> tf.Tensor:
    """Frame numbers of clips by where they may start, int32 (c, n, t).

    Args:
        rng: numbers for this video.
        starts: int32 (c, n), n of them for each clip.
        choice: int32 (c,), which of `spec.strides` each clip has.
        num_frames: of the video, int32 scalar.
        spec: see `ClipSpec`.
    """
    stride = tf.gather(tf.constant(spec.strides), choice)[..., None]
    steps = tf.range(spec.num_frames) * tf.abs(stride)  # (c, t)
    if spec.jitter:
        shape = [spec.num_clips, spec.num_frames]
        steps += rng.integer(shape, tf.maximum(tf.abs(stride), 1))
    times = tf.minimum(starts[..., None] + steps[..., None, :], num_frames - 1)
    if min(spec.strides) < 0:
        times = tf.where(stride[..., None] < 0, times[..., ::-1], times)
    return times


def _evenly_spread(num_frames: tf.Tensor, span, spec: ClipSpec) -> tf.Tensor:
    """Starts of clips that are spread over the video, int32 (c,)."""
    starts = tf.maximum(num_frames - span + 1, 0)
    # int(d / 2c + i d / c) in whole numbers.
    odd = tf.range(1, 2 * spec.num_clips, 2)
    return starts * odd // (2 * spec.num_clips)


def one_after_the_other(
    rng: Rng, num_frames: tf.Tensor, span: tf.Tensor | int, spec: ClipSpec
) -> tf.Tensor:
    """Starts of clips of `span` frames with gaps between them, int32 (c,).

    See 'ordered' of `ClipSpec.sampling`; reads its `num_clips` and `gap`.
    """
    count, gaps = spec.num_clips, max(spec.num_clips - 1, 1)
    widest = (num_frames - count * span) // gaps
    gap = tf.minimum(widest, spec.gap)
    free = num_frames - count * span - (count - 1) * gap
    first = rng.integer((), tf.maximum(free, 0) + 1)
    there_is_room = widest >= min(spec.gap, 1)
    return tf.where(
        there_is_room,
        first + tf.range(count) * (span + gap),
        _evenly_spread(num_frames, span, spec),
    )


def _scaled_size(height, width, scale: int | tuple[int, int]) -> tf.Tensor:
    """Height and width (..., 2) of frames (...) scaled to one of `ClipSpec.scales`."""
    size = tf.stack([height, width], axis=-1)
    if isinstance(scale, int):
        exact = tf.cast(size, tf.float64)
        # In the order of the authors' release, and rounded as there: half to even.
        factor = scale / tf.reduce_min(exact, axis=-1, keepdims=True)
        return tf.cast(tf.round(exact * factor), size.dtype)
    width, height = (tf.cast(side, size.dtype) for side in scale)
    portrait = (size[..., :1] > size[..., 1:]) != (height > width)
    return tf.where(portrait, tf.stack([width, height]), tf.stack([height, width]))


def sample_window(
    rng: Rng,
    height: tf.Tensor,
    width: tf.Tensor,
    spec: ClipSpec,
    hold: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Samples the window of the stored frame that each clip shows.

    As if the frame were scaled to one of `spec.scales` and a square of `spec.size`
    pixels cut out at a whole-pixel offset.

    Args:
        rng: numbers for this video.
        height: of the stored frames, int32 scalar.
        width: likewise.
        spec: see `ClipSpec`.
        hold: what a 'random' window should contain, float32 (c, 2, 4): two boxes x1 y1
            x2 y2 for each clip in stored pixels, the second around the first, see
            `_offsets_around`. With a shared window, those of the first clip count.

    Returns:
        float32 (c, 4), y, x, height, width in stored pixels, and bool (c,), mirrored.
    """
    shared = spec.num_clips if spec.shared_window is True else spec.shared_window
    # The number of each clip's window.
    number = np.maximum(np.arange(spec.num_clips) - max(shared, 1) + 1, 0)
    windows = int(number[-1]) + 1
    choices = [_scaled_size(height, width, scale) for scale in spec.scales]
    choice = rng.integer([windows], len(choices))
    scaled = tf.gather(tf.stack(choices), choice)  # (c, 2)
    free = scaled - spec.size
    pixel = tf.cast(tf.stack([height, width]), tf.float32) / tf.cast(scaled, tf.float32)
    if spec.crop == "random" and hold is not None:
        low, high = _offsets_around(rng, hold[:windows], pixel, free, spec.size)
        offset = low + rng.integer([windows, 2], high - low + 1)
    elif spec.crop == "random":
        offset = rng.integer([windows, 2], free + 1)
    elif spec.crop == "center":
        offset = free // 2
    else:
        raise ValueError(f"crop {spec.crop!r}")
    start = tf.cast(offset, tf.float32) * pixel
    flip = rng.bernoulli([windows], spec.flip)
    window = tf.concat([start, spec.size * pixel], axis=-1)
    return tf.gather(window, number), tf.gather(flip, number)


HOLD_ALL = 0.9
"""Probability that a window holds all boxes of an object, not the first one only."""


def _offsets_around(
    rng: Rng, hold: tf.Tensor, pixel: tf.Tensor, free: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The lowest and the highest offset of windows that hold a box, int32 (w, 2), y x.

    For each axis by itself: offsets with which the window holds the second box, with
    probability `HOLD_ALL` and where there are any; else those with which it holds the
    first; else the one that is nearest to centring it on the first.

    Args:
        rng: numbers for this video.
        hold: float32 (w, 2, 4), see `sample_window`, in stored pixels.
        pixel: float32 (w, 2), stored pixels per scaled pixel.
        free: int32 (w, 2), the largest offset.
        size: side of the window, scaled pixels.
    """
    every = rng.bernoulli([hold.shape[0]], HOLD_ALL)[:, None]
    last = tf.cast(free, tf.float32)
    boxes = hold / tf.tile(pixel[:, ::-1], [1, 2])[:, None]  # scaled pixels, x before y
    # What lies outside the frame cannot be held.
    frame = tf.tile(last[:, ::-1] + size, [1, 2])[:, None]
    boxes = tf.clip_by_value(boxes, 0.0, frame)
    start, end = boxes[..., 1::-1], boxes[..., :1:-1]  # (w, 2, 2), y before x
    # A thousandth of a pixel may stand out: less is rounding.
    low = tf.math.ceil(end - size - 1e-3)
    high = tf.floor(start + 1e-3)
    low, high = (tf.clip_by_value(side, 0.0, last[:, None]) for side in (low, high))
    centred = tf.round((start[:, 0] + end[:, 0] - size) / 2)
    centred = tf.clip_by_value(centred, 0.0, last)
    fits, all_fit = tf.unstack(low <= high, axis=1)
    low, high = (
        tf.where(every & all_fit, side[:, 1], tf.where(fits, side[:, 0], centred))
        for side in (low, high)
    )
    return tf.cast(low, tf.int32), tf.cast(high, tf.int32)


def canvas_size(
    heights: np.ndarray, widths: np.ndarray, spec: ClipSpec
) -> tuple[int, int]:
    """Height and width, in pixels, of a canvas that fits the window of every clip.

    Args:
        heights: int (n,), stored frame heights.
        widths: int (n,).
        spec: see `ClipSpec`.
    """
    own = np.unique(np.stack([heights, widths], axis=-1).astype(np.int64), axis=0)
    canvas = np.zeros(2, np.int64)
    for scale in spec.scales:
        scaled = _scaled_size(own[:, 0], own[:, 1], scale).numpy()
        # Two points d apart lie between pixels that are up to floor(d) + 2 apart.
        needed = ((spec.size - 1) * own) // scaled + 3 + 2 * np.array(MARGIN)
        canvas = np.maximum(canvas, np.minimum(needed, own).max(axis=0))
    return int(canvas[0]), int(canvas[1])
