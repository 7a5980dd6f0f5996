"""The Catch-the-Patch game: trajectories, masks and who is visible when.

Paper section 3.3 and appendix G; the numbers and the order of operations are those of
pyvrl's PatchMask, and every one of them is an option of `config.game`. This module
only samples; `ctp_jax.ops.paste` draws.

Symbols: l leading dimensions of the random numbers, n trajectories, t frames.
"""

import tensorflow as tf
from ml_collections import ConfigDict

from ctp_jax.data.plans import key_frames
from ctp_jax.data.rng import Rng, exp, log


def sample_game(
    rng: Rng, config: ConfigDict, num_frames: int, size: int
) -> dict[str, tf.Tensor]:
    """Everything about the patches of one clip: the fields of `ops.paste.Patches`.

    Args:
        rng: numbers of the examples.
        config: `config.game`.
        num_frames: t.
        size: side of the clip in pixels.

    Returns:
        boxes (*l, n, t, 4), source, shape, edge, order (*l, n), opacity and visible
        (*l, n, t).
    """
    boxes = sample_trajectories(rng, config, num_frames, size)
    return sample_patches(rng, config, boxes)


def sample_patches(
    rng: Rng, config: ConfigDict, boxes: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What `sample_game` returns, for boxes that are given."""
    count, num_frames = boxes.shape[-3:-1]
    source = rng.integer([count], num_frames)
    soft = rng.bernoulli([count], config.soft_edge)
    start = rng.uniform([count], *config.soft_edge_start)
    frames = tf.range(num_frames)
    shown = rng.bernoulli([count, num_frames], config.visible)
    extent = tf.reduce_mean(boxes[..., 2:] - boxes[..., :2], axis=-2)
    return {
        "boxes": boxes,
        "source": source,
        "shape": rng.category([count], config.shapes),
        "edge": tf.where(soft, start, 1.0),
        "opacity": _sample_opacity(rng.split(count), config, num_frames),
        # Without its first frame nobody could know what to follow.
        "visible": shown | (frames == 0) | (frames == source[..., None]),
        # Large ones first: a small patch would vanish under a large one.
        "order": tf.argsort(-tf.reduce_prod(extent, axis=-1), axis=-1, stable=True),
    }


def _sample_opacity(rng: Rng, config: ConfigDict, num_frames: int) -> tf.Tensor:
    keys = key_frames.sample_key_frames(rng, num_frames, config.key_frames)
    values = rng.uniform([len(config.key_frames) + 1], *config.opacity)
    values = key_frames.share_merged(values, keys)
    return key_frames.interpolate(values, keys, num_frames)


def sample_trajectories(
    rng: Rng, config: ConfigDict, num_frames: int, size: int
) -> tf.Tensor:
    """Boxes of whole pixels over time, float32 (*l, n, t, 4), x1 y1 x2 y2."""
    centre, extent = sample_first_boxes(rng, config, size)
    # The key frames and kinds of motion are common to the trajectories of a clip.
    position_keys = key_frames.sample_key_frames(rng, num_frames, config.key_frames)
    centres = walk(
        rng,
        position_keys,
        centre,
        config.speed,
        low=extent / 2,
        high=size - extent / 2,
    )
    centres = key_frames.interpolate(
        centres, position_keys, num_frames, rng, config.interpolation
    )
    return sample_boxes(rng, config, centres, extent, size)


def sample_boxes(
    rng: Rng, config: ConfigDict, centres: tf.Tensor, extent: tf.Tensor, size: int
) -> tf.Tensor:
    """Boxes as of `sample_trajectories`, whose sizes change, around given centres.

    Args:
        rng: numbers of the examples.
        config: `config.game`.
        centres: (*l, t, n, 2), x before y.
        extent: in the first frame, (*l, n, 2).
        size: side of the clip in pixels.
    """
    num_frames = centres.shape[-3]
    size_keys = key_frames.sample_key_frames(rng, num_frames, config.key_frames)
    log_extents = walk(rng, size_keys, log(extent), config.size_change)
    # Beyond any clip, and float32 holds its exponential.
    log_extents = tf.clip_by_value(log_extents, -20.0, 20.0)
    extents = key_frames.interpolate(
        exp(log_extents), size_keys, num_frames, rng, config.interpolation
    )
    low = tf.clip_by_value(centres - extents / 2, 0.0, float(size))
    high = tf.clip_by_value(centres + extents / 2, 0.0, float(size))
    # A patch needs a pixel, which only sizes far below the defaults can lose.
    low = tf.minimum(tf.round(low), size - 1.0)
    high = tf.maximum(tf.round(high), low + 1.0)
    boxes = tf.concat([low, high], axis=-1)  # (*l, t, n, 4)
    lead = len(rng.lead)
    return tf.transpose(boxes, [*range(lead), lead + 1, lead, lead + 2])


def sample_first_boxes(
    rng: Rng, config: ConfigDict, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Centres and extents in the first frame, (*l, n, 2) each, x before y."""
    count = config.num_trajectories
    scale = rng.pick([count], [float(scale) for scale in config.scales])
    root = tf.sqrt(rng.pick([count], [float(ratio) for ratio in config.ratios]))
    extent = tf.stack([scale * root, scale / root], axis=-1)
    jitter = rng.uniform([count, 2], -config.box_jitter, config.box_jitter)
    extent = tf.clip_by_value(extent * exp(jitter), 1.0, size - 1.0)
    return rng.uniform([count, 2], 0.0, size - extent) + extent / 2, extent


def walk(
    rng: Rng,
    keys: tf.Tensor,
    value: tf.Tensor,
    speed: float,
    low: tf.Tensor | None = None,
    high: tf.Tensor | None = None,
) -> tf.Tensor:
    """A random walk over the key frames, (*l, k, n, d), from `value` (*l, n, d).

    Each step is uniform within `speed` per frame and ends between `low` and `high`.
    """
    values = [value]
    for slot in range(keys.shape[-1] - 1):
        frames = tf.cast(keys[..., slot + 1] - keys[..., slot], tf.float32)
        bound = speed * frames[..., None, None]
        value = value + rng.uniform(tuple(value.shape[-2:]), -bound, bound)
        if low is not None:
            value = tf.clip_by_value(value, low, high)
        values.append(value)
    return tf.stack(values, axis=-3)
