"""Decodes the window of each frame that a clip shows, and maps boxes into it.

Symbols: k frames of a video, c clips per video, t frames per clip.
"""

import tensorflow as tf

from ctp_jax.data import clips
from ctp_jax.data.batch import ClipSpec


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
        times: numbers of the frames, int32 (c, t).
        window: of each clip, float32 (c, 4), in pixels of the stored frame.
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
    boxes = boxes_to_decode(window, frame_size, canvas, spec)
    frames, sizes = decode_boxes(encoded, times, boxes, jpeg)
    # In a `tf.function` the op runs although its result is not used.
    fits = tf.reduce_all(sizes == frame_size)
    tf.debugging.Assert(fits, ["frames of another size than the index says"])
    frames = assemble(frames, boxes[0, 2:], canvas, narrow)
    frames = tf.reshape(frames, (spec.num_clips, spec.num_frames, *canvas, 3))
    boxes = tf.cast(boxes, tf.float32)
    shown = tf.concat([window[:, :2] - boxes[:, :2], window[:, 2:]], axis=-1)
    return frames, boxes[:, 2:], shown


def boxes_to_decode(
    window: tf.Tensor, frame_size: tf.Tensor, canvas: tuple[int, int], spec: ClipSpec
) -> tf.Tensor:
    """The box to decode for each clip, int32 (c, 4): y, x, height, width.

    As large as the canvas if the frame is, since padding costs a copy.

    Args:
        window: float32 (c, 4), see `decode_window`.
        frame_size: int32 (2,), height and width of the stored frames.
        canvas: height and width.
        spec: see `ClipSpec`.
    """
    start, length = window[:, :2], window[:, 2:]
    # The first row and column that bilinear interpolation touches.
    origin = tf.cast(tf.floor(start + 0.5 * length / spec.size - 0.5), tf.int32)
    extent = tf.minimum(frame_size, canvas)
    origin = tf.minimum(origin - clips.MARGIN, frame_size - extent)
    extents = tf.tile(extent[None], [spec.num_clips, 1])
    return tf.concat([tf.maximum(origin, 0), extents], axis=-1)


def decode_boxes(
    encoded: tf.Tensor, times: tf.Tensor, boxes: tf.Tensor, jpeg: bool
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Decodes the boxes of the frames of all clips, and the sizes of the frames.

    Args:
        encoded: the video's frames, string (k,).
        times: numbers of the frames, int32 (c, t).
        boxes: int32 (c, 4), see `boxes_to_decode`.
        jpeg: whether partial decoding is possible.

    Returns:
        c t arrays, uint8 (h, w, 3), and int32 (c t, 2), height and width.
    """
    # One op for all frames instead of hundreds of small ones.
    chosen = tf.unstack(tf.gather(encoded, tf.reshape(times, [-1])))
    each = tf.unstack(boxes)
    decoded = [
        _decode(data, each[number // times.shape[1]], jpeg)
        for number, data in enumerate(chosen)
    ]
    sizes = tf.stack([size for _, size in decoded])[:, :2]
    return [frame for frame, _ in decoded], sizes


def assemble(
    frames: list[tf.Tensor], extent: tf.Tensor, canvas: tuple[int, int], narrow: bool
) -> tf.Tensor:
    """Pads the frames to the canvas and stacks them vertically.

    By concatenation, since `tf.pad` takes several times as long as a copy.

    Args:
        frames: n arrays, uint8 (h, w, 3).
        extent: int32 (2,), their height and width.
        canvas: height and width to pad to.
        narrow: whether the width may be less than the canvas.

    Returns:
        uint8 (n canvas height, canvas width, 3).
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
        # If the frame is larger than indexed, the box would be the wrong one.
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
        boxes: float32 (c, t, ..., 4), x1 y1 x2 y2 in pixels of the stored frame.
        window: float32 (c, 4), y, x, height, width.
        flip: bool (c,).
        size: side of the drawn clip.

    Returns:
        float32 (c, t, ..., 4) in pixels of the clip; not clipped to it.
    """
    # One value a clip, for all its frames and boxes.
    per_clip = [-1, *[1] * (len(boxes.shape) - 2)]
    y, x, height, width = (
        tf.reshape(value, per_clip) for value in tf.unstack(window, num=4, axis=-1)
    )
    x1, y1, x2, y2 = tf.unstack(boxes, num=4, axis=-1)
    x1, x2 = ((value - x) * size / width for value in (x1, x2))
    y1, y2 = ((value - y) * size / height for value in (y1, y2))
    flip = tf.reshape(flip, per_clip)
    x1, x2 = tf.where(flip, size - x2, x1), tf.where(flip, size - x1, x2)
    return tf.stack([x1, y1, x2, y2], axis=-1)
