import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.models.heads import ClassifierHead, CtPHead

FRAMES, CHANNELS, SIZE, STRIDE = 8, 12, 5, 8
BOXES = np.array(
    [
        [[8.0, 9.0, 40.0, 33.0], [0.0, 0.0, 63.0, 55.0], [50.5, 3.25, 60.0, 50.0]],
        [[1.0, 30.0, 17.0, 46.0], [33.0, 2.0, 39.0, 4.0], [20.0, 20.0, 21.0, 50.0]],
    ],
    np.float32,
)


def pooled(feature, box):
    """RoIAlign of one map (h, w, c), point by point, in float64."""
    height, width = feature.shape[:2]
    x1, y1, x2, y2 = np.float64(box) / STRIDE - 0.5
    out = np.zeros((SIZE, SIZE, feature.shape[2]))
    for i, j, a, b in itertools.product(range(SIZE), range(SIZE), *[range(2)] * 2):
        y = y1 + (i + (a + 0.5) / 2) * (y2 - y1) / SIZE
        x = x1 + (j + (b + 0.5) / 2) * (x2 - x1) / SIZE
        if not (-1 <= y <= height and -1 <= x <= width):
            continue
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        for v, u in itertools.product((int(y), int(y) + 1), (int(x), int(x) + 1)):
            share = max(0, 1 - abs(y - v)) * max(0, 1 - abs(x - u))
            if share:
                out[i, j] += share * feature[v, u] / 4
    return out


def example(squeeze):
    head = CtPHead(channels=CHANNELS, squeeze=squeeze, stride=STRIDE)
    features = np.random.default_rng(0).normal(size=(2, 2, 7, 8, 10))
    features = jnp.asarray(features, jnp.float32)
    variables = jax.eval_shape(
        lambda key: head.init(key, features, jnp.asarray(BOXES), FRAMES),
        jax.random.key(0),
    )
    rng = np.random.default_rng(1)
    # Everything away from its tiny or zero start, so that the comparison sees it.
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape) * 0.1, jnp.float32),
        variables["params"],
    )
    return head, params, features


@pytest.mark.parametrize("squeeze", [True, False])
def test_same_deltas_as_torch(squeeze):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    head, params, features = example(squeeze)
    got = jax.jit(lambda p, boxes: head.apply({"params": p}, features, boxes, FRAMES))(
        params, BOXES
    )
    assert got.shape == (2, 3, FRAMES, 4) and got.dtype == jnp.float32

    kernel = params["temporal"]["kernel"]
    conv = torch.nn.Conv3d(10, CHANNELS, kernel.shape[:3])
    conv.weight.data = torch.tensor(np.array(kernel)).permute(4, 3, 0, 1, 2)
    conv.bias.data = torch.tensor(np.array(params["temporal"]["bias"]))
    maps = torch.relu(conv(torch.tensor(np.array(features)).permute(0, 4, 1, 2, 3)))
    maps = maps.permute(0, 2, 3, 4, 1).detach().numpy()
    assert maps.shape[1] == (1 if squeeze else 2)
    params = jax.tree.map(np.array, params)
    # torch flattens channel, row, column: its first linear layer is ours, permuted.
    first, second = params["dense1"], params["dense2"]
    weight = first["kernel"].reshape(SIZE, SIZE, CHANNELS, -1).transpose(3, 2, 0, 1)
    weight = torch.tensor(weight.reshape(CHANNELS, -1))
    for b, n in np.ndindex(2, 3):
        deltas = []
        for t in range(maps.shape[1]):
            region = np.float32(pooled(maps[b, t], BOXES[b, n])).transpose(2, 0, 1)
            hidden = torch.nn.functional.linear(
                torch.tensor(region.reshape(1, -1)), weight, torch.tensor(first["bias"])
            )
            out = torch.nn.functional.linear(
                torch.relu(hidden),
                torch.tensor(second["kernel"].T.copy()),
                torch.tensor(second["bias"]),
            )
            deltas.append(out.numpy().reshape(-1, 4))
        want = np.concatenate(deltas)
        np.testing.assert_allclose(got[b, n], want, rtol=1e-4, atol=1e-5)


def test_starts_as_the_authors_do():
    def init(channels):
        features = jnp.zeros((1, 2, 14, 14, 512))
        head = CtPHead(channels=channels)
        return head.init(jax.random.key(0), features, jnp.zeros((1, 3, 4)), 16)

    params = jax.eval_shape(lambda: init(512))["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == 40_278_016 - 33_166_272
    assert params["dense1"]["kernel"].shape == (5 * 5 * 512, 512)
    params = jax.jit(lambda: init(64))()["params"]
    for name in ("dense1", "dense2"):
        np.testing.assert_allclose(params[name]["kernel"].std(), 0.001, rtol=0.05)
    temporal = params["temporal"]["kernel"]
    np.testing.assert_allclose(temporal.std(), np.sqrt(2 / (64 * 2)), rtol=0.05)
    for layer in params.values():
        np.testing.assert_array_equal(layer["bias"], 0)


def test_bfloat16_features_give_float32_deltas():
    head, params, features = example(True)

    def run(features):
        return head.apply({"params": params}, features, jnp.asarray(BOXES), FRAMES)

    assert jax.eval_shape(run, jnp.bfloat16(features)).dtype == jnp.float32


def test_frames_that_do_not_divide_are_the_users_mistake():
    head, _, features = example(False)
    with pytest.raises(UserError, match="9 frames .* 2 time steps"):
        head.init(jax.random.key(0), features, jnp.asarray(BOXES), 9)


def test_classifier_equals_torch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    rng = np.random.default_rng(0)
    features = np.float32(rng.normal(size=(3, 2, 4, 5, 10)))
    params = {
        "classifier": {
            "kernel": np.float32(rng.normal(size=(10, 7))),
            "bias": np.float32(rng.normal(size=7)),
        }
    }
    head = ClassifierHead(7)
    got = head.apply({"params": params}, jnp.asarray(features), train=False)
    linear = torch.nn.Linear(10, 7)
    linear.weight.data = torch.tensor(params["classifier"]["kernel"].T.copy())
    linear.bias.data = torch.tensor(params["classifier"]["bias"])
    maps = torch.tensor(features).permute(0, 4, 1, 2, 3)
    pooled = torch.nn.functional.adaptive_avg_pool3d(maps, 1).flatten(1)
    np.testing.assert_allclose(got, linear(pooled).detach(), rtol=1e-5, atol=1e-5)
    half = head.apply({"params": params}, jnp.bfloat16(features), train=False)
    assert half.dtype == got.dtype == jnp.float32


def test_classifier_drops_pooled_channels_in_training_alone():
    channels = 4000
    features = jnp.ones((2, 1, 2, 2, channels))
    # With this kernel the logits are what is left of the pooled features.
    params = {"classifier": {"kernel": jnp.eye(channels), "bias": jnp.zeros(channels)}}
    head = ClassifierHead(channels, dropout=0.3)

    @jax.jit
    def train(params, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return head.apply({"params": params}, features, True, rngs=rngs)

    def logits(seed):
        return np.asarray(train(params, seed))

    first, second = logits(0), logits(1)
    for video in (*first, *second):
        kept = video > 0
        np.testing.assert_allclose(video[kept], 1 / 0.7, rtol=1e-5)
        # Five standard errors of a share of 0.7 in 4000.
        assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / channels)
    assert (first[0] != first[1]).any() and (first != second).any()
    np.testing.assert_array_equal(first, logits(0))
    whole = head.apply({"params": params}, features, train=False)
    np.testing.assert_array_equal(whole, 1.0)


def test_classifier_starts_as_the_authors_do():
    params = ClassifierHead(101).init(
        jax.random.key(0), jnp.zeros((1, 2, 7, 7, 512)), train=False
    )["params"]
    kernel = params["classifier"]["kernel"]
    assert list(params) == ["classifier"] and kernel.shape == (512, 101)
    np.testing.assert_allclose(kernel.std(), 0.001, rtol=0.02)
    np.testing.assert_array_equal(params["classifier"]["bias"], 0)
