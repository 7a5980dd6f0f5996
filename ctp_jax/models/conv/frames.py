"""2-D convolution of the frames of clips, with gradients of its own on CPUs.

On a CPU, XLA's convolution is fast if the rows of pixels are long. Its gradient with
respect to the kernel is slow, and so is that with respect to the input of strided
convolutions. Here both are matrix products in float32. `ctp_jax.models.conv.temporal`
builds 3-D convolutions from these.

Symbols in shapes: b clips, t frames, h w pixels, c channels in, n features out. Kernels
are (kh, kw, c, n); strides and paddings are pairs, of height and width. No operation
splits or joins the axis of clips, which may be sharded over devices. Measurements:
benchmarks/conv3d.py and docs/performance.md.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]
Triple = tuple[int, int, int]

# XLA parallelises a convolution over the pixels of a row times the features, in shares
# of about _ROW_SHARE numbers. Rows are made long enough for _ROW_SHARES of them.
_ROW_SHARE, _ROW_SHARES = 4096, 8
AT_ONCE = 5 << 19
"""How many numbers the kernel's gradient gathers at once: about as many as caches hold, but
here never less than one frame of every clip."""
LARGE = 500
"""Pixels of a frame for which kernels' gradients are products of one frame at a time: in
smaller frames it was not faster, in those of 28x28 it was."""


def precision(x: Array) -> lax.Precision | None:
    """Full precision for float32, which else is TF32 on GPUs and bfloat16 on TPUs."""
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


def convolve(
    x: Float[Array, "b t h w c"],
    kernel: Float[Array, "kh kw c n"],
    strides: Pair,
    padding: Pair,
) -> Float[Array, "b t h_out w_out n"]:
    """Cross-correlation of every frame, as in `torch.nn.Conv2d`.

    If the default backend is a CPU, it has no forward-mode derivative.

    Args:
        x: clips; not in bfloat16 if the default backend is a CPU.
        kernel: weights, of the dtype of the clips.
        strides: of height and width.
        padding: zeros added on both sides of height and width.
    """
    if jax.default_backend() == "cpu":
        return _on_cpu(x, kernel, strides, padding)
    if _is_point(kernel.shape[:2], padding):
        return _by_product(x, kernel[0, 0], strides)
    return _by_xla(x, kernel, strides, [(p, p) for p in padding])


def _is_point(size, padding):
    return size == (1, 1) and padding == (0, 0)


def _by_product(x, matrix, strides):
    """A convolution of one pixel as a matrix product."""
    x = x[:, :, :: strides[0], :: strides[1]]
    return jnp.matmul(x, matrix, precision=precision(x))


def _by_xla(x, kernel, strides, edges, kernel_axes="HWIO"):
    """XLA's convolution; with `kernel_axes` 'HWOI' the kernel is (kh, kw, n, c)."""
    y = lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        kernel,
        strides,
        edges,
        dimension_numbers=("NHWC", kernel_axes, "NHWC"),
        precision=precision(x),
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _on_cpu(x, kernel, strides, padding):
    return _forward(x, kernel, strides, padding)


def _forward(x, kernel, strides, padding, kernel_axes="HWIO"):
    """XLA's convolution, of frames side by side if their rows are short."""
    size, features = kernel.shape[:2], kernel.shape[kernel_axes.index("O")]
    if _is_point(size, padding):
        matrix = kernel[0, 0] if kernel_axes == "HWIO" else kernel[0, 0].T
        return _by_product(x, matrix, strides)
    frames, width = x.shape[1], x.shape[3]
    stride, pad = strides[1], padding[1]
    out = (width + 2 * pad - size[1]) // stride + 1
    count, wanted = 1, _ROW_SHARES * _ROW_SHARE / (out * features)
    while count < wanted and frames % (2 * count) == 0:
        count *= 2
    edges = [(p, p) for p in padding]
    if count == 1:
        return _by_xla(x, kernel, strides, edges, kernel_axes)
    # Zeros follow each frame: enough of them that no window covers two frames, and that
    # the next frame begins at the same phase of the stride.
    whole = width + max(0, pad, 2 * pad - size[1] + stride)
    whole += -whole % stride
    x = _put_side_by_side(x, count, whole)
    edges[1] = (pad, size[1] - pad - stride)
    y = _by_xla(x, kernel, strides, edges, kernel_axes)
    return _take_apart(y, count, out)


def _put_side_by_side(x, count, whole):
    """(b, t, h, w, c) to (b, t / count, h, count whole, c), zeros after each frame."""
    clips, frames, height, width, channels = x.shape
    x = x.reshape(clips, -1, count, height, width, channels)
    x = jnp.pad(x, [*[(0, 0)] * 4, (0, whole - width), (0, 0)])
    x = jnp.moveaxis(x, 2, 3)
    return x.reshape(clips, frames // count, height, -1, channels)


def _take_apart(x, count, width):
    """The inverse of `_put_side_by_side`."""
    clips, frames, height, _, channels = x.shape
    x = x.reshape(clips, frames, height, count, -1, channels)
    x = jnp.moveaxis(x[:, :, :, :, :width], 3, 2)
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


_on_cpu.defvjp(_save, _gradients)


def _strided_input_gradient(shape, kernel, cotangent, strides, padding):
    """One product with the kernel, then a sum of taps for each phase of the stride."""
    *clips, height, width, channels = shape
    size, features = kernel.shape[:2], kernel.shape[-1]
    columns = jnp.matmul(
        cotangent, kernel.reshape(-1, features).T, precision=precision(kernel)
    )
    columns = columns.reshape(*cotangent.shape[:4], *size, channels)
    # The padded pixel stride * block + phase receives tap i of the output pixel
    # block - (i - phase) / stride.
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
    return x[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]


def _kernel_gradient(x, kernel, cotangent, strides, padding):
    """Matrix products of the input, as each tap sees it, with the cotangent."""
    size, (channels, features) = kernel.shape[:2], kernel.shape[2:]
    if _is_point(size, padding):
        x = x[:, :, :: strides[0], :: strides[1]]
        return sum_of_products(x, cotangent).reshape(kernel.shape)
    moves = _moves(size[1], strides[1], padding[1])
    phases, rows = strides[1], size[0] * channels

    def product(x, cotangent):
        """Products of the taps of each move, concatenated: (taps rows, n)."""
        x = _gather_rows(x, size[0], strides, padding[0], cotangent.shape[2])
        zero, free = jnp.zeros((), x.dtype), x.shape[-1] - cotangent.shape[3]
        none = (0, 0, 0)
        parts = []
        for move, (first, last) in moves.items():
            edges = [none, none, none, (move, free - move, 0), none]
            moved = lax.pad(cotangent, zero, edges)
            parts.append(_product(x[first * rows : (last + 1) * rows], moved))
        return jnp.concatenate(parts)

    gathered = (phases * rows + features) * cotangent[:, 0, ..., 0].size
    gradient = sum_over_frames(product, gathered, x, cotangent)
    return gradient.reshape(size[1], size[0], channels, features).swapaxes(0, 1)


def _moves(size, stride, padding):
    """Which columns each tap reads: {move: (first, last phase)}, in the order of taps.

    Tap i of output pixel o reads pixel stride * o + i - padding. Among the pixels of
    the same phase (their index modulo the stride), that is the one at index o + move.
    """
    moves = {}
    for tap in range(size):
        move, phase = divmod(tap - padding, stride)
        first, _ = moves.get(move, (phase, phase))
        moves[move] = first, phase
    return moves


def _gather_rows(x, size, strides, padding, height):
    """The rows of clips (b, t, h, w, c) that each output row depends on.

    The result is (phases size c, b, t, h_out, w / phases). Channels come first, so that
    long rows of pixels are copied. Columns are sorted by their phase, which is their
    index modulo the stride.
    """
    clips, frames, _, width, channels = x.shape
    (stride, phases), columns = strides, -(-width // strides[1])
    x = jnp.pad(x, [*[(0, 0)] * 3, (0, columns * phases - width), (0, 0)])
    x = x.reshape(clips, frames, -1, columns, phases, channels)
    x = x.transpose(4, 5, 0, 1, 2, 3)
    x = jnp.pad(x, [*[(0, 0)] * 4, (padding, padding), (0, 0)])
    # Without the barrier, XLA would gather pixel by pixel and transpose the result.
    x = lax.optimization_barrier(x)
    last = (height - 1) * stride + 1
    x = jnp.concatenate([x[..., i : i + last : stride, :] for i in range(size)], 1)
    return x.reshape(-1, *x.shape[2:])


def _product(x, cotangent):
    return jnp.einsum("cbthw,bthwn->cn", x, cotangent, precision=lax.Precision.HIGHEST)


def sum_over_frames(product, gathered, *clips):
    """The sum over all frames of `product`, computed for a few frames at a time.

    Args:
        product: a function of a few frames of each of `clips`.
        gathered: how many numbers it gathers for one frame of all clips.
        *clips: arrays (b, t, ...).
    """
    frames = clips[0].shape[1]
    count, most = 1, AT_ONCE // gathered
    while 2 * count <= most and frames % (2 * count) == 0:
        count *= 2

    def add(total, start):
        some = [lax.dynamic_slice_in_dim(clip, start, count, 1) for clip in clips]
        return total + product(*some), None

    one = jax.eval_shape(product, *(clip[:, :count] for clip in clips))
    total, _ = lax.scan(
        add, jnp.zeros(one.shape, one.dtype), jnp.arange(0, frames, count)
    )
    return total


def sum_of_products(x, cotangent):
    """For every pair of channels, the sum over clips, frames and pixels of products."""
    # XLA transposes the first operand, which is slow: so the one with fewer channels
    # comes first.
    if x.shape[-1] > cotangent.shape[-1]:
        return sum_of_products(cotangent, x).T
    gathered = x[:, 0].size + cotangent[:, 0].size
    total = "bthwp,bthwq->" + ("btpq" if x[0, 0, ..., 0].size >= LARGE else "pq")

    def product(x, cotangent):
        products = jnp.einsum(total, x, cotangent, precision=lax.Precision.HIGHEST)
        return products.sum(tuple(range(products.ndim - 2)))

    return sum_over_frames(product, gathered, x, cotangent)
