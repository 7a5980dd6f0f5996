"""Several tries for one example, inside a graph, and what stands for it if all fail."""

from collections.abc import Callable

import tensorflow as tf

from ctp_jax.tasks.base import ClipSpec

TRIES = 2
"""Of an example's own record: trouble of the network that passes changes no batch."""

Example = dict[str, tf.Tensor]


def first_good(
    attempt: Callable[[tf.Tensor], Example], count: int, otherwise: Example | None
) -> Example:
    """The first of the attempts 0 .. count - 1 that succeeds.

    An op that fails, fails the whole graph; an element of a dataset that fails can be
    passed over. So the attempts are a dataset, of which one element is taken: a good
    record is read and decoded once. TensorFlow looks through the function of a dataset
    whenever one begins, here for each example: the calls without it are faster.

    Args:
        attempt: of an int64 scalar, its number.
        count: how many.
        otherwise: what to take if all fail; None to fail, too.
    """
    attempts = tf.data.Dataset.range(count)
    attempts = attempts.map(tf.autograph.experimental.do_not_convert(attempt))
    attempts = attempts.ignore_errors()
    if otherwise is not None:
        attempts = attempts.concatenate(tf.data.Dataset.from_tensors(otherwise))
    return attempts.take(1).get_single_element()


def blank(
    spec: ClipSpec, canvas: tuple[int, int], num_uniforms: int, boxes: bool
) -> Example:
    """What stands for an example that cannot be read: black, and masked.

    Args:
        spec: see `ClipSpec`.
        canvas: height and width of the frames, pixels.
        num_uniforms: how many random numbers it has for its plan.
        boxes: whether examples of this data set have boxes.
    """
    height, width = canvas
    shape = (spec.num_clips, spec.num_frames)
    size = tf.constant([height, width], tf.float32)
    whole = tf.concat([tf.zeros([2]), size], axis=0)
    example = {
        "frames": tf.zeros((*shape, height, width, 3), tf.uint8),
        "extent": tf.tile(size[None], [spec.num_clips, 1]),
        "window": tf.tile(whole[None], [spec.num_clips, 1]),
        "flip": tf.zeros((spec.num_clips,), tf.bool),
        "times": tf.zeros(shape, tf.int32),
        "label": tf.constant(-1),
        "index": tf.constant(0),
        "mask": tf.constant(0.0),
        "replaced": tf.constant(1.0),
        "attempt": tf.constant(TRIES, tf.int64),
        "uniforms": tf.zeros([num_uniforms]),
    }
    if boxes:
        example["boxes"] = tf.zeros((*shape, 4))
    return example
