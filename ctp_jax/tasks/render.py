"""From a batch of decoded windows and plans to clips: pixels, on the device.

The host decides, the device rng: these functions carry out what `ctp_jax.data`
planned. Symbols: b videos, c clips per video, t frames, s side of the drawn clip.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctp_jax.data.batch import Batch
from ctp_jax.ops import colour, paste, resample


def crop_clips(batch: Batch, size: int) -> Float[Array, "b c t s s 3"]:
    """Cuts, resizes and mirrors every clip of the batch; grey levels [0, 255]."""
    return resample.crop_resize_flip(
        batch["frames"], batch["window"], batch["extent"], batch["flip"], size
    )


def map_clips(
    predict: Callable[[jax.Array], jax.Array],
    batch: Batch,
    size: int,
) -> Float[Array, "b c *d"]:
    """Applies a function to the normalised clips, to one clip of every video at a time.

    So ten clips per video need the memory of one.
    """
    names = ("frames", "window", "extent", "flip")
    # The clips' axis to the front: the loop is over it, b stays split over devices.
    parts = {name: jnp.moveaxis(batch[name], 1, 0)[:, :, None] for name in names}

    def one(part):
        return predict(colour.normalize(crop_clips(part, size)[:, 0]))

    return jnp.moveaxis(jax.lax.map(one, parts), 0, 1)


def paste_patches(
    clips: Float[Array, "*b t s s 3"], plan: Mapping[str, Array]
) -> Float[Array, "*b t s s 3"]:
    """Pastes the patches that `ctp_jax.data.plans.trajectories.sample_game` planned."""
    fields = paste.Patches._fields
    return paste.paste(clips, paste.Patches(**{name: plan[name] for name in fields}))


def change_colours(
    clips: Float[Array, "*b t s s 3"], plan: Mapping[str, Array]
) -> Float[Array, "*b t s s 3"]:
    """Colours changed as `ctp_jax.data.plans.colour.sample_colour` planned."""
    clips = colour.adjust_hue_saturation(
        clips, plan["hue"], plan["saturation"], plan["hue_saturation"]
    )
    return colour.adjust_brightness_contrast(
        clips, plan["brightness"], plan["contrast"]
    )
