"""3-D convolution, and the choice of an implementation.

Activations are (b, t, h, w, c), kernels (t, h, w, in, out).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctp_jax import ranges
from ctp_jax.errors import UserError
from ctp_jax.models.conv import (
    direct,
    few_channels,
    few_frames,
    onednn,
    space_to_depth,
    temporal,
)
from ctp_jax.models.conv.temporal import Triple


def conv3d(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kt kh kw c n"],
    strides: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    impl: str = "auto",
) -> Float[Array, "b t_out h_out w_out n"]:
    """Cross-correlation over time, height and width, as in `torch.nn.Conv3d`.

    Args:
        x: input, of the dtype of the kernel.
        kernel: weights.
        strides: of time, height and width.
        padding: zeros added on both sides of time, height and width.
        impl: one of

            - 'direct': XLA's 3-D convolution. On CPUs, the only implementation with a
              forward-mode derivative.
            - 'folded': as 'direct', except that inputs of few channels go through
              `ctp_jax.models.conv.space_to_depth`, and clips of fewer frames than taps
              through `ctp_jax.models.conv.few_frames`.
            - 'onednn': as 'direct', with some gradients of ours, for an XLA that calls
              oneDNN (`ctp_jax.models.conv.onednn`).
            - 'taps': a sum of 2-D convolutions, one per temporal tap
              (`ctp_jax.models.conv.temporal`), or few frames as in 'folded'.
            - 'winograd': as 'taps', with fewer products where the temporal stride is 1.
            - 'auto': if the default backend is a CPU, 'onednn' where XLA calls that, and
              else 'winograd': XLA's own 3-D convolution is slow there, the gradients of
              strided ones most of all (benchmarks/conv3d.py). On GPUs 'direct', but few
              frames as in 'folded', since XLA has no fast gradient of their kernels
              there. On TPUs 'direct'.

            On CPUs, all that do not end as 'direct' get kernels' gradients of layers of few
            channels from `ctp_jax.models.conv.few_channels`.

    Returns:
        The output. Along each axis, its size is
        (size + 2 padding - kernel) // stride + 1.

    Raises:
        UserError: for an unknown `impl`, or clips that are smaller than the kernel.
    """
    ranges.check({"conv": impl}, "model.")
    sizes = zip(x.shape[1:4], kernel.shape[:3], padding, strict=True)
    if any(size + 2 * pad < width for size, width, pad in sizes):
        raise UserError(
            f"clips of {x.shape[1]} frames of {x.shape[3]}x{x.shape[2]} pixels are "
            f"smaller than a kernel of {kernel.shape[:3]} (time, height, width): larger "
            "ones in config.clip, or smaller strides in config.model"
        )
    few = few_frames.applies(x.shape[1], kernel.shape[0], strides[0], padding[0])
    impl = _choose(impl, kernel.shape, few)
    if impl == "direct":
        return direct.convolve(x, kernel, strides, padding)
    dtype, on_cpu = x.dtype, jax.default_backend() == "cpu"
    if on_cpu and dtype.itemsize < 4:
        # CPUs compute in float32 anyway. This way the result is rounded only once.
        x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    ways = {
        "folded": space_to_depth.convolve,
        "few frames": few_frames.convolve,
        "onednn": onednn.convolve,
        "taps": temporal.convolve,
        "winograd": functools.partial(temporal.convolve, winograd=True),
    }
    way = functools.partial(ways[impl], strides=strides, padding=padding)
    if on_cpu and few_channels.applies(x.shape, kernel.shape, strides):
        y = few_channels.convolve(x, kernel, padding, way)
    else:
        y = way(x, kernel)
    return y.astype(dtype)


def _choose(impl, kernel, few):
    """One of the implementations, or 'few frames'."""
    *size, channels, _ = kernel
    if impl == "auto":
        backend = jax.default_backend()
        if backend == "cpu":
            # Convolutions of a point are matrix products, which XLA has fast ones for.
            is_point = size == [1, 1, 1]
            return "winograd" if is_point or not onednn.is_called() else "onednn"
        return "few frames" if few and backend == "gpu" else "direct"
    if impl == "folded" and channels >= temporal.FEW_CHANNELS:
        return "few frames" if few else "direct"
    return impl
