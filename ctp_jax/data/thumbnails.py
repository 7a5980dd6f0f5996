"""One frame of a video, to show which video it is."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ctp_jax.data.records import Records, read_features
from ctp_jax.errors import UserError


def middle_frames(
    records: Records, numbers: Sequence[int] | Int[np.ndarray, " n"]
) -> list[np.ndarray]:
    """The middle frame of each record, uint8 (h, w, 3), as it is stored.

    Args:
        records: a split.
        numbers: record numbers in it.

    Raises:
        UserError: a record cannot be read.
    """
    import tensorflow as tf

    read = read_features(records)
    pictures = []
    with tf.device("/CPU:0"):
        for number in numbers:
            try:
                frames = read(tf.constant(int(number), tf.int64))["frames"]
                middle = frames[len(frames) // 2]
                image = tf.io.decode_image(middle, channels=3, expand_animations=False)
            # TensorFlow may quote the broken bytes, which are then no text.
            except (tf.errors.OpError, UnicodeDecodeError) as error:
                raise UserError(
                    f"{records.directory}: video {records.id_of(int(number))} cannot be "
                    "read; was the data set changed or damaged? prepare it again"
                ) from error
            pictures.append(image.numpy())
    return pictures
