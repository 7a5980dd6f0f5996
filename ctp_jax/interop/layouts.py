"""The axes of the same array here and in PyTorch.

    layout     here                    PyTorch
    vector     (c)                     (c)
    linear     (in, out)               (out, in)
    pointwise  (in, out)               (out, in, 1, 1, 1), a layer as a convolution
    conv       (t, h, w, in, out)      (out, in, t, h, w)
    inflated   (t, h, w, in, out)      (out, in, h, w), a 2-D kernel
    pooled     (h w c, out)            (out, c h w), a layer on a flattened map

An inflated kernel is the 2-D kernel divided by the number of time steps and repeated
over them. On a clip of equal frames it gives what the 2-D kernel gives on the frame
(Carreira and Zisserman 2017, section 2.4). It cannot be converted back.
"""

import math

import numpy as np

FLOAT = np.float32


def to_ours(tensor: np.ndarray, layout: str, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array of this shape, from a tensor of `shape_there`."""
    if layout == "linear":
        tensor = tensor.T
    elif layout == "pointwise":
        tensor = tensor[:, :, 0, 0, 0].T
    elif layout == "conv":
        tensor = tensor.transpose(2, 3, 4, 1, 0)
    elif layout == "inflated":
        kernel = np.asarray(tensor, FLOAT).transpose(2, 3, 1, 0)
        tensor = np.broadcast_to(kernel / FLOAT(shape[0]), shape)
    elif layout == "pooled":
        channels, side = _pooled(tensor.shape)
        tensor = tensor.reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
        tensor = tensor.reshape(shape)
    return np.array(tensor, FLOAT, order="C")


def to_torch(array: np.ndarray, layout: str) -> np.ndarray:
    """The reverse of `to_ours`, in C order."""
    if layout == "linear":
        array = array.T
    elif layout == "pointwise":
        array = array.T[:, :, None, None, None]
    elif layout == "conv":
        array = array.transpose(4, 3, 0, 1, 2)
    elif layout == "pooled":
        channels, side = _pooled(array.shape[::-1])
        array = array.reshape(side, side, channels, -1).transpose(3, 2, 0, 1)
        array = array.reshape(len(array), -1)
    return np.array(array, FLOAT, order="C")


_DIMENSIONS = {"vector": 1, "linear": 2, "pooled": 2, "conv": 5, "inflated": 4}


def may_be(tensor: np.ndarray, layout: str) -> bool:
    """Whether a tensor of PyTorch has the type and number of axes of this layout."""
    return tensor.dtype == FLOAT and tensor.ndim == _DIMENSIONS[layout]


def shape_there(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape in PyTorch of an array that has this shape here."""
    if layout in ("linear", "pooled"):
        return shape[::-1]
    if layout in ("conv", "inflated"):
        kernel = shape[1:3] if layout == "inflated" else shape[:3]
        return (shape[4], shape[3], *kernel)
    return shape


def shape_here(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The reverse of `shape_there`; not for 2-D kernels, which have no time axis."""
    if layout in ("linear", "pooled"):
        return shape[::-1]
    if layout == "pointwise":
        return shape[1::-1]
    if layout == "conv":
        return (*shape[2:], shape[1], shape[0])
    return shape


def _pooled(shape: tuple[int, ...]) -> tuple[int, int]:
    """Channels and side of the map that a layer (out, channels side side) reads.

    The map has as many channels as the layer has outputs: `CtPHead.channels`.
    """
    channels = shape[0]
    return channels, math.isqrt(shape[1] // channels)
