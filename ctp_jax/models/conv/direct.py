"""XLA's own 3-D convolution: the choice on TPUs, and on GPUs but for few frames.

Symbols as in `ctp_jax.models.conv.temporal`.
"""

from jax import lax
from jaxtyping import Array, Float

from ctp_jax.models.conv.frames import Triple, precision


def convolve(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    strides: Triple,
    padding: Triple,
) -> Float[Array, "b t_out h_out w_out n"]:
    """3-D cross-correlation.

    Args:
        x: clips.
        kernel: weights, of the dtype of the clips.
        strides: of time, height and width.
        padding: zeros added on both sides of time, height and width.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision=precision(x),
    )
