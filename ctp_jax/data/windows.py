"""What a clip shows of each frame: its pixels, and where boxes are in it.

Symbols: k frames of a video, c clips per video, t frames per clip.
"""

import tensorflow as tf

from ctp_jax.data import clips
from ctp_jax.tasks.base import ClipSpec


def decode_window(
    encoded: tf.Tensor,
    times: tf.Tensor,
    window: tf.Tensor,
    frame_size: tuple[tf.Tensor, tf.Tensor],
    canvas: tuple[int, int],
    spec: ClipSpec,
    jpeg: bool,
    narrow: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes the part of each frame that its clip shows.

    Args:
        encoded: the video's frames, string (k,).
        times: which of them, int32 (c, t).
        window: what each clip shows, float32 (c, 4), in pixels of the stored frame.
        frame_size: height and width of the stored frames, int32 scalars.
        canvas: height and width to pad to.
        spec: see `ClipSpec`.
        jpeg: whether partial decoding is possible.
        narrow: whether the frames of some videos are narrower than the canvas.

    Returns:
        Frames uint8 (c, t, *canvas, 3), extents float32 (c, 2) and windows (c, 4) in
        pixels of the canvas.

    Raises:
        tf.errors.OpError: a frame cannot be decoded, or has another size.
    """
    frame_size = tf.stack(frame_size)
    start, length = window[:, :2], window[:, 2:]
    # The first row and column that bilinear interpolation touches.
    origin = tf.cast(tf.floor(start + 0.5 * length / spec.size - 0.5), tf.int32)
    # A whole canvas, where the frame is as large as that: padding costs a copy.
    extent = tf.minimum(frame_size, canvas)
    origin = tf.minimum(origin - clips.MARGIN, frame_size - extent)
    origin = tf.maximum(origin, 0)
    extents = tf.tile(extent[None], [spec.num_clips, 1])
    boxes = tf.unstack(tf.concat([origin, extents], axis=-1))
    # One op for all frames where there is one: hundreds of small ones add up.
    chosen = tf.unstack(tf.gather(encoded, tf.reshape(times, [-1])))
    decoded = [
        _decode(data, boxes[number // spec.num_frames], jpeg)
        for number, data in enumerate(chosen)
    ]
    sizes = tf.stack([size for _, size in decoded])[:, :2]
    # Inside a function it runs, used or not.
    fits = tf.reduce_all(sizes == frame_size)
    tf.debugging.Assert(fits, ["frames of another size than the index says"])
    frames = _pad([frame for frame, _ in decoded], extent, canvas, narrow)
    frames = tf.reshape(frames, (spec.num_clips, spec.num_frames, *canvas, 3))
    shown = tf.concat([start - tf.cast(origin, tf.float32), length], axis=-1)
    return frames, tf.cast(extents, tf.float32), shown


def _pad(
    frames: list[tf.Tensor], extent: tf.Tensor, canvas: tuple[int, int], narrow: bool
) -> tf.Tensor:
    """The frames below each other, each with zeros below it and, if narrow, beside it.

    Concatenated, since `tf.pad` takes several times as long as a copy.
    """
    below, beside = tf.unstack(tf.constant(canvas) - extent)
    gap = tf.zeros(tf.stack([below, extent[1], 3]), tf.uint8)
    rows = tf.concat([part for frame in frames for part in (frame, gap)], axis=0)
    if not narrow:
        return rows
    gap = tf.zeros(tf.stack([len(frames) * canvas[0], beside, 3]), tf.uint8)
    return tf.concat([rows, gap], axis=1)


def _decode(data: tf.Tensor, box: tf.Tensor, jpeg: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """The box (y, x, height, width) of one frame, and the shape of the whole."""
    if jpeg:
        # Of a larger frame, the box would be cut out of the wrong place.
        size = tf.image.extract_jpeg_shape(data)
        return tf.io.decode_and_crop_jpeg(data, box, channels=3), size
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    part = tf.image.crop_to_bounding_box(image, *tf.unstack(box, num=4))
    return part, tf.shape(image)


def boxes_in_clip(
    boxes: tf.Tensor, window: tf.Tensor, flip: tf.Tensor, size: int
) -> tf.Tensor:
    """Boxes of the stored frame as they appear in the drawn clip.

    Args:
        boxes: float32 (c, t, 4), x1 y1 x2 y2 in pixels of the stored frame.
        window: float32 (c, 4), y, x, height, width.
        flip: bool (c,).
        size: side of the drawn clip.

    Returns:
        float32 (c, t, 4) in pixels of the clip; not clipped to it.
    """
    y, x, height, width = tf.unstack(window[:, None, :], num=4, axis=-1)
    x1, y1, x2, y2 = tf.unstack(boxes, num=4, axis=-1)
    x1, x2 = ((value - x) * size / width for value in (x1, x2))
    y1, y2 = ((value - y) * size / height for value in (y1, y2))
    flip = flip[:, None]
    x1, x2 = tf.where(flip, size - x2, x1), tf.where(flip, size - x1, x2)
    return tf.stack([x1, y1, x2, y2], axis=-1)
