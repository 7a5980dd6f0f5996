"""Frames of a run that is cut into blocks, for tasks that predict blocks from others."""

from collections.abc import Sequence

import tensorflow as tf

from ctp_jax.data.rng import Rng


def sample_blocks(
    rng: Rng,
    num_frames: tf.Tensor,
    shape: tuple[int, int],
    strides: Sequence[int],
    jitter: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Samples consecutive blocks, all of one stride, see `ClipSpec.frame_numbers`.

    Args:
        rng: numbers for this video.
        num_frames: n of the video, int32 scalar; more than all blocks and strides span.
        shape: (c, t), number of blocks and of their frames.
        strides: to choose from, at least 1.
        jitter: shift every frame by U{0..stride-1}.

    Returns:
        int32 (c, t), and the number of the stride for each block, int32 (c,). The run
        starts at U{0..n - c t stride - 1}, as in DPC's code: at least a whole stride
        stays after its last frame.
    """
    count, frames = shape
    choice = rng.integer((), len(strides))
    stride = tf.gather(tf.constant(tuple(strides)), choice)
    start = rng.integer((), tf.maximum(num_frames - count * frames * stride, 1))
    times = start + stride * tf.range(count * frames)
    if jitter:
        times += rng.integer([count * frames], stride)
    return tf.reshape(times, [count, frames]), tf.fill([count], choice)
