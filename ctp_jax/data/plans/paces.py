"""Samples the frames of clips of several paces, for `ctp_jax.tasks.pace`."""

from collections.abc import Sequence

import tensorflow as tf

from ctp_jax.data.rng import Rng


def sample_frames(
    rng: Rng,
    num_frames: tf.Tensor,
    paces: Sequence[int],
    clips: int,
    length: int,
    wrap: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Samples clips of a video that show every pace-th frame.

    Args:
        rng: numbers for this video.
        num_frames: of the video, int32 scalar.
        paces: to choose from, at least 1.
        clips: c, 1 or 2; two have different paces.
        length: t, frames of a clip.
        wrap: clips start anywhere, and the first frame follows where a step would lead
            past the last. Otherwise they start where they fit, and the last frame is
            repeated in videos that are too short.

    Returns:
        Frame numbers, int32 (c, t), and the number of each clip's pace, int32 (c,).
    """
    choice = rng.integer([1], len(paces))
    if clips > 1:
        # Not the pace of the first clip.
        other = choice + 1 + rng.integer([1], len(paces) - 1)
        choice = tf.concat([choice, other % len(paces)], axis=0)
    pace = tf.gather(tf.constant(tuple(paces)), choice)[:, None]
    steps = tf.range(length)
    if not wrap:
        start = rng.integer([clips, 1], tf.maximum(num_frames - pace * steps[-1], 1))
        return tf.minimum(start + pace * steps, num_frames - 1), choice
    start = rng.integer([clips, 1], num_frames)
    until_end = (num_frames - 1 - start) // pace
    again = (steps - until_end - 1) % ((num_frames - 1) // pace + 1)
    return tf.where(steps <= until_end, start + pace * steps, pace * again), choice
