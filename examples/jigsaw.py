r"""A pretext task of your own in one file: which quarter of the frame went where?

    python -m ctp_jax.prepare moving_shapes
    python -m ctp_jax.visualize --config=examples/jigsaw.py:small --train \
        --out=pictures
    python -m ctp_jax.main --config=examples/jigsaw.py:small --workdir=runs/jigsaw

The frames of a clip are cut into four quarters, which change places in one of 24 ways; the
network says in which (after Noroozi & Favaro, ECCV 2016, here on video and without gaps
between the quarters). docs/tasks.md describes the interface. Run it where `examples/` is.
"""

import itertools

import jax.numpy as jnp
import numpy as np

from configs import common, small
from ctp_jax.tasks import classification

ORDERS = np.array(list(itertools.permutations(range(4))))
"""(24, 4): the quarter that is shown at the top left, top right, bottom left, right."""


class Task(classification.Task):
    """Encoder, head, loss and predictions are those of the base class."""

    class_names = tuple("".join(map(str, order)) for order in ORDERS)

    def plan(self, rng, batch, train):
        # Everything random is decided on the host.
        return {"label": rng.integer((), len(ORDERS))}

    def draw(self, batch):
        # And drawn on the device.
        clips = super().draw(batch)  # (b, c, t, s, s, 3)
        b, c, t, s, _, k = clips.shape
        half = s // 2
        quarters = clips.reshape(b, c, t, 2, half, 2, half, k)
        quarters = jnp.moveaxis(quarters, 5, 4).reshape(b, c, t, 4, half, half, k)
        order = jnp.asarray(ORDERS)[batch["plan"]["label"]]  # (b, 4)
        order = order[:, None, None, :, None, None, None]
        moved = jnp.take_along_axis(quarters, order, axis=3)
        moved = moved.reshape(b, c, t, 2, 2, half, half, k)
        return jnp.moveaxis(moved, 4, 5).reshape(b, c, t, s, s, k)


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("examples.jigsaw", arg)
    del config.colour  # the task does not read it
    config.clip.flip = 0.0
    return small.finish_pretext(config, arg)
