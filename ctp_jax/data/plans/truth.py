"""Trajectories to follow that come from annotations, or from nowhere yet.

What a clip's boxes come from is its source: 'preset', the game's own trajectories, whose
patches are pasted; 'real' and 'teacher', boxes of the data set; 'cycle', a first box
alone, whose trajectory the network makes (paper Table 1). Only the first has patches.

Symbols: b videos, m annotated objects, n trajectories, t frames, s side of the clip.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ctp_jax.data.batch import Batch
from ctp_jax.data.following import differ, visible_boxes
from ctp_jax.data.plans import SOURCES
from ctp_jax.data.rng import Rng


def choose_truth(
    rng: Rng,
    game: Mapping[str, tf.Tensor],
    batch: Batch,
    sources: Sequence[str],
    follow: Sequence[str],
    size: int,
) -> dict[str, Any]:
    """The plan of a batch whose clips have several sources.

    Args:
        rng: numbers of the examples.
        game: from `trajectories.sample_game`, for all clips.
        batch: with `followed` and the `annotations` that are followed, one clip per video.
        sources: of the entries of `ClipSpec.follow`.
        follow: the entries.
        size: s.

    Returns:
        game, with no patch visible but in clips of the source 'preset'; and
        truth, float32 (b, n, t, 4): the boxes to follow, finite.
        weights, float32 (b, n, t): 1 for boxes that are known, else 0. In clips of the
            source 'cycle', only the first ones are.
        origin, int32 (b,): the number of the source of the clip in `SOURCES`.
    """
    truth, count = game["boxes"], game["boxes"].shape[1]
    entry, chosen = tf.unstack(batch["followed"][:, 0], axis=-1)

    def rows(entries: Sequence[bool]) -> tf.Tensor:
        return tf.gather(tf.constant(entries), entry)[:, None, None]

    first = tf.cast(tf.range(truth.shape[2]) == 0, tf.float32)
    cycle = rows([source == "cycle" for source in sources])
    weights = tf.where(cycle, first, tf.ones_like(truth[..., 0]))
    for name in sorted(set(follow) - {""}):
        here = rows([each == name for each in follow])
        boxes, known = annotated(rng, batch, name, chosen, count, size)
        truth = tf.where(here[..., None], boxes, truth)
        weights = tf.where(here, known, weights)
    shown = game["visible"] & rows([source == "preset" for source in sources])
    origin = tf.gather([SOURCES.index(each) for each in sources], entry)
    more = {"truth": truth, "weights": weights, "origin": origin}
    return {**game, "visible": shown, **more}


def annotated(
    rng: Rng, batch: Batch, name: str, chosen: tf.Tensor, count: int, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The trajectories of annotated objects in pixels of the clip.

    The first is the object that the clip follows, if any of it can be seen in the first
    frame. The others are drawn from those whose first box is visible and inside the clip.
    Boxes are not cut: what leaves the clip keeps its centre and its size. A box counts
    if it is visible, some of it is inside the clip and its frame is not one that is
    repeated at the end of a short video.

    Args:
        rng: numbers of the examples.
        batch: see `choose_truth`.
        name: a key of `ctp_jax.data.batch.VISIBILITY`.
        chosen: int32 (b,), number of the object that each clip follows; -1: none.
        count: n.
        size: s.

    Returns:
        boxes float32 (b, n, t, 4), the first one where one does not count, and weights
        float32 (b, n, t). A trajectory that is missing has weights 0.
    """
    boxes, visible = visible_boxes(batch["annotations"], name)
    boxes = tf.transpose(boxes[:, 0], [0, 2, 1, 3])  # (b, m, t, 4)
    visible = tf.transpose(visible[:, 0], [0, 2, 1])
    low, high = boxes[..., :2], boxes[..., 2:]
    times = batch["times"][:, 0]
    new = tf.concat([tf.ones_like(times[:, :1], tf.bool), differ(times)], axis=-1)
    reaches = tf.reduce_all((high > 0.0) & (low < float(size)), axis=-1)
    counts = visible & reaches & new[:, None]
    inside = tf.reduce_all(
        (boxes[:, :, 0] >= -EDGE) & (boxes[:, :, 0] <= size + EDGE), axis=-1
    )
    objects = tf.range(boxes.shape[1])
    is_chosen = objects == chosen[:, None]
    usable = counts[:, :, 0] & (inside | is_chosen)
    # The chosen one first, then the others in random order, then those without use.
    rank = rng.unit([boxes.shape[1]]) - 2.0 * tf.cast(is_chosen, tf.float32)
    rank = tf.where(usable, rank, 2.0)
    order = tf.argsort(rank, axis=-1, stable=True)[:, :count]
    boxes = tf.gather(boxes, order, batch_dims=1)
    weights = tf.gather(counts & usable[..., None], order, batch_dims=1)
    missing = [[0, 0], [0, count - order.shape[1]], [0, 0]]
    boxes, weights = tf.pad(boxes, [*missing, [0, 0]]), tf.pad(weights, missing)
    middle = tf.constant([0.25, 0.25, 0.75, 0.75]) * size
    first = tf.where(weights[:, :, :1, None], boxes[:, :, :1], middle)
    boxes = tf.where(weights[..., None], boxes, first)
    return boxes, tf.cast(weights, tf.float32)


EDGE = 0.01
"""Pixels that a box may reach over the edge of a clip and still be inside: rounding."""
