"""Samples clips that begin where an annotated object is visible, and show it.

All candidates of a video, pairs of a start and an object, are looked at in a few array
operations, so that none is ever rejected.
Symbols: c clips per video, t frames per clip, k frames of the video, n objects, the most
of all annotations that are followed, s starts to choose from.
"""

from collections.abc import Mapping

import tensorflow as tf

from ctp_jax.data import clips
from ctp_jax.data.batch import VISIBILITY, ClipSpec
from ctp_jax.data.rng import Rng


def sample_clips(
    rng: Rng,
    position: tf.Tensor,
    annotations: Mapping[str, tf.Tensor],
    num_frames: tf.Tensor,
    frame_size: tuple[tf.Tensor, tf.Tensor],
    spec: ClipSpec,
    part: tf.Tensor | int = 0,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Samples which frames of a video its clips show, and which window.

    Args:
        frame_size: height and width of the stored frames, int32 scalars.
        rng, position, annotations, num_frames, spec, part: see `sample_followed`.

    Returns:
        `times`, `choice`, `flip` and with `spec.follow` also `followed`, as in a batch;
        and the window in stored pixels, see `clips.sample_window`.
    """
    followed, hold = {}, None
    if spec.follow:
        times, choice, followed["followed"], hold = sample_followed(
            rng, position, annotations, num_frames, spec, part
        )
    else:
        times, choice = clips.sample_times(rng, num_frames, spec, part)
    window, flip = clips.sample_window(rng, *frame_size, spec, hold)
    return {"times": times, "choice": choice, "flip": flip, **followed}, window


def sample_followed(
    rng: Rng,
    position: tf.Tensor,
    annotations: Mapping[str, tf.Tensor],
    num_frames: tf.Tensor,
    spec: ClipSpec,
    part: tf.Tensor | int = 0,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Samples frames and an object for every clip of a video, with `spec.follow`.

    Each clip by itself, its stride first. A start and an object are a pair if the object
    is visible in the clip's first frame. Pairs with the object visible in all frames
    count, or if there are none, those with the most. Of the objects in these pairs
    each is equally probable, and then each of its starts.

    Args:
        rng: numbers for this video.
        position: of the video in the run, int64 scalar.
        annotations: of the video, see `VISIBILITY`, float32 (k, ...).
        num_frames: k, int32 scalar.
        spec: see `ClipSpec`.
        part: see `window` of `clips.sample_times`.

    Returns:
        times, int32 (c, t).
        choice, int32 (c,), see `clips.sample_times`.
        followed, int32 (c, 2), see `ctp_jax.data.batch.Batch`. Where no object is ever
            visible, the clip starts anywhere.
        hold, float32 (c, 2, 4), in stored pixels: the object's first box in the clip, and
            the smallest box around all that are visible; without an object, infinite
            ones that every window holds.
    """
    entry = tf.cast(position % len(spec.follow), tf.int32)
    boxes, visible = _objects(annotations, entry, num_frames, spec)
    times, choice, possible = _candidates(rng, num_frames, spec, part)  # (c, s, t)
    seen = tf.gather(visible, times)  # (c, s, t, n)
    # A frame that is repeated, at the end of a short video, shows nothing new.
    new = tf.concat([tf.ones_like(times[..., :1], tf.bool), differ(times)], axis=-1)
    count = tf.reduce_sum(tf.cast(seen & new[..., None], tf.int32), axis=2)
    count = tf.where(seen[:, :, 0] & possible[..., None], count, 0)  # (c, s, n)
    most = tf.reduce_max(count, axis=[1, 2], keepdims=True)
    pairs = (count == most) & (most > 0)
    chosen = _pick(rng, tf.reduce_any(pairs, axis=1))  # (c,)
    found = most[:, 0, 0] > 0
    starts = tf.gather(pairs, chosen, axis=2, batch_dims=1)  # (c, s)
    start = _pick(rng, tf.where(found[:, None], starts, possible))
    times = tf.gather(times, start, batch_dims=1)
    kept = tf.gather(visible, times)  # (c, t, n)
    kept = tf.gather(kept, chosen, axis=2, batch_dims=1)[..., None]
    of_clip = tf.gather(tf.gather(boxes, times), chosen, axis=2, batch_dims=1)
    of_clip = tf.where(kept, of_clip, _NOWHERE)  # (c, t, 4)
    around = tf.concat(
        [
            tf.reduce_min(of_clip[..., :2], axis=1),
            tf.reduce_max(of_clip[..., 2:], axis=1),
        ],
        axis=-1,
    )
    names = tf.constant([bool(name) for name in spec.follow])
    chosen = tf.where(found & names[entry], chosen, -1)
    followed = tf.stack([tf.fill([spec.num_clips], entry), chosen], axis=-1)
    return times, choice, followed, tf.stack([of_clip[:, 0], around], axis=1)


_NOWHERE = (float("inf"), float("inf"), float("-inf"), float("-inf"))
"""A box that is inside every other one, and leaves every other one as it is."""


def visible_boxes(annotations: Mapping[str, tf.Tensor], name: str) -> tuple:
    """Boxes float32 (..., n, 4), and bool (..., n), which of them can be trusted.

    Args:
        annotations: float32, leading dimensions (k,), or (b, c, t) in a batch.
        name: a key of `VISIBILITY`.
    """
    boxes = annotations[name]
    seen = annotations.get(VISIBILITY[name])
    if boxes.shape.rank in (2, 4):  # (k, 4), (b, c, t, 4)
        boxes = boxes[..., None, :]
    # Also false for NaN.
    visible = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    return boxes, visible if seen is None else visible & (seen > 0)


def differ(times: tf.Tensor) -> tf.Tensor:
    """Whether each frame is another than the one before, bool (..., t - 1)."""
    return times[..., 1:] != times[..., :-1]


def _objects(
    annotations: Mapping[str, tf.Tensor],
    entry: tf.Tensor,
    num_frames: tf.Tensor,
    spec: ClipSpec,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The boxes that an entry of `spec.follow` means, (k, n, 4), and bool (k, n).

    For the entry '' there is one object that is nowhere and always visible.
    """
    names = sorted(set(spec.follow))
    found = []
    for name in names:
        if name:
            found.append(visible_boxes(annotations, name))
        else:
            nowhere = tf.tile(tf.constant(_NOWHERE)[None, None], [num_frames, 1, 1])
            found.append((nowhere, tf.ones([num_frames, 1], tf.bool)))
    count = max(int(visible.shape[1]) for _, visible in found)
    padded = []
    for boxes, visible in found:
        missing = [[0, 0], [0, count - visible.shape[1]]]
        padded.append((tf.pad(boxes, [*missing, [0, 0]]), tf.pad(visible, missing)))
    number = tf.constant([names.index(name) for name in spec.follow])[entry]
    boxes, visible = (tf.stack(each)[number] for each in zip(*padded, strict=True))
    return boxes, visible


def _candidates(
    rng: Rng, num_frames: tf.Tensor, spec: ClipSpec, part: tf.Tensor | int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Times to choose from, int32 (c, s, t), choice (c,), and which are possible (c, s)."""
    if spec.frame_numbers is not None or spec.sampling != "random":
        times, choice = clips.sample_times(rng, num_frames, spec, part)
        return times[:, None], choice, tf.ones([spec.num_clips, 1], tf.bool)
    choice = rng.integer([spec.num_clips], len(spec.strides))
    span = clips.spanned(choice, spec)
    starts = tf.tile(tf.range(num_frames)[None], [spec.num_clips, 1])
    times = clips.frame_numbers(rng, starts, choice, num_frames, spec)
    return times, choice, starts <= tf.maximum(num_frames - span, 0)[:, None]


def _pick(rng: Rng, among: tf.Tensor) -> tf.Tensor:
    """The index of one of the true values in each row of bool (c, m), uniformly; else 0."""
    number = tf.cumsum(tf.cast(among, tf.int32), axis=-1)
    rank = rng.integer([among.shape[0]], tf.maximum(number[:, -1], 1))
    here = among & (number == rank[:, None] + 1)
    return tf.argmax(tf.cast(here, tf.int32), axis=-1, output_type=tf.int32)
