"""2-D convolution of the frames of clips on CPUs, with gradients of its own.

XLA's convolution is fast on a CPU where strides are 1 and a row of pixels is long; its
gradient of the kernel and its input gradient of strided convolutions are not. Here
they are matrix products instead. `ctp_jax.models.taps` makes 3-D convolutions of it.

Symbols in shapes: b clips, t frames, h w pixels, c channels in, n features out. Kernels
are (kh, kw, c, n); strides and paddings are pairs, of height and width. Nothing is cut or
put together across clips, which may be split over devices. How fast each part is:
benchmarks/conv3d.py and docs/performance.md.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]

# XLA shares out one convolution among cores by the pixels of a row times the features,
# about so many of these numbers to a core. Enough for a few cores.
_ROW_SHARE, _ROW_SHARES = 4096, 8
# Numbers that the kernel's gradient gathers at once, about what caches hold; but never
# less than one frame of every clip.
_AT_ONCE = 5 << 19


def precision(x: Array) -> lax.Precision | None:
    """float32 means float32: without this it is TF32 on GPUs and bfloat16 on TPUs."""
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kh kw c n"],
    strides: Pair,
    padding: Pair,
) -> Float[Array, "b t h_out w_out n"]:
    """Cross-correlation of every frame, as `torch.nn.Conv2d`. No forward-mode derivative.

    Args:
        x: clips.
        kernel: weights, of the dtype of the clips.
        strides: of height and width.
        padding: zeros added on both sides of height and width.
    """
    return _forward(x, kernel, strides, padding)


def _forward(x, kernel, strides, padding, kernel_axes="HWIO"):
    """`convolve`; kernel axes 'HWOI' are of a kernel (kh, kw, n, c)."""
    clips, frames, _, width, _ = x.shape
    size, features = kernel.shape[:2], kernel.shape[kernel_axes.index("O")]
    if size == (1, 1) and padding == (0, 0):
        matrix = kernel[0, 0] if kernel_axes == "HWIO" else kernel[0, 0].T
        x = x[:, :, :: strides[0], :: strides[1]]
        return jnp.matmul(x, matrix, precision=precision(x))
    beside = 1
    if strides == (1, 1) and 2 * padding[1] + 1 == size[1]:
        wanted = _ROW_SHARES * _ROW_SHARE / (width * features)
        while beside < wanted and frames % (2 * beside) == 0:
            beside *= 2
    if beside > 1:
        x = _put_side_by_side(x, beside, padding[1])
    y = lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=("NHWC", kernel_axes, "NHWC"),
        precision=precision(x),
    )
    y = y.reshape(clips, -1, *y.shape[1:])
    return y if beside == 1 else _take_apart(y, beside, padding[1])


def _put_side_by_side(x, count, gap):
    """(b, t, h, w, c) to (b, t / count, h, count (w + gap), c), zeros in the gaps."""
    clips, frames, height, width, channels = x.shape
    x = x.reshape(clips, -1, count, height, width, channels)
    x = jnp.moveaxis(jnp.pad(x, [(0, 0)] * 4 + [(0, gap), (0, 0)]), 2, 3)
    return x.reshape(clips, frames // count, height, -1, channels)


def _take_apart(x, count, gap):
    """The inverse of `_put_side_by_side`."""
    clips, frames, height, width, channels = x.shape
    x = x.reshape(clips, frames, height, count, width // count, channels)
    x = jnp.moveaxis(x[:, :, :, :, : width // count - gap], 3, 2)
    return x.reshape(clips, frames * count, height, -1, channels)


def _save(x, kernel, strides, padding):
    return _forward(x, kernel, strides, padding), (x, kernel)


def _gradients(strides, padding, saved, cotangent):
    x, kernel = saved
    if strides == (1, 1):
        margin = tuple(k - 1 - p for k, p in zip(kernel.shape[:2], padding))
        flipped = lax.rev(kernel, (0, 1))
        x_gradient = _forward(cotangent, flipped, strides, margin, "HWOI")
    else:
        x_gradient = _strided_input_gradient(
            x.shape, kernel, cotangent, strides, padding
        )
    return x_gradient, _kernel_gradient(x, kernel, cotangent, strides, padding)


convolve.defvjp(_save, _gradients)


def _strided_input_gradient(shape, kernel, cotangent, strides, padding):
    """One product with the kernel; then each phase of the stride sums its own taps."""
    *clips, height, width, channels = shape
    size, features = kernel.shape[:2], kernel.shape[-1]
    dtype = cotangent.dtype
    # Sums in float32: those of bfloat16 would be rounded once per tap.
    cotangent, kernel = (a.astype(jnp.float32) for a in (cotangent, kernel))
    columns = jnp.matmul(
        cotangent, kernel.reshape(-1, features).T, precision=precision(kernel)
    )
    columns = columns.reshape(*cotangent.shape[:4], *size, channels)
    # Padded pixel stride * block + phase gets tap i of output block - (i - phase) / stride.
    blocks = [
        -(-(pixels + p) // s) for pixels, p, s in zip((height, width), padding, strides)
    ]

    def phase(row, column):
        total = jnp.zeros((*clips, *blocks, channels), cotangent.dtype)
        for i in range(row, size[0], strides[0]):
            for j in range(column, size[1], strides[1]):
                before = (i // strides[0], j // strides[1])
                edges = [
                    (b, n - b - out, 0)
                    for b, n, out in zip(before, blocks, cotangent.shape[2:4])
                ]
                zero = jnp.zeros((), columns.dtype)
                edges = [*[(0, 0, 0)] * 2, *edges, (0, 0, 0)]
                total += lax.pad(columns[..., i, j, :], zero, edges)
        return total

    phases = [
        jnp.stack([phase(row, column) for column in range(strides[1])], 4)
        for row in range(strides[0])
    ]
    x = jnp.stack(phases, 3).reshape(
        *clips, blocks[0] * strides[0], blocks[1] * strides[1], channels
    )
    x = x[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    return x.astype(dtype)


def _kernel_gradient(x, kernel, cotangent, strides, padding):
    """Gathered taps times cotangents."""
    if (*kernel.shape[:2], *padding) == (1, 1, 0, 0):
        x, strides = x[:, :, :: strides[0], :: strides[1]], (1, 1)
    x = jnp.pad(x, [*[(0, 0)] * 2, *[(p, p) for p in padding], (0, 0)])
    if strides == (1, 1):
        gradient = _unit_stride_kernel_gradient(x, cotangent, kernel.shape)
    else:
        gradient = _strided_kernel_gradient(x, cotangent, kernel.shape, strides)
    return gradient.astype(kernel.dtype)


def _unit_stride_kernel_gradient(x, cotangent, shape):
    """Taps along the width are gathered from the input, those along the height from
    the cotangents: a third less is copied than for all taps of the input."""
    kh, kw, channels, features = shape
    rows, width = x.shape[2], cotangent.shape[3]
    edges = [*[(0, 0)] * 2, (kh - 1, kh - 1), *[(0, 0)] * 2]

    def gather(x, cotangent):
        columns = [x[..., j : j + width, :] for j in range(kw)]
        # Row r of tap i is what output row r - i got.
        taps = [cotangent[:, :, i : i + rows] for i in reversed(range(kh))]
        return jnp.concatenate(columns, axis=-1), jnp.concatenate(taps, axis=-1)

    total = sum_of_products(x, jnp.pad(cotangent, edges), gather)
    return total.reshape(kw, channels, kh, features).transpose(2, 0, 1, 3)


def _strided_kernel_gradient(x, cotangent, shape, strides):
    """All taps are gathered from the input."""
    stops = [(n - 1) * s + 1 for n, s in zip(cotangent.shape[2:4], strides)]

    def gather(x, cotangent):
        seen = [
            x[:, :, i : i + stops[0] : strides[0], j : j + stops[1] : strides[1]]
            for i in range(shape[0])
            for j in range(shape[1])
        ]
        return jnp.concatenate(seen, axis=-1), cotangent

    return sum_of_products(x, cotangent, gather).reshape(shape)


def sum_of_products(x, cotangent, gather=lambda *clips: clips):
    """Sum over clips, frames and pixels of the products of what `gather` makes of both.

    A few frames of all clips after the other, in float32.
    """
    frames = x.shape[1]
    sides = jax.eval_shape(gather, x[:, :1], cotangent[:, :1])
    left, right = (side.shape[-1] for side in sides)
    count, most = 1, _AT_ONCE // sum(side.size for side in sides)
    while 2 * count <= most and frames % (2 * count) == 0:
        count *= 2
    # XLA transposes the first operand, slowly: let it be the one with fewer channels.
    order = -1 if left > right else 1

    def add(total, start):
        some = (lax.dynamic_slice_in_dim(a, start, count, 1) for a in (x, cotangent))
        # Not preferred_element_type: XLA's CPU has no such product of bfloat16.
        pair = (side.astype(jnp.float32) for side in gather(*some)[::order])
        product = jnp.einsum("bthwp,bthwq->pq", *pair, precision=lax.Precision.HIGHEST)
        return total + product, None

    total = jnp.zeros((left, right)[::order], jnp.float32)
    total, _ = lax.scan(add, total, jnp.arange(0, frames, count))
    return total if order == 1 else total.T
