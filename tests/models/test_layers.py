import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ctp_jax.errors import UserError
from ctp_jax.models.conv import few_channels
from ctp_jax.models.conv.conv3d import conv3d
from ctp_jax.models.layers import BatchNorm, Conv3D
from ctp_jax.ranges import CONVOLUTIONS

# kernel, strides, padding, channels, features
LAYERS = {
    "stem": ((3, 7, 7), (1, 2, 2), (1, 3, 3), 3, 8),
    "3x3x3": ((3, 3, 3), (1, 1, 1), (1, 1, 1), 16, 24),
    "3x3x3 strided": ((3, 3, 3), (2, 2, 2), (1, 1, 1), 16, 8),
    "3x3x3 strided in time": ((3, 3, 3), (2, 1, 1), (1, 1, 1), 17, 8),
    "few channels": ((3, 3, 3), (2, 2, 2), (1, 1, 1), 4, 8),
    "spatial": ((1, 3, 3), (1, 2, 2), (0, 1, 1), 16, 8),
    "temporal": ((3, 1, 1), (1, 1, 1), (1, 0, 0), 16, 8),
    "temporal strided": ((3, 1, 1), (2, 1, 1), (1, 0, 0), 18, 8),
    "shortcut": ((1, 1, 1), (2, 2, 2), (0, 0, 0), 16, 8),
    "whole clip": ((6, 1, 1), (1, 1, 1), (0, 0, 0), 16, 8),
    "padded point": ((1, 1, 1), (1, 2, 2), (0, 1, 1), 16, 8),
}


def example(kernel, channels, features, frames=6):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, frames, 13, 12, channels)).astype(np.float32)
    k = rng.normal(size=(*kernel, channels, features)).astype(np.float32)
    return x, k / np.sqrt(np.prod(k.shape[:-1], dtype=np.float32))


def plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision="highest",
    )


def value_and_gradients(function, x, kernel, cotangent):
    value, pullback = jax.vjp(function, x, kernel)
    return (value, *pullback(cotangent))


@functools.partial(jax.jit, static_argnums=(3, 4))  # here: compiled once per layer
def reference(x, kernel, cotangent, strides, padding):
    def convolution(x, kernel):
        return plain(x, kernel, strides, padding)

    return value_and_gradients(convolution, x, kernel, cotangent)


def cotangent_of(x, kernel, strides, padding):
    """Numbers of the shape of the convolution."""
    shape = jax.eval_shape(lambda *a: plain(*a, strides, padding), x, kernel).shape
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("impl", CONVOLUTIONS[1:])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_implementation_is_the_plain_convolution(layer, impl):
    kernel, strides, padding, channels, features = LAYERS[layer]
    compare(*example(kernel, channels, features), strides, padding, impl)


def compare(x, k, strides, padding, impl):
    """Value and both gradients, beside XLA's own."""
    cotangent = cotangent_of(x, k, strides, padding)

    def ours(x, k):
        return conv3d(x, k, strides, padding, impl)

    got = jax.jit(lambda *a: value_and_gradients(ours, *a))(x, k, cotangent)
    want = reference(x, k, cotangent, strides, padding)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5 * np.abs(w).max())


# frames, kernel, strides, padding
FEW = {
    "two of three": (2, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    "one of three": (1, (3, 3, 3), (1, 2, 2), (1, 1, 1)),
    "two of three, strided": (2, (3, 3, 3), (2, 2, 2), (1, 1, 1)),
    "three of five": (3, (5, 3, 1), (2, 1, 2), (2, 1, 0)),
    "two of five, without neighbours": (2, (5, 1, 3), (1, 1, 1), (4, 0, 1)),
    "over time": (2, (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    "over time, strided": (1, (3, 1, 1), (2, 2, 1), (1, 0, 0)),
    "one of its two frames": (2, (1, 1, 1), (2, 2, 2), (0, 0, 0)),
    "one of its frames, at an edge": (3, (3, 3, 3), (3, 1, 1), (1, 1, 1)),
    "all": (2, (2, 3, 3), (1, 1, 1), (0, 1, 1)),
    "all, over time": (4, (4, 1, 1), (1, 1, 1), (0, 0, 0)),
}


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("case", FEW)
def test_few_frames(case, backend, monkeypatch):
    """Also that these are convolutions of frames, and none of clips."""
    frames, kernel, strides, padding = FEW[case]
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, k = example(kernel, 16, 8, frames)
    for impl in ("auto", "folded", "taps"):
        compare(x, k, strides, padding, impl)
        ours = functools.partial(conv3d, strides=strides, padding=padding, impl=impl)
        assert "[b, 0, 1, 2, f]" not in jax.jit(ours).lower(x, k).as_text()


@pytest.mark.parametrize("backend, frames", [("gpu", 3), ("tpu", 2)])
def test_otherwise_an_accelerator_slides_over_time(backend, frames, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, k = example((3, 3, 3), 16, 8, frames)
    text = jax.jit(functools.partial(conv3d, padding=(1, 1, 1))).lower(x, k).as_text()
    assert "[b, 0, 1, 2, f]" in text


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7])
def test_winograd_at_every_length(frames):
    x, k = example((3, 3, 3), 16, 24, frames)
    compare(x, k, (1, 1, 1), (1, 1, 1), "winograd")


@pytest.mark.slow
@pytest.mark.parametrize("features", [8, 40])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_convolution_over_time_alone_at_every_padding(features, padding):
    x, k = example((3, 1, 1), 16, features)
    compare(x, k, (1, 1, 1), (padding, 0, 0), "taps")


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["taps", "folded"])
@pytest.mark.parametrize("padding", [0, 2, 3])
@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 3)])
def test_frames_at_every_padding(strides, padding, impl):
    x, k = example((1, 3, 3), 5, 8, frames=4)
    compare(x, k, strides, (0, padding, padding), impl)


# frames, kernel, padding, channels, features
THIN = {
    "same size": (6, (3, 3, 3), (1, 1, 1), 8, 8),
    "not padded": (6, (3, 3, 3), (0, 0, 0), 8, 8),
    "over space": (3, (1, 3, 3), (0, 1, 1), 32, 40),
    "padded by more than the kernel": (2, (3, 3, 3), (3, 2, 4), 9, 8),
    "all sizes differ": (4, (2, 3, 5), (1, 2, 0), 16, 8),
    "without rows": (4, (3, 1, 3), (2, 0, 1), 16, 24),
    "one frame": (1, (3, 3, 3), (1, 1, 1), 8, 8),
}


@pytest.mark.parametrize("impl", ["taps", "winograd", "onednn"])
@pytest.mark.parametrize("case", THIN)
def test_few_channels(case, impl, monkeypatch):
    frames, kernel, padding, channels, features = THIN[case]
    monkeypatch.setattr(few_channels, "LARGE", 1)
    x, k = example(kernel, channels, features, frames)
    assert few_channels.applies(x.shape, k.shape, (1, 1, 1))
    compare(x, k, (1, 1, 1), padding, impl)


@pytest.mark.parametrize("features", [8, 40])
@pytest.mark.parametrize("large", [True, False])
def test_kernels_over_time_alone(large, features, monkeypatch):
    """Their gradients are products of single frames, or of all of them."""
    monkeypatch.setattr("ctp_jax.models.conv.frames.LARGE", 1 if large else 1000)
    x, k = example((3, 1, 1), 16, features)
    compare(x, k, (1, 1, 1), (1, 0, 0), "winograd")
    conv = functools.partial(conv3d, padding=(1, 0, 0), impl="winograd")
    gradient = jax.grad(lambda x, k: conv(x, k).sum(), argnums=1)
    text = str(jax.make_jaxpr(gradient)(x, k))
    assert ("reduce_sum[axes=(0, 1)" in text) == large


@pytest.mark.parametrize(
    "size, kernel, strides, applies",
    [
        ((8, 28, 28, 32), (3, 3, 3), (1, 1, 1), True),
        ((8, 28, 28, 33), (3, 3, 3), (1, 1, 1), False),
        ((8, 14, 14, 8), (3, 3, 3), (1, 1, 1), False),
        ((8, 28, 28, 8), (3, 3, 3), (1, 2, 2), False),
        ((8, 28, 28, 8), (3, 1, 1), (1, 1, 1), False),
        ((8, 28, 28, 3), (3, 3, 3), (1, 1, 1), False),  # C3D's first layer
        ((8, 112, 112, 16), (3, 3, 3), (1, 1, 1), False),
    ],
)
def test_which_kernels_have_gradients_of_few_channels(size, kernel, strides, applies):
    assert few_channels.applies((2, *size), (*kernel, size[-1], 8), strides) == applies


def test_winograd_takes_two_thirds_of_the_products():
    # So many features that no frames are put side by side: XLA counts the gaps.
    x, k = example((3, 3, 3), 16, 4096)

    def flops(impl):
        conv = functools.partial(conv3d, padding=(1, 1, 1), impl=impl)
        return jax.jit(conv).lower(x, k).cost_analysis()["flops"]

    assert flops("winograd") / flops("taps") == pytest.approx(2 / 3, abs=0.02)


def test_a_cpu_gets_winograd():
    x, k = example((3, 3, 3), 16, 8)

    def program(impl):
        conv = functools.partial(conv3d, padding=(1, 1, 1), impl=impl)
        return jax.jit(conv).lower(x, k).as_text()

    assert program("auto") == program("winograd") != program("taps")


@pytest.mark.parametrize("layer", LAYERS)
def test_convolution_is_torchs(layer):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    kernel, strides, padding, channels, features = LAYERS[layer]
    x, k = example(kernel, channels, features)
    want = torch.nn.functional.conv3d(
        torch.tensor(x).permute(0, 4, 1, 2, 3),
        torch.tensor(k).permute(4, 3, 0, 1, 2),
        stride=strides,
        padding=padding,
    )
    want = want.permute(0, 2, 3, 4, 1).numpy()
    got = jax.jit(lambda *a: conv3d(*a, strides, padding))(x, k)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("impl", ["direct", "taps", "winograd"])
def test_bfloat16_rounds_once(impl):
    x, k = example((3, 3, 3), 16, 8)
    x, k = jnp.asarray(x, jnp.bfloat16), jnp.asarray(k, jnp.bfloat16)
    got = jax.jit(lambda *a: conv3d(*a, padding=(1, 1, 1), impl=impl))(x, k)
    want = plain(x.astype(jnp.float32), k.astype(jnp.float32), (1, 1, 1), (1, 1, 1))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("impl", ["taps", "winograd"])
@pytest.mark.parametrize("layer", ["3x3x3", "3x3x3 strided", "temporal", "shortcut"])
def test_bfloat16_gradients_round_once(layer, impl):
    kernel, strides, padding, channels, features = LAYERS[layer]
    x, k = (jnp.asarray(a, jnp.bfloat16) for a in example(kernel, channels, features))
    wide = [a.astype(jnp.float32) for a in (x, k)]
    cotangent = jnp.asarray(cotangent_of(*wide, strides, padding), jnp.bfloat16)

    def ours(x, k):
        return conv3d(x, k, strides, padding, impl)

    got = jax.jit(lambda *a: value_and_gradients(ours, *a))(x, k, cotangent)
    want = reference(*wide, cotangent.astype(jnp.float32), strides, padding)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == jnp.bfloat16
        error = np.asarray(g, np.float32) - w
        # One rounding is off by at most 2^-9 of a number.
        assert np.linalg.norm(error) < 2**-9 * np.linalg.norm(w)


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["folded", "taps", "winograd"])
@pytest.mark.parametrize("layer", LAYERS)
def test_as_accelerators_compute_it(layer, impl, monkeypatch):
    kernel, strides, padding, channels, features = LAYERS[layer]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    compare(*example(kernel, channels, features), strides, padding, impl)


def test_unknown_implementation_is_the_users_mistake():
    x, k = example((1, 1, 1), 3, 8)
    with pytest.raises(UserError, match="direct"):
        conv3d(jnp.asarray(x), jnp.asarray(k), impl="fast")


@pytest.mark.parametrize("impl", ["direct", "folded", "taps", "winograd"])
@pytest.mark.parametrize("shape", [(2, 9, 9), (9, 1, 9), (9, 9, 2)])
def test_clips_smaller_than_the_kernel_are_the_users_mistake(shape, impl):
    kernel = jnp.zeros((3, 3, 3, 4, 8))
    with pytest.raises(UserError, match="smaller than a kernel"):
        conv3d(jnp.zeros((1, *shape, 4)), kernel, impl=impl)


def test_convolution_starts_kaiming_normal():
    x = jnp.zeros((1, 3, 3, 3, 32))
    layer = Conv3D(64, (3, 3, 3), use_bias=True)
    params = jax.jit(layer.init)(jax.random.key(0), x)["params"]
    assert params["kernel"].shape == (3, 3, 3, 32, 64)
    assert params["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(
        params["kernel"].std(), np.sqrt(2 / (64 * 27)), rtol=0.02
    )
    np.testing.assert_array_equal(params["bias"], 0)


def test_batch_norm_is_torchs():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    rng = np.random.default_rng(0)
    # A mean far from 0, where E[x^2] - E[x]^2 would cancel; six positions, where the
    # biased and unbiased variances differ by a fifth.
    x = rng.normal(300.0, 0.5, (1, 1, 2, 3, 5)).astype(np.float32)
    scale, bias = rng.normal(size=(2, 5)).astype(np.float32)
    oracle = torch.nn.BatchNorm3d(5, eps=1e-3)
    oracle.weight.data.copy_(torch.tensor(scale))
    oracle.bias.data.copy_(torch.tensor(bias))
    layer = BatchNorm(1e-3)
    variables = layer.init(jax.random.key(0), jnp.asarray(x), train=False)
    variables = {**variables, "params": {"scale": scale, "bias": bias}}
    for _ in range(3):
        got, changed = layer.apply(
            variables, jnp.asarray(x), train=True, mutable="batch_stats"
        )
        want = oracle(torch.tensor(x).permute(0, 4, 1, 2, 3)).detach()
        want = want.permute(0, 2, 3, 4, 1).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
        variables = {**variables, **changed}
    stats = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], oracle.running_mean, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], oracle.running_var, rtol=1e-4)
    oracle.eval()
    got = layer.apply(variables, jnp.asarray(x), train=False)
    want = oracle(torch.tensor(x).permute(0, 4, 1, 2, 3)).detach()
    want = want.permute(0, 2, 3, 4, 1).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_batch_norm_of_groups_is_torchs_of_each(groups):
    """Values, gradients and running statistics, beside a loop over the groups."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    rng = np.random.default_rng(0)
    x, cotangent = rng.normal(1.0, 2.0, (2, 6, 1, 2, 2, 5)).astype(np.float32)
    # Groups of different mean and spread, so that it matters which clip is in which.
    x *= np.arange(1, 7, dtype=np.float32).reshape(6, 1, 1, 1, 1)
    scale, bias = rng.normal(size=(2, 5)).astype(np.float32)
    layer = BatchNorm(1e-3, groups=groups)
    stats = layer.init(jax.random.key(0), jnp.asarray(x), train=False)["batch_stats"]

    def train(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        return layer.apply(variables, x, train=True, mutable="batch_stats")

    oracles = []
    for part, part_cotangent in zip(
        np.split(x, groups), np.split(cotangent, groups), strict=True
    ):
        oracle = torch.nn.BatchNorm3d(5, eps=1e-3)
        oracle.weight.data.copy_(torch.tensor(scale))
        oracle.bias.data.copy_(torch.tensor(bias))
        clips = torch.tensor(part).permute(0, 4, 1, 2, 3).requires_grad_()
        y = oracle(clips)
        y.backward(torch.tensor(part_cotangent).permute(0, 4, 1, 2, 3))
        oracles.append((oracle, *(a.permute(0, 2, 3, 4, 1) for a in (y, clips.grad))))

    params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}

    @jax.jit
    def value_gradients_and_statistics(params, x):
        y, pullback, changed = jax.vjp(
            lambda params, x: train(params, stats, x), params, x, has_aux=True
        )
        return y, *pullback(cotangent), changed

    got, params_gradient, x_gradient, changed = value_gradients_and_statistics(
        params, x
    )

    def compare(got, parts, combine):
        want = combine([part.detach().numpy() for part in parts], axis=0)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

    layers = [each[0] for each in oracles]
    compare(got, [each[1] for each in oracles], np.concatenate)
    compare(x_gradient, [each[2] for each in oracles], np.concatenate)
    compare(params_gradient["scale"], [each.weight.grad for each in layers], np.sum)
    compare(params_gradient["bias"], [each.bias.grad for each in layers], np.sum)
    new = changed["batch_stats"]
    compare(new["mean"], [each.running_mean for each in layers], np.mean)
    compare(new["var"], [each.running_var for each in layers], np.mean)
    # Afterwards groups play no part: the running statistics are the only ones.
    variables = {"params": params, "batch_stats": new}
    clip = jnp.asarray(x[:1])
    np.testing.assert_array_equal(
        layer.apply(variables, clip, train=False),
        BatchNorm(1e-3).apply(variables, clip, train=False),
    )


def test_a_batch_that_groups_do_not_divide_is_the_users_mistake():
    x, layer = jnp.zeros((6, 1, 2, 2, 5)), BatchNorm(groups=4)
    variables = layer.init(jax.random.key(0), x, train=False)
    with pytest.raises(UserError, match="batch_norm_groups = 4 .* 6 clips") as caught:
        layer.apply(variables, x, train=True, mutable="batch_stats")
    assert "\n" not in str(caught.value)


def test_initialising_leaves_the_statistics_alone():
    x = jnp.full((1, 1, 2, 3, 5), 7.0)
    stats = BatchNorm().init(jax.random.key(0), x, train=True)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], 0)
    np.testing.assert_array_equal(stats["var"], 1)


# The last ones: the fixture is the module's.
@pytest.mark.parametrize("impl", ["folded", "taps", "winograd"])
@pytest.mark.parametrize("layer", ["stem", "3x3x3", "3x3x3 strided"])
def test_compiled_as_users_have_them(layer, impl, optimized):
    test_every_implementation_is_the_plain_convolution(layer, impl)
