"""Plans of colour changes; `ctp_jax.ops.colour` carries them out."""

import tensorflow as tf
from ml_collections import ConfigDict

from ctp_jax.data.plans import key_frames
from ctp_jax.data.rng import Rng, exp


def sample_colour(
    rng: Rng, config: ConfigDict, num_frames: int
) -> dict[str, tf.Tensor]:
    """What to do to the colours of one clip.

    Args:
        rng: numbers of the examples, leading dimensions l.
        config: `config.colour`.
        num_frames: t.

    Returns:
        hue (degrees), saturation (factor) and hue_saturation (whether), (*l); and per
        frame, (*l, t), brightness (grey levels to add) and contrast (factor), which
        are 0 and 1 where nothing is to be done.
    """
    brightness = _sample_over_time(
        rng, config.brightness, config.brightness_delta, config, num_frames
    )
    contrast = _sample_over_time(
        rng, config.contrast, config.contrast_delta, config, num_frames, exp
    )
    return {
        **_sample_hue_saturation(rng, config),
        "brightness": brightness,
        "contrast": contrast,
    }


def sample_clip_colour(
    rng: Rng, config: ConfigDict, num_frames: int
) -> dict[str, tf.Tensor]:
    """As `sample_colour`, but brightness and contrast do not change over the clip."""
    brightness = rng.uniform((), -config.brightness_delta, config.brightness_delta)
    brightness *= tf.cast(rng.bernoulli((), config.brightness), tf.float32)
    contrast = rng.uniform((), -config.contrast_delta, config.contrast_delta)
    contrast *= tf.cast(rng.bernoulli((), config.contrast), tf.float32)
    over_time = tf.ones([num_frames])
    return {
        **_sample_hue_saturation(rng, config),
        "brightness": brightness[..., None] * over_time,
        "contrast": exp(contrast)[..., None] * over_time,
    }


def sample_jitter(
    rng: Rng, config: ConfigDict, num_frames: int
) -> dict[str, tf.Tensor]:
    """What `ctp_jax.ops.colour.jitter` does to each frame of a clip.

    The distributions are those of torchvision's `ColorJitter`.

    Args:
        rng: numbers of the examples, leading dimensions l.
        config: `config.jitter`.
        num_frames: t.

    Returns:
        Per frame, (*l, t): jittered and grey (whether), order (a number of
        `ctp_jax.ops.colour.ORDERS`), brightness, contrast and saturation (factors),
        offset (grey levels to add) and hue (degrees). The same in all frames unless
        `config.per_frame`.
    """
    shape = [num_frames if config.per_frame else 1]

    def factor(width):
        return rng.uniform(shape, max(0.0, 1.0 - width), 1.0 + width)

    plan = {
        "jittered": rng.bernoulli(shape, config.probability),
        "grey": rng.bernoulli(shape, config.grey),
        "order": rng.integer(shape, 24),
        "brightness": factor(config.brightness),
        "offset": rng.uniform(shape, -config.offset, config.offset),
        "contrast": factor(config.contrast),
        "saturation": factor(config.saturation),
        "hue": rng.uniform(shape, -360.0 * config.hue, 360.0 * config.hue),
    }
    if config.per_frame:
        return plan
    return {name: tf.repeat(value, num_frames, -1) for name, value in plan.items()}


def _sample_hue_saturation(rng: Rng, config: ConfigDict) -> dict[str, tf.Tensor]:
    return {
        "hue_saturation": rng.bernoulli((), config.hue_saturation),
        "hue": rng.uniform((), -config.hue, config.hue),
        "saturation": exp(rng.uniform((), -config.saturation, config.saturation)),
    }


def _sample_over_time(
    rng: Rng,
    probability: float,
    delta: float,
    config: ConfigDict,
    num_frames: int,
    transform=tf.identity,
) -> tf.Tensor:
    """transform(U(+-delta)) at key frames, interpolated; transform(0) if not applied."""
    keys = key_frames.sample_key_frames(rng, num_frames, config.key_frames)
    values = transform(rng.uniform([len(config.key_frames) + 1], -delta, delta))
    values = key_frames.share_merged(values, keys)
    values = key_frames.interpolate(values, keys, num_frames, rng, config.interpolation)
    apply = rng.bernoulli([], probability)[..., None]
    return tf.where(apply, values, transform(tf.zeros_like(values)))
