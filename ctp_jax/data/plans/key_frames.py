"""Quantities that change over a clip: values at key frames, interpolated between.

Paper appendix G, pyvrl's dynamic_utils. The number of key frames differs from example
to example, so K + 2 slots are kept for at most K inner key frames: slot 0 is frame 0,
the inner ones follow, and all that are not used sit on the last frame. Slots that
coincide span segments of length 0 and do nothing, which also merges duplicates.

Symbols: l leading dimensions, k slots, t frames.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ctp_jax.data.rng import Rng


def sample_key_frames(
    rng: Rng, num_frames: int, probabilities: Sequence[float]
) -> tf.Tensor:
    """Frame numbers of the key frames, int32 (*l, k), not decreasing.

    Args:
        rng: numbers of the examples.
        num_frames: t.
        probabilities: of 0, 1, ... inner key frames.
    """
    last = num_frames - 1
    most = len(probabilities) - 1
    ticks = np.full([most + 1, most + 2], last, np.int32)
    ticks[:, 0] = 0
    jitter = np.zeros([most + 1, most + 2], np.int32)
    for inner in range(1, most + 1):
        spacing = num_frames / (inner + 1)
        ticks[inner, 1 : inner + 1] = [int(spacing * i) for i in range(1, inner + 1)]
        jitter[inner, 1 : inner + 1] = int(spacing / 3)
    number = rng.category((), probabilities)
    ticks, jitter = tf.gather(ticks, number), tf.gather(jitter, number)
    # U{-j .. j - 1}; the slots without jitter draw from one value, 0.
    shift = rng.integer([most + 2], tf.maximum(2 * jitter, 1)) - jitter
    return tf.clip_by_value(ticks + shift, 0, last)


def share_merged(values: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Gives slots on the same frame the value of the first of them.

    Args:
        values: (*l, k, *rest), drawn per slot.
        keys: int32 (*l, k).
    """
    same = keys[..., :, None] == keys[..., None, :]
    first = tf.argmax(tf.cast(same, tf.int32), axis=-1, output_type=tf.int32)
    return tf.gather(values, first, axis=len(keys.shape) - 1, batch_dims=_lead(keys))


def interpolate(
    values: tf.Tensor,
    keys: tf.Tensor,
    num_frames: int,
    rng: Rng | None = None,
    kinds: Sequence[float] = (1.0, 0.0, 0.0),
) -> tf.Tensor:
    """Values of every frame, (*l, t, *rest).

    Between two key frames a value moves linearly, with constant acceleration from
    rest, or with constant deceleration to rest; the kind is drawn per segment.

    Args:
        values: float32 (*l, k, *rest), equal on slots of the same frame.
        keys: int32 (*l, k).
        num_frames: t.
        rng: numbers of the examples; None where `kinds` leaves no choice.
        kinds: probabilities of the three kinds.
    """
    lead, slots = _lead(keys), keys.shape[-1]
    frames = tf.range(num_frames)
    reached = tf.cast(frames[:, None] >= keys[..., None, :], tf.int32)
    segment = tf.minimum(tf.reduce_sum(reached, axis=-1) - 1, slots - 2)  # (*l, t)
    start = tf.gather(keys, segment, axis=-1, batch_dims=lead)
    end = tf.gather(keys, segment + 1, axis=-1, batch_dims=lead)
    length = tf.cast(tf.maximum(end - start, 1), tf.float32)
    progress = tf.cast(frames - start, tf.float32) / length
    if rng is not None:
        kind = rng.category([slots - 1], kinds)
        kind = tf.gather(kind, segment, axis=-1, batch_dims=lead)
        progress = tf.where(
            kind == 0,
            progress,
            tf.where(kind == 1, progress**2, 1.0 - (1.0 - progress) ** 2),
        )
    first = tf.gather(values, segment, axis=lead, batch_dims=lead)
    second = tf.gather(values, segment + 1, axis=lead, batch_dims=lead)
    rest = len(values.shape) - lead - 1
    shape = tf.concat([tf.shape(progress), tf.ones([rest], tf.int32)], axis=0)
    return first + (second - first) * tf.reshape(progress, shape)


def _lead(keys: tf.Tensor) -> int:
    return len(keys.shape) - 1
