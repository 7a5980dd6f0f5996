import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.common import pretrain
from ctp_jax.errors import UserError
from ctp_jax.models import resnet3d

pytestmark = pytest.mark.usefixtures("optimized")


def model_config(**overrides):
    config = pretrain("any", split="", eval_split="", epochs=1, milestones=()).model
    config.update(overrides)
    return config


SMALL = {"width": 0.125, "dtype": "float32"}


def shapes(encoder, *args, clip=(1, 16, 112, 112, 3)):
    def run(key, x):
        variables = encoder.init(key, x, False)
        return variables, encoder.apply(variables, x, False, *args)

    return jax.eval_shape(run, jax.random.key(0), jnp.zeros(clip))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_variables(encoder):
    """Kaiming kernels; scales, biases and statistics away from 1 and 0."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        name = path[-1].key
        if name == "kernel":
            fan_out = leaf.size // leaf.shape[-2]
            return jnp.asarray(noise * np.sqrt(2 / fan_out, dtype=np.float32))
        return jnp.asarray(
            np.exp(0.2 * noise) if name in ("scale", "var") else 0.1 * noise
        )

    return jax.tree_util.tree_map_with_path(draw, shapes(encoder)[0])


def test_r3d18_has_the_papers_parameters():
    variables, _ = shapes(resnet3d.create(model_config()))
    assert count(variables["params"]) == 33_166_272


@pytest.mark.parametrize("name", resnet3d.NAMES)
@pytest.mark.parametrize(
    "spatial, size, stride", [((1, 2, 2, 1), 14, 8), ((1, 2, 2, 2), 7, 16)]
)
def test_sizes_and_strides(name, spatial, size, stride):
    config = model_config(name=name, spatial_strides=spatial)
    _, features = shapes(resnet3d.create(config))
    assert features.shape == (1, 2, size, size, 512)
    assert resnet3d.total_stride(config) == (8, stride)


def test_all_stages():
    _, stages = shapes(resnet3d.create(model_config()), True)
    assert [s.shape[1:] for s in stages] == [
        (16, 56, 56, 64),
        (16, 56, 56, 64),
        (8, 28, 28, 128),
        (4, 14, 14, 256),
        (2, 14, 14, 512),
    ]


@pytest.mark.parametrize("name, width", [("r3d18", 1.0), ("r2plus1d18", 0.03)])
def test_stride_variants_share_their_parameters(name, width):
    trees = [
        shapes(
            resnet3d.create(
                model_config(
                    name=name, width=width, spatial_strides=s, temporal_strides=t
                )
            )
        )[0]
        for s, t in [
            ((1, 2, 2, 1), (1, 2, 2, 2)),
            ((1, 2, 2, 2), (1, 1, 2, 2)),
            ((1, 1, 1, 1), (1, 1, 1, 1)),
        ]
    ]
    assert all(tree == trees[0] for tree in trees)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, spatial", [("r3d18", (1, 2, 2, 1)), ("r2plus1d18", (1, 2, 2, 2))]
)
def test_same_features_statistics_and_gradients_as_torch(name, spatial):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.models import torch_networks as oracles

    encoder = resnet3d.create(model_config(name=name, spatial_strides=spatial, **SMALL))
    variables = random_variables(encoder)
    params, stats = variables["params"], variables["batch_stats"]
    mid = 8 if name == "r2plus1d18" else 0
    oracle = oracles.Encoder((8, 16, 32, 64), spatial, (1, 2, 2, 2), mid)
    oracles.load(oracle, params, stats)
    clips = jax.random.normal(jax.random.key(0), (2, 8, 32, 32, 3))
    torch_clips = oracles.channels_first(clips)

    def close(got, want, tolerance):
        got, want = np.asarray(got), np.asarray(want)
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= tolerance * np.abs(want).max()

    got = jax.jit(lambda v, x: encoder.apply(v, x, False))(variables, clips)
    oracle.eval()
    want = oracle(torch_clips).permute(0, 2, 3, 4, 1).detach()
    close(got, want, 1e-5)

    weights = np.random.default_rng(2).normal(size=got.shape).astype(np.float32)

    def loss(params):
        features, changed = encoder.apply(
            {"params": params, "batch_stats": stats}, clips, True, mutable="batch_stats"
        )
        return jnp.sum(features * weights), (features, changed["batch_stats"])

    slopes, (got, new_stats) = jax.jit(jax.grad(loss, has_aux=True))(params)
    oracle.train()
    want = oracle(torch_clips).permute(0, 2, 3, 4, 1)
    (want * torch.tensor(weights)).sum().backward()
    close(got, want.detach(), 1e-4)
    jax.tree.map(
        lambda g, w: close(g, w, 1e-4), new_stats, oracles.statistics(oracle, stats)
    )
    # Relu switches at rounding errors and batches of a few positions magnify them.
    jax.tree.map(
        lambda g, w: close(g, w, 2e-3), slopes, oracles.gradients(oracle, params)
    )


def test_bfloat16_stays_close():
    config = model_config(name="r2plus1d18", **SMALL)
    full = resnet3d.create(config)
    config.dtype = "bfloat16"
    half = resnet3d.create(config)
    variables = random_variables(full)
    clips = jax.random.normal(jax.random.key(1), (2, 8, 32, 32, 3))

    @jax.jit
    def run(variables, clips):
        return [
            # Not in training: normalising the few last positions magnifies rounding.
            encoder.apply(variables, clips, False, mutable="batch_stats")
            for encoder in (full, half)
        ]

    (want, _), (got, stats) = run(variables, clips)
    assert got.dtype == jnp.bfloat16
    for leaf in jax.tree.leaves((shapes(half)[0], stats)):
        assert leaf.dtype == jnp.float32
    got, want = np.asarray(got, np.float32).ravel(), np.asarray(want).ravel()
    assert np.corrcoef(got, want)[0, 1] > 0.99


def test_dtype_follows_the_backend():
    expected = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    assert resnet3d.create(model_config()).dtype == expected


@pytest.mark.parametrize(
    "field, value, hint",
    [
        ("name", "r3d19", "r3d18, r2plus1d18"),
        ("dtype", "float16", "bfloat16"),
        ("conv", "fast", "winograd"),
        ("width", 0.0, "above 0"),
        ("spatial_strides", (1, 2, 2), "needs 4"),
        ("temporal_strides", (2, 2, 2, 2), "first of them 1"),
    ],
)
def test_a_wrong_model_is_the_users_mistake(field, value, hint):
    config = model_config()
    with config.ignore_type():
        config[field] = value
    with pytest.raises(UserError, match=f"config.model.{field}.*{hint}"):
        resnet3d.create(config)


def test_architecture_is_json():
    described = resnet3d.architecture(model_config(width=0.5))
    assert json.loads(json.dumps(described)) == described
    assert described["channels"] == [32, 64, 128, 256]
    assert described["spatial_strides"] == [1, 2, 2, 1]


PARTS = ("stem", "stage1", "stage2", "stage3", "stage4")


@pytest.mark.parametrize("frozen", [1, 3, 5])
def test_frozen_parts_are_as_in_evaluation(frozen):
    """Their outputs and statistics; and no gradient reaches them, one all others."""
    config = model_config(width=0.03, dtype="float32", conv="direct")
    encoder = resnet3d.create(config)
    variables = random_variables(encoder)
    clips = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 3))

    def loss(params):
        stages, changed = encoder.apply(
            {**variables, "params": params},
            clips,
            True,
            all_stages=True,
            frozen=frozen,
            mutable=["batch_stats"],
        )
        # Every element counts on its own, or batch norm's gradients would vanish.
        return jnp.square(stages[-1] - 1.0).sum(), (stages, changed["batch_stats"])

    @jax.jit
    def run(variables):
        slopes, found = jax.grad(loss, has_aux=True)(variables["params"])
        return slopes, *found, encoder.apply(variables, clips, False, all_stages=True)

    slopes, got, stats, want = run(variables)
    for part, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        close = np.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert close == (part < frozen), PARTS[part]
    for tree, still in (
        (slopes, lambda new, _: not new.any()),
        (stats, lambda new, old: np.array_equal(new, old)),
    ):
        before = variables["params" if tree is slopes else "batch_stats"]
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        for (path, new), old in zip(leaves, jax.tree.leaves(before), strict=True):
            in_frozen = path[0].key.split("_")[0] in PARTS[:frozen]
            new, old = np.asarray(new), np.asarray(old)
            assert still(new, old) == in_frozen, jax.tree_util.keystr(path)


@pytest.mark.parametrize("parts", range(6))
def test_frozen_parameters_are_named_by_their_part(parts):
    variables, _ = shapes(resnet3d.create(model_config(width=0.03)))
    marks = resnet3d.frozen_parameters(variables["params"], parts)
    leaves, _ = jax.tree_util.tree_flatten_with_path(marks)
    assert len(leaves) == len(jax.tree.leaves(variables["params"]))
    for path, mark in leaves:
        assert mark is (path[0].key.split("_")[0] in PARTS[:parts])


def test_mid_channels_of_a_block_as_torchvision_has_them():
    """Tran et al.'s caffe2 models and torchvision: 144 144 | 230 230 | 460 460 | ..."""

    def mids(mid_per_block):
        config = model_config(name="r2plus1d18", mid_per_block=mid_per_block)
        params = shapes(resnet3d.create(config))[0]["params"]
        return [
            params[f"stage{stage}_block1"][conv]["spatial"]["kernel"].shape[-1]
            for stage in (1, 2, 3, 4)
            for conv in ("conv1", "conv2")
        ]

    assert mids(True) == [144, 144, 230, 230, 460, 460, 921, 921]
    assert mids(False) == [144, 144, 230, 288, 460, 576, 921, 1152]


def test_only_the_same_weights_fit():
    """Strides and how it is computed are no part of them."""
    r3d, r2plus1d = model_config(), model_config(name="r2plus1d18")
    other = model_config(
        spatial_strides=(1, 2, 2, 2), temporal_strides=(1, 1, 2, 2), dtype="bfloat16"
    )
    resnet3d.check_same_weights(r3d, resnet3d.architecture(other))
    stored = json.loads(json.dumps(resnet3d.architecture(r2plus1d)))
    resnet3d.check_same_weights(r2plus1d, stored)
    del stored["mid_per_block"]  # exported before there was a choice
    resnet3d.check_same_weights(r2plus1d, stored)
    for field, value in (("name", "r3d18"), ("width", 0.5), ("epsilon", 1e-5)):
        with pytest.raises(UserError, match=f"{field} is r?[0-9.]+.*{field}={value}"):
            resnet3d.check_same_weights(r2plus1d, {**stored, field: value})
    with pytest.raises(UserError, match="--config.model.mid_per_block=True it fits"):
        resnet3d.check_same_weights(r2plus1d, {**stored, "mid_per_block": True})
    # R3D has no such channels.
    stored = resnet3d.architecture(model_config(mid_per_block=True))
    resnet3d.check_same_weights(r3d, stored)
    with pytest.raises(UserError, match="name is not said"):
        resnet3d.check_same_weights(r3d, {})
