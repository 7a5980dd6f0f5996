"""A batch of one video that is in no data set."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ctp_jax.data import clips
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.data.pipeline import PlanFunction
from ctp_jax.data.rng import Rng

_NUMBERS = 1 << 16
"""More random numbers than any task takes for one video."""


def make_batch(
    read: Callable[[Callable[[int], np.ndarray]], np.ndarray],
    spec: ClipSpec,
    plan: PlanFunction,
) -> Batch:
    """What `ctp_jax.data.pipeline` would make of a record; always the same.

    Args:
        read: is given a function that chooses frames, of how many there are, int (c, t),
            and returns them, uint8 (c, t, h, w, 3).
        spec: which clips to cut; their windows are not cut out of the frames here.
        plan: as for the pipeline.
    """
    chosen: dict[str, Any] = {}

    def choose(count: int) -> np.ndarray:
        chosen["rng"] = Rng(tf.random.stateless_uniform([_NUMBERS], (0, 0)))
        sampled = clips.sample_times(chosen["rng"], tf.constant(count), spec)
        chosen["times"], chosen["choice"] = sampled
        return chosen["times"].numpy()

    with tf.device("/CPU:0"):
        frames = read(choose)
        size = frames.shape[2:4]
        height, width = map(tf.constant, size)
        window, flip = clips.sample_window(chosen["rng"], height, width, spec)
        batch: dict[str, Any] = {
            "frames": frames,
            "extent": np.tile(np.array(size, np.float32), (spec.num_clips, 1)),
            "window": window,
            "flip": flip,
            "times": chosen["times"],
            "choice": chosen["choice"],
            "label": np.int32(-1),
            "index": np.int32(0),
            "mask": np.float32(1),
            "replaced": np.float32(0),
        }
        batch = {name: np.asarray(value)[None] for name, value in batch.items()}
        batch["annotations"] = {}
        planned = plan(Rng(tf.random.stateless_uniform([1, _NUMBERS], (0, 1))), batch)
        return batch | {"plan": {name: np.asarray(planned[name]) for name in planned}}
