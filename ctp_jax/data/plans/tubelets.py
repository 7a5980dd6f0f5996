"""Tubelets: patches on smooth random paths that rotate and shear.

Thoker et al., "Tubelet-Contrastive Self-Supervision for Video-Efficient Generalization",
ICCV 2023; the numbers and the order of operations are those of its release. Sizes,
outlines and opacity are those of `trajectories`; `ctp_jax.ops.tubelets` draws.

Symbols: l leading dimensions of the random numbers, n tubelets, t frames, p points.
"""

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from ctp_jax.data.plans import key_frames, trajectories
from ctp_jax.data.rng import Rng

TRUNCATE = 4.0
"""Standard deviations after which the Gaussian filter ends."""


def sample_tubelets(
    rng: Rng, config: ConfigDict, num_frames: int, size: int
) -> dict[str, tf.Tensor]:
    """Everything about the tubelets of a pair of clips.

    Args:
        rng: numbers of the examples.
        config: `config.game`.
        num_frames: t.
        size: side of the clips in pixels.

    Returns:
        The fields of `ops.paste.Patches`, see `trajectories.sample_game`; and
        degrees, float32 (*l, n, t): clockwise rotation, whole numbers, 0 in frame 0.
        shear, float32 (*l, n, t, 2): of x by y, and of y by x.
    """
    _, extent = trajectories.sample_first_boxes(rng, config, size)
    centres = sample_paths(rng, config, num_frames, size)
    boxes = trajectories.sample_boxes(rng, config, centres, extent, size)
    start = tf.zeros_like(extent[..., :1])
    degrees = _sample_change(rng, config, start, config.rotation, num_frames)
    shear = [
        _sample_change(rng, config, start, config.shear, num_frames) for _ in range(2)
    ]
    # One kind for all tubelets: along x, along y, both.
    kind = rng.category((), (1 / 3, 1 / 3, 1 / 3))
    along = tf.gather([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], kind)
    return {
        **trajectories.sample_patches(rng, config, boxes),
        "degrees": tf.cast(tf.cast(degrees, tf.int32), tf.float32),
        "shear": tf.stack(shear, axis=-1) * along[..., None, None, :],
    }


def sample_paths(rng: Rng, config: ConfigDict, num_frames: int, size: int) -> tf.Tensor:
    """Centres over time, whole pixels, float32 (*l, t, n, 2), x before y.

    Random points are smoothed by a Gaussian filter. Along each axis they are stretched
    over the same random number of pixels, the upper one of `config.reach` excluded, which
    are put anywhere in the clip; t of the points, evenly spread, are the centres. Where the
    random points lie does not matter.
    """
    count = config.num_trajectories
    least, most = (round(share * size) for share in config.reach)
    numbers = tf.cast(rng.unit([count, 2, config.points]), tf.float64)
    # In float64, as `ctp_jax.data.rng.exp`: the sums of the filter may be in any order.
    smooth = tf.constant(gaussian_filter(config.points, config.smoothness))
    path = tf.linalg.matvec(smooth, numbers)  # (*l, n, 2, p)
    path -= tf.reduce_min(path, axis=-1, keepdims=True)
    path = tf.math.divide_no_nan(path, tf.reduce_max(path, axis=-1, keepdims=True))
    chosen = np.linspace(0, config.points - 1, num_frames).round().astype(np.int32)
    reach = least + rng.integer([count, 1], max(most - least, 1))
    corner = rng.integer([count, 2], tf.maximum(size - reach, 1))
    reach, corner = (tf.cast(each[..., None], tf.float64) for each in (reach, corner))
    path = tf.floor(tf.gather(path, chosen, axis=-1) * reach + corner)
    axis = len(rng.lead)
    order = [*range(axis), axis + 2, axis, axis + 1]
    return tf.cast(tf.transpose(path, order), tf.float32)


def gaussian_filter(points: int, sigma: float) -> np.ndarray:
    """The matrix (p, p) of a Gaussian filter, float64, rows sum to 1.

    At the ends the points are reflected, the last one repeated: d c b a | a b c d.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    where = (np.arange(points)[:, None] + steps) % (2 * points)
    where = np.minimum(where, 2 * points - 1 - where)
    matrix = np.zeros((points, points))
    np.add.at(matrix, (np.arange(points)[:, None], where), weights / weights.sum())
    return matrix


def _sample_change(rng, config, start, speed, num_frames):
    """A random walk from `start` (*l, n, 1) within `speed` per frame, (*l, n, t)."""
    keys = key_frames.sample_key_frames(rng, num_frames, config.key_frames)
    values = trajectories.walk(rng, keys, start, speed)
    values = key_frames.interpolate(values, keys, num_frames, rng, config.interpolation)
    axis = len(rng.lead)
    return tf.transpose(values[..., 0], [*range(axis), axis + 1, axis])
