"""What benchmarks/roofline.py counts, beside XLA's counts and by hand."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from benchmarks import pretraining, roofline
from ctp_jax.models import layers as layers_lib
from ctp_jax.models import resnet3d


@pytest.mark.parametrize("size", [4, 7, 8, 16])
@pytest.mark.parametrize("kernel, padding", [(1, 0), (3, 1), (7, 3), (2, 0), (3, 2)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_products_leave_padding_out(size, kernel, stride, padding):
    want = sum(
        0 <= place < size
        for start in range(-padding, size + padding - kernel + 1, stride)
        for place in range(start, start + kernel)
    )
    assert roofline.products(size, kernel, stride, padding) == want


@pytest.fixture(scope="module", params=resnet3d.NAMES)
def network(request):
    """The layers of a network of full size, and calls of its convolutions."""
    config = pretraining.make_config(request.param, 1, "float32")
    calls = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, layers_lib.Conv3D):
            calls.append((context.module, args[0].shape))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        layers = roofline.layers(config)
    convolutions = sum(layer.kind == "convolution" for layer in layers)
    return layers, calls[-convolutions:]  # those of the loss, not of init


def test_convolutions_are_counted_as_xla_counts_them(network):
    """Each kind of layer by itself: the output, and two gradients of as many FLOPs."""
    layers, calls = network
    convolutions = [layer for layer in layers if layer.kind == "convolution"]
    seen = {}
    for layer, (module, shape) in zip(convolutions, calls, strict=True):
        about = (module.kernel_size, module.strides, module.padding, module.features)
        assert seen.setdefault((about, shape), layer.flops) == layer.flops
    assert len(seen) > 10
    for ((size, strides, padding, features), shape), flops in seen.items():
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        kernel = jax.ShapeDtypeStruct((*size, shape[-1], features), jnp.float32)

        def forward(x, kernel, strides=strides, padding=padding):
            return layers_lib.conv3d(x, kernel, strides, padding, "direct")

        def backward(x, kernel, y, forward=forward):
            return jax.vjp(forward, x, kernel)[1](y)

        y = jax.eval_shape(forward, x, kernel)
        for program, arguments, want in (
            (forward, (x, kernel), flops),
            (backward, (x, kernel, y), 2 * flops),
        ):
            counted = jax.jit(program).lower(*arguments).cost_analysis()["flops"]
            assert counted == want, (shape, size, strides)


def test_every_layer_is_counted(network):
    layers, calls = network
    assert layers[0].inputs == 16 * 112 * 112 * 3
    assert [layer.in_head for layer in layers[-3:]] == [True] * 3
    assert not any(layer.in_head for layer in layers[:-3])
    kinds = [layer.kind for layer in layers]
    convolutions = len(calls) - 1  # that of the head has no normalisation
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "convolution": convolutions + 1,
        "normalisation": convolutions,
        "sum": 8,
        "dense": 2,
    }
    want = 3 * sum(layer.flops for layer in layers) - layers[0].flops
    assert roofline.step_flops(layers) == want


def layer(kind, flops=0, inputs=0, outputs=0, weights=0, in_head=False):
    return roofline.Layer(kind, flops, inputs, outputs, weights, in_head)


LAYERS = [
    layer("convolution", flops=1000, inputs=3, outputs=5, weights=7),
    layer("normalisation", inputs=5, outputs=5, weights=2),
    layer("convolution", flops=400, inputs=5, outputs=40, weights=11),
    layer("sum", inputs=5, outputs=40),
    layer("dense", flops=50, inputs=40, outputs=4, weights=160, in_head=True),
]


def test_traffic_and_products_by_hand():
    found = {}
    for each in roofline.step_work(LAYERS, 3, wide=False):
        flops, moved = found.get(each.purpose, (0, 0))
        found[each.purpose] = flops + each.flops, moved + each.bytes
    assert found == {
        "convolution, forward": (4200, 2 * 3 * (8 + 45) + 2 * (7 + 11)),
        # The clip needs no gradient.
        "convolution, backward": (
            3000 + 2400,
            2 * 3 * (8 + 2 * 45) + 4 * 7 + (2 + 4) * 11,
        ),
        "normalisation, forward": (0, 2 * 3 * 4 * 5),
        "normalisation, backward": (0, 2 * 3 * 5 * 5),
        "ReLU and sums, forward": (0, 2 * 3 * 40),
        "ReLU and sums, backward": (0, 2 * 3 * 40),
        "head, forward": (150, 4 * 3 * 44 + 4 * 160),
        "head, backward": (300, 2 * 4 * 3 * 44 + 2 * 4 * 160),
        "optimiser": (0, 24 * (7 + 2 + 11 + 160)),
    }


def test_a_pass_takes_as_long_as_its_scarcer_part():
    for flops, moved, wide, seconds in (
        (300, 40, False, 3),
        (100, 40, False, 2),
        (100, 40, True, 10),
    ):
        work = [roofline.Work("a", flops, moved, wide)] * 2
        assert roofline.least_seconds(work, 100.0, 10.0, 20.0) == {"a": 2 * seconds}
