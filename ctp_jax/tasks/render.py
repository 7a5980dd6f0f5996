"""Draws the clips of a batch on the device, from decoded frames.

The host samples every random decision, see `ctp_jax.data`; these functions carry them
out. Symbols: b videos, c clips per video, t frames, s side of the drawn clip.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctp_jax import flow
from ctp_jax.data.batch import PER_CLIP, Batch
from ctp_jax.ops import resample


def crop_clips(batch: Batch, size: int) -> Float[Array, "b c t s s 3"]:
    """Crops, resizes and mirrors every clip of the batch; grey levels [0, 255].

    In a mirrored clip of optical flow, what moved to the right moves to the left.
    """
    clips = resample.crop_resize_flip(
        batch["frames"], batch["window"], batch["extent"], batch["flip"], size
    )
    if "flow" not in batch:
        return clips
    reversed_ = (batch["flow"] & batch["flip"])[..., None, None, None]
    right = clips[..., 0]
    return clips.at[..., 0].set(jnp.where(reversed_, 2 * flow.ZERO - right, right))


def map_clips(
    function: Callable[[Batch], jax.Array], batch: Batch
) -> Float[Array, "b c *d"]:
    """Applies a function to one clip of every video after the other.

    Ten clips per video then need no more memory than one.

    Args:
        function: takes a batch with c = 1 and returns (b, *d).
        batch: with any number of clips.
    """
    # The loop is over the first axis, so that of the clips goes there. The axis of the
    # videos stays whole and may be split over devices.
    parts = {
        name: jnp.moveaxis(batch[name], 1, 0)[:, :, None]
        for name in PER_CLIP
        if name in batch
    }
    return jnp.moveaxis(
        jax.lax.map(lambda part: function({**batch, **part}), parts), 0, 1
    )
