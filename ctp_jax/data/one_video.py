"""A batch of one video that is in no data set, from its encoded frames."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from ctp_jax.data import clips
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.data.pipeline import PlanFunction
from ctp_jax.data.rng import Rng

_NUMBERS = 1 << 16
"""More random numbers than any task takes for one video."""


def make_batch(frames: Sequence[bytes], spec: ClipSpec, plan: PlanFunction) -> Batch:
    """What `ctp_jax.data.pipeline` would make of a record; always the same.

    Args:
        frames: encoded images, of one size.
        spec: which clips to cut; their windows are not cut out of the frames here.
        plan: as for the pipeline.
    """
    images = {}
    with tf.device("/CPU:0"):
        numbers = Rng(tf.random.stateless_uniform([_NUMBERS], (0, 0)))
        times, choice = clips.sample_times(numbers, tf.constant(len(frames)), spec)
        for time in np.unique(times):
            with Image.open(io.BytesIO(frames[time])) as image:
                images[time] = np.asarray(image.convert("RGB"))
        size = next(iter(images.values())).shape[:2]
        height, width = map(tf.constant, size)
        window, flip = clips.sample_window(numbers, height, width, spec)
        batch: dict[str, Any] = {
            "frames": np.array(
                [[images[time] for time in row] for row in times.numpy()]
            ),
            "extent": np.tile(np.float32(size), (spec.num_clips, 1)),
            "window": window,
            "flip": flip,
            "times": times,
            "choice": choice,
            "label": np.int32(-1),
            "index": np.int32(0),
            "mask": np.float32(1),
            "replaced": np.float32(0),
        }
        batch = {name: np.asarray(value)[None] for name, value in batch.items()}
        batch["annotations"] = {}
        planned = plan(Rng(tf.random.stateless_uniform([1, _NUMBERS], (0, 1))), batch)
        return batch | {"plan": {name: np.asarray(planned[name]) for name in planned}}
