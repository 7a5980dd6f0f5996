"""What all encoders have in common, tried with each of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax import models
from ctp_jax.errors import UserError
from tests.models.made_networks import (
    assert_close,
    model_config,
    random_variables,
    shapes,
)

NAMES = ("r3d18", "r2plus1d18", "c3d")
OTHERS = ("r3d10", "r2plus1d10", "r2d3d18", "r2d3d34", "tsm18", "tsm50", "s3d", "s3dg")
# Of those that are built alike, one.
each_network = pytest.mark.parametrize(
    "name", (*NAMES, "r2plus1d10", "r2d3d18", "tsm50", "s3dg")
)


def test_these_are_all_of_them():
    assert set(models.MODULES) == {*NAMES, *OTHERS}
    assert set(models.PUBLISHED) == set(OTHERS)


def traced(name, clip=(1, 16, 112, 112, 3), **strides):
    """An encoder of half width; the shapes of its variables and of all its stages."""
    encoder = models.create(model_config(name=name, width=0.5, **strides))
    return encoder, *shapes(encoder, True, clip=clip)


@each_network
def test_sizes_strides_and_architecture(name):
    stem, frames = 1, 16 if name == "s3dg" else 8
    if name in models.PUBLISHED:
        stem = models.PUBLISHED[name].stem_stride // 2
    channels = {"r2d3d18": 128, "tsm50": 1024, "s3dg": 512}.get(name, 256)
    for spatial, size, stride in (((1, 2, 2, 1), 14, 8), ((1, 2, 2, 2), 7, 16)):
        stride, size = stem * stride, -(-size // stem)
        encoder, _, stages = traced(name, spatial_strides=spatial)
        assert stages[-1].shape == (1, 16 // frames, size, size, channels)
        assert encoder.total_stride() == (frames, stride)
        described = encoder.architecture()
        assert json.loads(json.dumps(described)) == described
        assert described["channels"] == [stage.shape[-1] for stage in stages[1:]]
        assert described["spatial_strides"] == list(spatial)
    # What does not divide is rounded up: here in every part with a stride.
    *_, stages = traced(name, (1, 9, 113, 120, 3), spatial_strides=spatial)
    sizes = -(-9 // frames), -(-113 // stride), -(-120 // stride)
    assert stages[-1].shape == (1, *sizes, channels)


@pytest.mark.parametrize(
    "name, channels", [("r3d18", (32, 32, 64, 128)), ("c3d", (32, 64, 128, 256))]
)
def test_all_stages(name, channels):
    sizes = (16, 56, 56), (16, 56, 56), (8, 28, 28), (4, 14, 14), (2, 14, 14)
    wanted = [(*size, c) for size, c in zip(sizes, (*channels, 256), strict=True)]
    assert [s.shape[1:] for s in traced(name)[2]] == wanted


@pytest.mark.parametrize("name", (*NAMES, *OTHERS[1:]))
def test_stride_variants_share_their_parameters(name):
    _, tree, _ = traced(name)
    assert tree == traced(name, spatial_strides=(1, 2, 2, 2))[1]
    ones = (1, 1, 1, 1)
    assert tree == traced(name, spatial_strides=ones, temporal_strides=ones)[1]


def test_dtype_follows_the_backend():
    expected = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    assert models.create(model_config()).dtype == expected


@pytest.mark.parametrize(
    "field, value, hint",
    [
        ("name", "r3d19", "no such network.*r3d18, r2plus1d18, .*c3d"),
        ("name", "nowhere.net", "is code outside .*--allow_code=nowhere.net"),
        ("name", ".c3d", "no such network.*r3d18, r2plus1d18, .*c3d"),
        ("dtype", "float16", "bfloat16"),
        ("conv", "fast", "winograd"),
        ("spatial_strides", (1, 2, 2), "needs 4 items"),
        ("temporal_strides", (2, 2, 2, 2), "first of them 1"),
        ("batch_norm", False, "r3d18 has no such choice; leave it at True"),
        ("mid_per_block", True, "r3d18 has no such choice; leave it at False"),
    ],
)
def test_a_wrong_model_is_the_users_mistake(field, value, hint):
    with pytest.raises(UserError, match=f"config.model.{field}.*{hint}") as caught:
        models.create(model_config(**{field: value}))
    assert "\n" not in str(caught.value)


def test_a_field_of_another_network_is_refused():
    for name, field, value in (
        ("c3d", "mid_per_block", True),
        ("r2plus1d18", "batch_norm", False),
        ("r2plus1d10", "mid_per_block", True),
        ("s3d", "batch_norm", False),
    ):
        with pytest.raises(UserError, match=f"{field} = {value}: {name} has no such"):
            models.create(model_config(name=name, **{field: value}))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) for name in NAMES[:2]] + ["c3d"],
)
def test_groups_are_normalised_apart(name):
    """Two groups of two clips: the same as each group alone; statistics averaged."""

    def network(groups):
        config = model_config(
            name=name, batch_norm_groups=groups, width=0.03, dtype="float32"
        )
        return models.create(config)

    def training(groups):
        encoder = network(groups)
        return jax.jit(lambda v, x: encoder.apply(v, x, True, mutable=["batch_stats"]))

    variables = random_variables(network(1))
    clips = jax.random.normal(jax.random.key(0), (4, 4, 16, 16, 3))
    features, stats = training(2)(variables, clips)
    train = training(1)
    alone = [train(variables, clips[:2]), train(variables, clips[2:])]
    # They differ, so all four clips as one group would be something else.
    for one, other in zip(*(jax.tree.leaves(each[1]) for each in alone), strict=True):
        assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()
    assert_close(features, np.concatenate([each[0] for each in alone]), 1e-4)
    means = jax.tree.map(lambda a, b: (a + b) / 2, alone[0][1], alone[1][1])
    jax.tree.map(lambda got, want: assert_close(got, want, 1e-4), stats, means)
    with pytest.raises(UserError, match="groups = 3 does not divide the 4 clips"):
        training(3)(variables, clips)


def test_groups_are_not_part_of_the_weights():
    config = model_config()
    del config.batch_norm_groups  # as in configs of before
    old, new = models.create(config), models.create(model_config(batch_norm_groups=4))
    assert (old.batch_norm_groups, new.batch_norm_groups) == (1, 4)
    assert old.architecture() == new.architecture()
    new.check_same_weights(old.architecture())


def test_a_network_of_ones_own():
    name = "tests.models.own_network"
    encoder = models.create(model_config(name=name))
    variables, features = shapes(encoder)
    assert features.shape == (1, 2, 14, 14, 24) and len(variables["params"]) == 5
    assert encoder.architecture()["name"] == name
    encoder.check_same_weights(encoder.architecture())


PARTS = ("stem", "stage1", "stage2", "stage3", "stage4")


@pytest.mark.parametrize(
    "name, frozen", [("r3d18", 1), ("r3d18", 3), ("r3d18", 5), ("c3d", 3)]
)
def test_frozen_parts_are_as_in_evaluation(name, frozen):
    """Their outputs and statistics; and no gradient reaches them, one all others."""
    config = model_config(name=name, width=0.03, dtype="float32", conv="direct")
    encoder = models.create(config)
    variables = random_variables(encoder)
    clips = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 3))

    def loss(params, variables, clips):
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

    # Everything is an argument: XLA computes what it can of constants, and takes long.
    @jax.jit
    def run(variables, clips):
        step = jax.grad(loss, has_aux=True)
        slopes, found = step(variables["params"], variables, clips)
        return slopes, *found, encoder.apply(variables, clips, False, all_stages=True)

    slopes, got, stats, want = run(variables, clips)
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


@each_network
def test_frozen_parameters_are_named_by_their_part(name):
    encoder, variables, _ = traced(name)
    for parts in range(6):
        marks = encoder.frozen_parameters(variables["params"], parts)
        leaves, _ = jax.tree_util.tree_flatten_with_path(marks)
        assert len(leaves) == len(jax.tree.leaves(variables["params"]))
        for path, mark in leaves:
            assert mark is (path[0].key.split("_")[0] in PARTS[:parts])
    assert len(encoder.freeze_options) == 1 + len(PARTS)


def test_only_the_same_weights_fit():
    """Strides and how it is computed are no part of them."""

    def architecture(**overrides):
        stored = models.create(model_config(**overrides)).architecture()
        return json.loads(json.dumps(stored))

    other = architecture(
        spatial_strides=(1, 2, 2, 2), temporal_strides=(1, 1, 2, 2), dtype="bfloat16"
    )
    encoder = models.create(model_config())
    encoder.check_same_weights(other)
    with pytest.raises(UserError, match="name is not said"):
        encoder.check_same_weights({})
    encoder = models.create(model_config(name="r2plus1d18"))
    stored = architecture(name="r2plus1d18")
    encoder.check_same_weights(stored)
    for field, value in (("name", "r3d18"), ("width", 0.5), ("epsilon", 1e-5)):
        with pytest.raises(UserError, match=f"{field} is r?[0-9.]+.*{field}={value}"):
            encoder.check_same_weights({**stored, field: value})
    with pytest.raises(UserError, match="--config.model.mid_per_block=True it fits"):
        encoder.check_same_weights({**stored, "mid_per_block": True})
    encoder = models.create(model_config(name="c3d"))
    encoder.check_same_weights(architecture(name="c3d"))
    with pytest.raises(UserError, match="--config.model.batch_norm=False it fits"):
        encoder.check_same_weights(architecture(name="c3d", batch_norm=False))
