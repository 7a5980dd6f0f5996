"""From a batch of decoded windows to clips: pixels, on the device.

The host decides, the device draws: these functions carry out what `ctp_jax.data`
planned. Symbols: b videos, c clips per video, t frames, s side of the drawn clip.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctp_jax.data.batch import PER_CLIP, Batch
from ctp_jax.ops import resample


def crop_clips(batch: Batch, size: int) -> Float[Array, "b c t s s 3"]:
    """Cuts, resizes and mirrors every clip of the batch; grey levels [0, 255]."""
    return resample.crop_resize_flip(
        batch["frames"], batch["window"], batch["extent"], batch["flip"], size
    )


def map_clips(
    function: Callable[[Batch], jax.Array], batch: Batch
) -> Float[Array, "b c *d"]:
    """Applies a function of batches with one clip per video to every clip, in turn.

    So ten clips per video need the memory of one.

    Args:
        function: gives (b, *d) of a batch with c = 1.
        batch: with any number of clips.
    """
    # The clips' axis to the front: the loop is over it, b stays split over devices.
    parts = {
        name: jnp.moveaxis(batch[name], 1, 0)[:, :, None]
        for name in PER_CLIP
        if name in batch
    }
    return jnp.moveaxis(
        jax.lax.map(lambda part: function({**batch, **part}), parts), 0, 1
    )
