"""Convolutions in float64 as products of matrices, for tests that take steps in it.

XLA has loops for them, of 15 nanoseconds a product of two numbers: that was half of what
such a step took. What convolutions compute is the subject of tests/models/test_layers.py.
"""

import functools
from unittest import mock

import jax.numpy as jnp
from jax import lax

direct = lax.conv_general_dilated


def quick_convolutions():
    """A context: programs that are traced in it have these."""
    return mock.patch.object(lax, "conv_general_dilated", convolve)


@functools.wraps(direct)
def convolve(x, kernel, strides, padding, **options):
    if x.dtype != jnp.float64 or kernel.ndim != 5:
        return direct(x, kernel, strides, padding, **options)
    assert options["dimension_numbers"] == ("NDHWC", "DHWIO", "NDHWC"), options
    # Beside every position its neighbours, along one axis after the other.
    for axis, stride in enumerate(strides, 1):
        width = [(0, 0)] * x.ndim
        width[axis] = padding[axis - 1]
        x = jnp.pad(x, width)
        size = kernel.shape[axis - 1]
        ends = range(x.shape[axis] - size + 1, x.shape[axis] + 1)
        x = jnp.concatenate(
            [
                lax.slice_in_dim(x, start, end, stride, axis)
                for start, end in enumerate(ends)
            ],
            axis=-1,
        )
    return x @ kernel.transpose(2, 1, 0, 3, 4).reshape(-1, kernel.shape[-1])
