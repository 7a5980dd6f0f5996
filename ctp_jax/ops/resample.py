"""Bilinear sampling of axis-aligned windows: by gathers, or by products.

Resizing, cropping, pasting a patch and RoIAlign all read an image at the points of a
grid whose rows and columns are independent, so that one axis is sampled after the
other. `Points` says where along an axis. There are two ways to compute the samples:

    gathers   Read both neighbours of each point and interpolate. This takes little
              arithmetic. The choice on CPUs and GPUs. CPUs are slow at gathering single
              pixels: where an image is read on other grids in every frame, they gather
              whole rows and multiply the columns.
    products  Multiply by a matrix of weights per axis, `out[y, x] = sum_h sum_w
              rows[y, h] columns[x, w] image[h, w]`. This takes many times the
              arithmetic, most of it with zeros. The choice on TPUs, whose gathers are
              slow and whose matrix units are fast. The matrix units of GPUs do not
              compute in float32.

Their results differ by rounding. `chosen_way` chooses. RoIAlign has few points and many
channels and always uses the weights.

Conventions: pixel i of an axis covers [i, i + 1), so its centre is i + 0.5. Coordinates
here count from the first centre: coordinate i is the *centre* of pixel i. Axes are
(..., h, w, channels).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from ctp_jax.errors import UserError

WAYS = ("gathers", "products")

_GATHERING = ("cpu", "gpu", "cuda", "rocm")

# float32 products default to TF32 or bfloat16 on accelerators: off by a grey level.
_PRECISION = jax.lax.Precision.HIGHEST


def chosen_way() -> str:
    """The faster way on the default backend; products on an unknown one."""
    return "gathers" if jax.default_backend() in _GATHERING else "products"


class Points(NamedTuple):
    """Where along an input axis the output pixels are read.

    Attributes:
        coordinates: float32 (*b, out), pixel-centre coordinates in [0, pixels - 1].
        inside: bool (*b, out), False where the output is 0; None: True everywhere.
    """

    coordinates: Float[Array, "*b out"]
    inside: Bool[Array, "*b out"] | None = None

    def weights(self, size: int) -> Float[Array, "*b out in"]:
        """The matrix that samples an axis of `size` pixels, for products."""
        weights = hat_weights(self.coordinates, size)
        return weights if self.inside is None else weights * self.inside[..., None]


def hat_weights(
    coordinates: Float[Array, "*b out"], size: int
) -> Float[Array, "*b out in"]:
    """Linear interpolation weights of `size` pixels at each coordinate.

    Args:
        coordinates: pixel-centre coordinates, in pixels. Outside [0, size - 1], weights
            that would belong to pixels outside are left out.
        size: number of input pixels.

    Returns:
        float32 (*b, out, size). Rows of coordinates inside sum to 1.

    >>> print(hat_weights(jnp.array([0.0, 1.25]), 3))
    [[1.   0.   0.  ]
     [0.   0.75 0.25]]
    """
    pixels = jnp.arange(size, dtype=jnp.float32)
    return jnp.maximum(0.0, 1.0 - jnp.abs(coordinates[..., None] - pixels))


def window_points(
    start: Float[Array, "*b"],
    length: Float[Array, "*b"],
    extent: Float[Array, "*b"],
    out_size: int,
) -> Points:
    """Points that stretch the window [start, start + length) over `out_size` pixels.

    With half-pixel centres, clamped to the image's edge, without antialiasing: as in
    `cv2.resize` with INTER_LINEAR and torch's `interpolate(align_corners=False)`.

    Args:
        start: where the window begins, in input pixels.
        length: its length, in input pixels.
        extent: how many of the input pixels belong to the image; the rest is padding.
        out_size: output pixels.

    >>> start, length, extent = jnp.array([2.0, 4.0, 8.0])
    >>> window_points(start, length, extent, 2).coordinates.tolist()
    [2.5, 4.5]
    """
    steps = (jnp.arange(out_size, dtype=jnp.float32) + 0.5) / out_size
    coordinates = start[..., None] + length[..., None] * steps - 0.5
    return Points(jnp.clip(coordinates, 0.0, extent[..., None] - 1.0))


def stretch_points(
    source_low: Float[Array, "*#b"],
    source_high: Float[Array, "*#b"],
    low: Float[Array, "*b"],
    high: Float[Array, "*b"],
    out_size: int,
) -> Points:
    """Points that stretch input pixels [source_low, source_high) over [low, high).

    The output pixels low to high - 1 are inside. They read the same as `cv2.resize` of
    the cut-out pixels. All bounds are whole numbers.

    >>> points = stretch_points(*jnp.array([0.0, 2.0, 1.0, 5.0]), out_size=6)
    >>> points.coordinates.tolist()
    [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]
    >>> points.inside.tolist()
    [False, True, True, True, True, False]
    """
    pixels = jnp.arange(out_size, dtype=jnp.float32)
    source_low, source_high, low, high = (
        bound[..., None] for bound in (source_low, source_high, low, high)
    )
    ratio = (source_high - source_low) / jnp.maximum(high - low, 1.0)
    coordinates = source_low + (pixels - low + 0.5) * ratio - 0.5
    coordinates = jnp.clip(coordinates, source_low, source_high - 1.0)
    return Points(coordinates, (pixels >= low) & (pixels < high))


def sample(
    image: Num[Array, "*b h w k"], rows: Points, columns: Points, way: str = ""
) -> Float[Array, "*b y x k"]:
    """Reads an image on a grid.

    Args:
        image: of any type of numbers.
        rows: where the output's rows read, (*b, y).
        columns: where its columns read, (*b, x).
        way: one of `WAYS`; empty: `chosen_way`.

    Raises:
        UserError: for an unknown way.

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> rows, columns = Points(jnp.array([0.0, 0.5])), Points(jnp.array([2.0]))
    >>> sample(image, rows, columns).ravel().tolist()
    [2.0, 3.5]
    """
    return sample_frames(image[..., None, :, :, :], rows, columns, way)[..., 0, :, :, :]


def sample_frames(
    frames: Num[Array, "*b t h w k"], rows: Points, columns: Points, way: str = ""
) -> Float[Array, "*b t y x k"]:
    """`sample` of every frame of a clip on the same grid.

    >>> frames = jnp.arange(18.0).reshape(2, 3, 3, 1)
    >>> rows, columns = Points(jnp.array([0.5])), Points(jnp.array([2.0]))
    >>> sample_frames(frames, rows, columns).ravel().tolist()
    [3.5, 12.5]
    """
    if gathers(way):
        return _gather(frames, rows, columns)
    frames = jnp.asarray(frames, jnp.float32)
    height, width = frames.shape[-3:-1]
    for weights, equation in (
        (rows.weights(height), "...yh,...thwk->...tywk"),
        (columns.weights(width), "...xw,...tywk->...tyxk"),
    ):
        frames = jnp.einsum(equation, weights, frames, precision=_PRECISION)
    return frames


def sample_over_time(
    image: Num[Array, "*b h w k"], rows: Points, columns: Points, way: str = ""
) -> Float[Array, "*b t y x k"]:
    """`sample` of one image on another grid in every frame: rows (*b, t, y).

    >>> image = jnp.arange(9.0).reshape(3, 3, 1)
    >>> rows = Points(jnp.array([[0.5], [1.5]]))
    >>> columns = Points(jnp.array([[2.0], [2.0]]))
    >>> sample_over_time(image, rows, columns).ravel().tolist()
    [3.5, 6.5]
    """
    height, width = image.shape[-3:-1]
    if gathers(way) and jax.default_backend() != "cpu":
        image = _every_time(image, rows)[..., None, :, :, :]
        return _gather(image, rows, columns)[..., 0, :, :, :]
    # With the channels between the axes, both products are of large matrices: (t y) h
    # by h (k w), and in each frame (y k) w by w x.
    image = jnp.moveaxis(jnp.asarray(image, jnp.float32), -1, -2)
    if gathers(way):
        # CPUs gather whole rows fast, and single pixels slowly.
        image = _gather_along(_every_time(image, rows), rows, -3)
    else:
        weights = rows.weights(height)
        image = jnp.einsum(
            "...tyh,...hkw->...tykw", weights, image, precision=_PRECISION
        )
    weights = columns.weights(width)
    image = jnp.einsum("...txw,...tykw->...tykx", weights, image, precision=_PRECISION)
    return jnp.moveaxis(image, -1, -2)


def _every_time(image, rows):
    """The image for every frame. XLA does not write this copy to memory."""
    times = rows.coordinates.shape[-2]
    image = image[..., None, :, :, :]
    return jnp.broadcast_to(image, (*image.shape[:-4], times, *image.shape[-3:]))


def gathers(way: str) -> bool:
    """Whether a way, by default the chosen one, is 'gathers'.

    >>> gathers("products")
    False
    """
    way = way or chosen_way()
    if way not in WAYS:
        raise UserError(f"way = {way!r}: choose one of {', '.join(WAYS)}")
    return way == "gathers"


def _gather(frames, rows, columns):
    """`sample_frames` by gathers.

    Columns come first. They are gathered pixel by pixel, in the type of the frames; the
    float32 results are then gathered by whole rows.
    """
    return _gather_along(_gather_along(frames, columns, -2), rows, -3)


def _gather_along(frames, points, axis):
    """One axis, a negative number, of `_gather`."""
    pixels = frames.shape[axis]
    coordinates = jnp.clip(points.coordinates, 0.0, pixels - 1.0)
    low = jnp.floor(coordinates)
    # At the last pixel (on an axis of 1, the only one) both neighbours are the same.
    high = jnp.minimum(low + 1.0, pixels - 1.0)
    share = coordinates - low
    shares = (1.0 - share, share)
    if points.inside is not None:
        shares = tuple(share * points.inside for share in shares)
    # From (*b, out) to a shape that broadcasts with (*b, t, out, ...).
    leading, trailing = frames.ndim + axis - low.ndim + 1, -axis - 1
    spread = (..., *(None,) * leading, slice(None), *(None,) * trailing)
    first, second = (
        jnp.asarray(_lookup(frames, index.astype(jnp.int32), axis), jnp.float32)
        * share[spread]
        for index, share in zip((low, high), shares, strict=True)
    )
    return first + second


def _lookup(values, index, axis):
    """values[..., index, ...] along an axis, a negative number; index is (*b, out)."""

    def one(values, index):
        where = (..., index, *(slice(None),) * (-axis - 1))
        # The indices are in bounds. Without this, XLA would check that.
        return values.at[where].get(
            mode="promise_in_bounds", wrap_negative_indices=False
        )

    # vmap keeps the dimensions of b apart, so that one may be split over devices.
    for _ in range(index.ndim - 1):
        one = jax.vmap(one)
    return one(values, index)


def crop_resize_flip(
    frames: Num[Array, "*b t h w k"],
    window: Float[Array, "*b 4"],
    extent: Float[Array, "*b 2"],
    flip: Array,
    size: int,
    way: str = "",
) -> Float[Array, "*b t size size k"]:
    """Crops a window from every frame, resizes it to a square and may mirror it.

    Args:
        frames: frames, zero-padded at the bottom and right.
        window: y, x, height, width in pixels; may be fractional.
        extent: height and width of the image within the frame.
        flip: bool (*b): mirror left-right.
        size: side of the result, in pixels.
        way: one of `WAYS`; empty: `chosen_way`.

    Raises:
        UserError: for an unknown way.

    Example: the right half of a frame of 2 x 4 pixels, mirrored.

    >>> frames = jnp.arange(8.0).reshape(1, 2, 4, 1)
    >>> window, extent = jnp.array([0.0, 2.0, 2.0, 2.0]), jnp.array([2.0, 4.0])
    >>> print(crop_resize_flip(frames, window, extent, jnp.array(True), 2)[0, :, :, 0])
    [[3. 2.]
     [7. 6.]]
    """
    rows, columns = (
        window_points(window[..., i], window[..., i + 2], extent[..., i], size)
        for i in range(2)
    )
    # Mirroring the output is reading the columns in reverse.
    x = columns.coordinates
    columns = Points(jnp.where(flip[..., None], x[..., ::-1], x))
    return sample_frames(frames, rows, columns, way)
