"""The least that a training step has to do, and what the device reaches at its best.

The layers are seen from the outside: while the loss is traced, every convolution,
normalisation and dense layer that it calls is written down. So the count is of the
network that runs, and the same for every formulation of it and for PyTorch.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from benchmarks import pretraining
from ctp_jax.models import layers as layers_lib
from ctp_jax.models import resnet3d
from ctp_jax.tasks import ctp

NORM_FORWARD, NORM_BACKWARD = 3 + 1, 2 * 2 + 1
"""Passes over an activation: for mean, variance and result, and one to write it; for
two sums and the gradient, each of activation and cotangent, and one to write it."""

OPTIMISER = 4 * (3 + 2 + 1)
"""Bytes per parameter: gradient, momentum and parameter are read, the last two written;
the gradient is read once more for its norm."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer, for one clip.

    Attributes:
        kind: 'convolution', 'normalisation', 'dense', or 'sum' of a block's branches.
        flops: of the forward pass: twice the products. Of a convolution, only those
            with values, not those with the zeros around them.
        inputs, outputs: numbers that go in and out.
        weights: parameters.
        in_head: whether it is part of the head, which computes in float32.
    """

    kind: str
    flops: int
    inputs: int
    outputs: int
    weights: int
    in_head: bool


def products(size: int, kernel: int, stride: int, padding: int) -> int:
    """How many pairs (output, tap) of an axis read a value and not padding."""
    outputs = (size + 2 * padding - kernel) // stride + 1
    return sum(
        0 <= output * stride - padding + tap < size
        for output in range(outputs)
        for tap in range(kernel)
    )


def layers(config: ConfigDict) -> list[Layer]:
    """The layers of encoder and head in the order of the forward pass."""
    one = config.copy_and_resolve_references()
    one.model.conv, one.batch_size = "direct", 1
    task, batch = ctp.Task(one), pretraining.batch_spec(one)
    rng = jax.random.key(0)
    variables = jax.eval_shape(lambda: task.init(rng, batch))
    found = []

    def watch(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if context.method_name == "__call__":
            layer = _layer(context.module, args[0], result)
            found.extend([layer] if layer else [])
        return result

    with nn.intercept_methods(watch):
        jax.eval_shape(
            lambda *arguments: task.loss(*arguments)[0], variables, batch, 0, rng
        )
    return found


def _layer(module, x, result):
    flops = weights = 0
    if isinstance(module, layers_lib.Conv3D):
        kind, channels = "convolution", x.shape[-1] * module.features
        axes = zip(x.shape[1:4], module.kernel_size, module.strides, module.padding)
        flops = 2 * x.shape[0] * channels * math.prod(products(*axis) for axis in axes)
        weights = math.prod(module.kernel_size) * channels
    elif isinstance(module, nn.Dense):
        kind, weights = "dense", x.shape[-1] * module.features
        flops = 2 * math.prod(x.shape[:-1]) * weights
    elif isinstance(module, layers_lib.BatchNorm):
        kind, weights = "normalisation", 2 * x.shape[-1]
    elif isinstance(module, resnet3d.BasicBlock):
        kind = "sum"
    else:
        return None
    return Layer(kind, flops, x.size, result.size, weights, _in_head(module))


def _in_head(module):
    while isinstance(module.parent, nn.Module):
        module = module.parent
    return type(module).__name__ == "CtPHead"


def step_flops(found: list[Layer]) -> int:
    """FLOPs of forward and backward pass of a clip.

    A gradient of the input and one of the kernel take as many products as the output;
    the clip itself needs no gradient. Normalisation, RoIAlign, loss and optimiser are
    not counted: they are limited by memory.
    """
    return 3 * sum(layer.flops for layer in found) - found[0].flops


@dataclasses.dataclass(frozen=True)
class Work:
    """One pass over memory with its products, of a batch.

    Attributes:
        purpose: what it is for, as `benchmarks.profile_step` calls it.
        flops: of its products.
        bytes: that it has to read and write.
        wide: whether the products are of float32.
    """

    purpose: str
    flops: float
    bytes: float
    wide: bool


def step_work(found: list[Layer], batch: int, wide: bool) -> list[Work]:
    """What a step does at least; drawing, RoIAlign and loss are left out.

    Args:
        found: from `layers`.
        batch: clips.
        wide: whether the encoder computes in float32, not in bfloat16.
    """
    work = []

    def add(layer, direction, flops, numbers, weight_bytes=0):
        kind = {"sum": "ReLU and sums"}.get(layer.kind, layer.kind)
        purpose = f"{'head' if layer.in_head else kind}, {direction}"
        is_wide = wide or layer.in_head
        moved = (4 if is_wide else 2) * batch * numbers + weight_bytes
        work.append(Work(purpose, batch * flops, moved, is_wide))

    for number, layer in enumerate(found):
        if layer.kind == "normalisation":
            add(layer, "forward", 0, NORM_FORWARD * layer.outputs)
            add(layer, "backward", 0, NORM_BACKWARD * layer.outputs)
        elif layer.kind == "sum":  # reads the other branch
            add(layer, "forward", 0, layer.outputs)
            add(layer, "backward", 0, layer.outputs)
        else:
            both, read = layer.inputs + layer.outputs, layer.weights
            read *= 4 if wide or layer.in_head else 2
            add(layer, "forward", layer.flops, both, read)
            add(layer, "backward", layer.flops, both, 4 * layer.weights)
            if number:  # the clip needs no gradient
                add(layer, "backward", layer.flops, both, read)
    weights = sum(layer.weights for layer in found)
    work.append(Work(pretraining.OPTIMISER, 0, OPTIMISER * weights, True))
    return work


def least_seconds(
    work: list[Work], rate: float, wide_rate: float, bandwidth: float
) -> dict[str, float]:
    """{purpose: seconds}, each pass limited by its products or by memory.

    Args:
        work: from `step_work`.
        rate: FLOP/s of products in bfloat16.
        wide_rate: of those in float32.
        bandwidth: bytes a second from and to memory.
    """
    found = {}
    for each in work:
        by_products = each.flops / (wide_rate if each.wide else rate)
        seconds = max(by_products, each.bytes / bandwidth)
        found[each.purpose] = found.get(each.purpose, 0.0) + seconds
    return found


def matmul(dtype: str) -> tuple[Callable[[], None], int]:
    """A call that multiplies large matrices of random numbers, and its FLOPs.

    Zeros would take less power and run faster. float32 is true float32, not TF32.
    """
    cpu = jax.default_backend() == "cpu"
    size, times = (2048, 1) if cpu else (8192, 10)
    precision = "highest" if dtype == "float32" else "default"
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)

    @jax.jit
    def product(a, b):
        # Scaled so that a long row of products neither grows nor shrinks.
        return jnp.matmul(a, b, precision=precision) * size**-0.5

    def call():
        result = a
        for _ in range(times):
            result = product(result, b)
        jax.block_until_ready(result)

    return call, 2 * size**3 * times


def copy() -> tuple[Callable[[], None], int]:
    """A call that reads and writes a large array in place, and the bytes that it moves.

    Into fresh memory, a CPU would wait for page faults.
    """
    cpu = jax.default_backend() == "cpu"
    size, times = (2**28, 1) if cpu else (2**31, 10)
    array = jnp.ones(size // 4)
    add = jax.jit(lambda x: x + 1.0, donate_argnums=0)

    def call():
        nonlocal array
        for _ in range(times):
            array = add(array)
        jax.block_until_ready(array)

    return call, 2 * size * times
