"""Encoders of the real configs, and weights for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs.common import pretrain

SMALL = {"width": 0.125, "dtype": "float32"}


def model_config(**overrides):
    config = pretrain("any", split="", eval_split="", epochs=1, milestones=()).model
    with config.ignore_type():
        config.update(overrides)
    return config


@functools.cache  # tracing takes a second, and equal encoders have equal shapes
def shapes(encoder, *args, clip=(1, 16, 112, 112, 3)):
    """Of the variables and of the features."""

    # They do not depend on how convolutions are computed.
    encoder = encoder.clone(impl="direct")

    def run(key, x):
        features, variables = encoder.init_with_output(key, x, False, *args)
        return variables, features

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


def assert_close(got, want, tolerance):
    """Within a share of the largest value."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()
