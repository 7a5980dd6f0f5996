"""Floating-point operations and memory traffic of the networks, counted from shapes.

Seen from the outside: while the loss is traced, every convolution, normalisation and
dense layer that it calls is written down. So the count is of the network that runs, and
the same for every formulation of it and for PyTorch.
"""

import dataclasses
import math

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from benchmarks import pretraining
from ctp_jax.models import layers as layers_lib
from ctp_jax.models import resnet3d
from ctp_jax.tasks import ctp


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer, for one clip.

    Attributes:
        name: its path in the network.
        kind: 'conv', 'norm', 'dense', or 'sum' of a block's branches, which comes after
            the layers of the block.
        flops: of the forward pass: twice the products. Of a convolution, only those
            with values, not those with the zeros around them.
        padded: the same with them, as they are often counted.
        inputs, outputs: numbers that go in and out.
        weights: parameters.
        wide: whether it computes in float32 whatever the encoder does.
    """

    name: str
    kind: str
    flops: int
    padded: int
    inputs: int
    outputs: int
    weights: int
    wide: bool


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
    task = ctp.Task(one)
    batch = pretraining.batch_spec(one)
    rng = jax.random.key(0)
    params, model_state = jax.eval_shape(lambda: task.init(rng, batch))
    found = []

    def watch(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if context.method_name == "__call__":
            layer = _layer(context.module, args[0], result)
            found.extend([layer] if layer else [])
        return result

    with nn.intercept_methods(watch):
        jax.eval_shape(
            lambda *arguments: task.loss(*arguments)[0], params, model_state, batch, rng
        )
    return found


def _layer(module, x, result):
    kind, flops, padded = "", 0, 0
    if isinstance(module, layers_lib.Conv3D):
        kind, channels = "conv", x.shape[-1] * module.features
        axes = zip(x.shape[1:4], module.kernel_size, module.strides, module.padding)
        flops = 2 * x.shape[0] * channels * math.prod(products(*axis) for axis in axes)
        taps = math.prod(module.kernel_size)
        padded = 2 * result.size * taps * x.shape[-1]
        weights = taps * channels
    elif isinstance(module, nn.Dense):
        kind, weights = "dense", x.shape[-1] * module.features
        flops = padded = 2 * math.prod(x.shape[:-1]) * weights
    elif isinstance(module, layers_lib.BatchNorm):
        kind, weights = "norm", 2 * x.shape[-1]
    elif isinstance(module, resnet3d.BasicBlock):
        kind, weights = "sum", 0
    if not kind:
        return None
    wide = _in_head(module)
    return Layer(
        "/".join(module.path), kind, flops, padded, x.size, result.size, weights, wide
    )


def _in_head(module):
    while module.parent is not None and isinstance(module.parent, nn.Module):
        module = module.parent
    return type(module).__name__ == "CtPHead"


def forward(found: list[Layer], padded: bool = False) -> int:
    """FLOPs of the forward pass of a clip."""
    return sum(layer.padded if padded else layer.flops for layer in found)


def whole_step(found: list[Layer], padded: bool = False) -> int:
    """FLOPs of forward and backward pass of a clip.

    A gradient of the input and one of the kernel take as many products as the output;
    the clip itself needs no gradient. Normalisation, RoIAlign, loss and optimiser are
    not counted: they are limited by memory.
    """
    first = found[0].padded if padded else found[0].flops
    return 3 * forward(found, padded) - first
