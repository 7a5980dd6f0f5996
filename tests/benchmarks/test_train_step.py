"""What benchmarks/train_step.py counts, and that its two sides do the same."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from benchmarks import count, pretraining, train_step
from ctp_jax.models import layers as layers_lib
from ctp_jax.models import resnet3d
from ctp_jax.ops import colour
from ctp_jax.train import mesh as mesh_lib


def padded_products(x, kernel, strides, padding):
    """Of one axis each, by going through them."""
    return [
        sum(
            0 <= place < size
            for start in range(-p, size + p - k + 1, s)
            for place in range(start, start + k)
        )
        for size, k, s, p in zip(x, kernel, strides, padding, strict=True)
    ]


@pytest.mark.parametrize("size", [4, 7, 8, 16])
@pytest.mark.parametrize("kernel, padding", [(1, 0), (3, 1), (7, 3), (2, 0), (3, 2)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_products_leave_padding_out(size, kernel, stride, padding):
    (want,) = padded_products([size], [kernel], [stride], [padding])
    assert count.products(size, kernel, stride, padding) == want


@pytest.fixture(scope="module", params=resnet3d.NAMES)
def network(request):
    """A config of full size, its layers, and calls of its convolutions."""
    config = pretraining.make_config(request.param, 1, "float32")
    calls = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, layers_lib.Conv3D):
            calls.append((context.module, args[0].shape))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        layers = count.layers(config)
    convolutions = sum(layer.kind == "conv" for layer in layers)
    return config, layers, calls[-convolutions:]  # those of the loss, not of init


def test_convolutions_are_counted_as_xla_counts_them(network):
    """Each kind of layer by itself: the output, and two gradients of as many FLOPs."""
    _, layers, calls = network
    convolutions = [layer for layer in layers if layer.kind == "conv"]
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


def test_the_whole_step_is_what_its_layers_add_up_to(network):
    _, layers, _ = network
    assert layers[0].inputs == 16 * 112 * 112 * 3
    assert [layer.wide for layer in layers[-3:]] == [True] * 3
    assert not any(layer.wide for layer in layers[:-3])
    want = 3 * sum(layer.flops for layer in layers) - layers[0].flops
    assert count.whole_step(layers) == want
    assert count.whole_step(layers, padded=True) > want


def test_a_made_up_batch_is_one_that_can_be_played():
    config = pretraining.make_config("r3d18", 3)
    batch = pretraining.make_batch(config)
    spec = pretraining.batch_spec(config)
    jax.tree.map(
        lambda x, like: np.testing.assert_equal(
            (x.shape, x.dtype), (like.shape, like.dtype)
        ),
        batch,
        spec,
    )
    boxes = batch["plan"]["boxes"]
    assert (boxes == np.floor(boxes)).all()
    assert boxes.min() >= 0 and boxes.max() <= config.clip.size
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert (np.ptp(boxes, axis=2) > 0).any()
    assert (np.sort(batch["plan"]["order"], axis=1) == np.arange(3)).all()
    assert len(np.unique(batch["frames"])) == 256


def random_state(config):
    """A training state without the seconds that its initialisation compiles."""
    shapes = pretraining.Step(config, mesh_lib.one_device(), given=True).state
    rng = np.random.default_rng(0)

    def draw(path, like):
        name = jax.tree_util.keystr(path)
        if "kernel" in name and "trace" not in name:
            fan_in = np.prod(like.shape[:-1])
            return np.float32(rng.normal(size=like.shape) * np.sqrt(2 / fan_in))
        full = 1 if "scale" in name or "var" in name else 0
        return np.full(like.shape, full, like.dtype)

    return jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes))


def test_pytorch_computes_the_same():
    pytest.importorskip("torch", reason="compares with PyTorch")
    from benchmarks import torch_step

    config = pretraining.make_config("r3d18", 2, "float32", 0.03, "direct", 32, 8)
    config.optimizer.learning_rate = 1e-4
    config.optimizer.clip_norm = 20.0  # below the norm
    batch = pretraining.make_batch(config)
    clips = np.random.default_rng(1).uniform(0, 255, (2, 8, 32, 32, 3))
    clips = jnp.asarray(clips, jnp.float32)
    given = pretraining.without_drawing(batch, clips)
    ours = pretraining.Running(config, given, random_state(config))
    theirs = torch_step.Step(
        torch_step.Variant("eager", "channels_last_3d"),
        config,
        jax.device_get(ours.state),
        np.asarray(colour.normalize(clips)),
        batch["plan"]["boxes"],
    )
    got, want = [theirs.step() for _ in range(3)], [ours.step() for _ in range(3)]
    np.testing.assert_allclose(got, want, rtol=1e-3)
    # By what the steps change: clipping, decay and momentum are the same.
    changes = np.diff(np.array([got, want])[..., 0])
    assert (changes < -1e-2).all()
    np.testing.assert_allclose(*changes, rtol=1e-2)
    np.testing.assert_allclose(theirs.forward(), ours.forward(), rtol=1e-4)


BLOCKED = """
import sys
for name in ("tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None
from benchmarks import pretraining, roofline, torch_step, train_step
from ctp_jax.train import mesh
config = pretraining.make_config("r3d18", 1, "float32", 0.03, "direct", 32, 8)
program = pretraining.Step(config, mesh.one_device())
program.train_step.lower(program.state, program.batch)
"""


def test_it_needs_no_tensorflow():
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class Broken:
    def compile(self, phase):
        if phase == "forward":
            raise MemoryError("no room")

    def step(self, times):
        raise ValueError("two\nlines")


def test_a_side_that_fails_is_a_row_with_the_reason():
    def missing():
        raise RuntimeError("no compiler")

    side = train_step.Side("a", "torch", missing)
    assert side.failed == "RuntimeError: no compiler"
    side.start("step")
    assert side.timed("step", 1)() is None
    side = train_step.Side("b", "ours", Broken)
    assert not side.failed
    side.start("forward")
    assert side.failed == "MemoryError: no room"
    side = train_step.Side("c", "ours", Broken)
    side.start("step")
    assert side.failed == "ValueError: two lines"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--models", "resnet"], "'resnet': choose from r3d18"),
        (["--rounds", "0"], "--rounds: '0': needs a whole number from 1"),
        (["--batches", "0"], "--batches"),
        (["--conv", "fft"], "'fft': choose from auto"),
        (["--conv", ""], "--conv: '': choose from auto"),
        (["--width", "nan"], "--width: 'nan': needs a number above 0"),
    ],
)
def test_flags_that_cannot_be_are_named(flags, message, capsys):
    with pytest.raises(SystemExit):
        train_step.parse(flags)
    assert message in capsys.readouterr().err
