"""Batch normalisation over eight devices, which are told of their mesh."""

import numpy as np
import pytest

from tests import forks

SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
from benchmarks import scaling
from ctp_jax.models.layers import BatchNorm
from ctp_jax.train import mesh as mesh_lib

given = dict(np.load(sys.argv[1]))
mesh = mesh_lib.make_mesh()
assert mesh.size == 8
found = {}

def run(x, cotangent, groups):
    layer = BatchNorm(1e-3, momentum=0.0, groups=groups)

    def program(params, x, cotangent):
        stats = {"mean": jnp.zeros(5), "var": jnp.ones(5)}

        def apply(params, x):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                variables = {"params": params, "batch_stats": stats}
                return layer.apply(variables, x, train=True, mutable="batch_stats")

        y, pullback, changed = jax.vjp(apply, params, x, has_aux=True)
        gradients, x_gradient = pullback(cotangent)
        return {"y": y, "x": x_gradient, **gradients, **changed["batch_stats"]}

    split = len(x) % 8 == 0
    rows = mesh_lib.over_batch(mesh) if split else mesh_lib.replicated(mesh)
    params = {name: given[name] for name in ("scale", "bias")}
    shardings = (mesh_lib.replicated(mesh), rows, rows)
    compiled = jax.jit(program, in_shardings=shardings).lower(params, x, cotangent).compile()
    messages = scaling.read_collectives(compiled.as_text())
    arguments = jax.device_put((params, x, cotangent), shardings)
    return jax.device_get(compiled(*arguments)), [each.kind for each in messages]

for rows, groups in ((16, 1), (16, 2), (16, 8), (16, 16), (12, 1), (12, 3)):
    result, messages = run(given["x"][:rows], given["cotangent"][:rows], groups)
    found |= {f"{rows} {groups} {name}": value for name, value in result.items()}
    found[f"{rows} {groups} messages"] = messages
np.savez(sys.argv[2], **found)
"""
CASES = [(16, 1), (16, 2), (16, 8), (16, 16), (12, 1), (12, 3)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(what is normalised, what came out), {name: array} each."""
    folder, rng = tmp_path_factory.mktemp("norm"), np.random.default_rng(0)
    x, cotangent = rng.normal(size=(2, 16, 1, 2, 3, 5))
    # A mean far from 0, where E[x^2] - E[x]^2 would cancel, and not the same on any two
    # devices.
    x = 3000 + x + np.linspace(-2, 2, 16).reshape(16, 1, 1, 1, 1)
    given = {"x": x, "cotangent": cotangent}
    given["scale"], given["bias"] = rng.normal(size=(2, 5))
    given = {name: value.astype(np.float32) for name, value in given.items()}
    paths = [folder / "given.npz", folder / "found.npz"]
    np.savez(paths[0], **given)
    flags = "--xla_force_host_platform_device_count=8"
    forks.run(["-c", SCRIPT, *paths], {"XLA_FLAGS": flags})
    return given, dict(np.load(paths[1]))


def normalised(x, cotangent, scale, bias):
    """All results for one group, in float64."""
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axes), x.var(axes)
    factor = 1 / np.sqrt(var + 1e-3)
    hat = (x - mean) * factor
    along = (cotangent * hat).mean(axes)
    return {
        "y": hat * scale + bias,
        "x": scale * factor * (cotangent - cotangent.mean(axes) - hat * along),
        "scale": (cotangent * hat).sum(axes),
        "bias": cotangent.sum(axes),
        "mean": mean,
        "var": x.var(axes, ddof=1),
    }


@pytest.mark.parametrize("rows, groups", CASES)
def test_statistics_are_those_of_float64(runs, rows, groups):
    given, found = runs
    x, cotangent = (np.float64(given[name][:rows]) for name in ("x", "cotangent"))
    parts = [
        normalised(*each, np.float64(given["scale"]), np.float64(given["bias"]))
        for each in zip(np.split(x, groups), np.split(cotangent, groups), strict=True)
    ]
    combine = {"y": np.concatenate, "x": np.concatenate}
    combine |= {"scale": np.sum, "bias": np.sum, "mean": np.mean, "var": np.mean}
    for name, combined in combine.items():
        want = combined([part[name] for part in parts], axis=0)
        # Means of float32 numbers near 3000 are off by 1e-4, a ten-thousandth of a
        # standard deviation.
        limit = 1e-3 * np.abs(want).max() if name != "mean" else 1e-3
        got = found[f"{rows} {groups} {name}"]
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=limit, err_msg=name)


def test_one_message_each_way(runs):
    """What is not BatchNorm's are the gradients of scale and bias: the same message."""
    assert sorted(runs[1]["16 1 messages"]) == ["all-gather", "all-reduce"]
