"""S3D-G against PyTorch in float64; S3D's outputs are in tests/interop/test_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ctp_jax import models
from ctp_jax.interop import from_torch
from tests import float64


@pytest.mark.slow
def test_features_statistics_and_gradients():
    """Layers have torchvision's names there; the gates' weights are put beside them."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.interop import torch_models

    net = torch_models.TorchvisionS3D(torch_models.narrow, 11, gates=True)
    torch_models.scramble(net)
    found = from_torch.convert(*torch_models.narrow_state(net), "").encoder
    model = ConfigDict({**found.architecture, "dtype": "float32", "conv": "direct"})
    model.name = "s3dg"
    ours = models.create(model).clone(dtype=jnp.dtype("float64"))
    params, linear = dict(found.params), {}
    blocks = [name for name in sorted(params) if name.endswith("branch0")]
    mixed = [part for part in net.features if hasattr(part, "gates")]
    for block, part in zip(blocks, mixed, strict=True):
        for number, gate in enumerate(part.gates):
            torch.nn.init.normal_(gate.weight, 0, 0.5)
            linear[block.replace("branch0", f"gate{number}")] = gate.double()
    net.double().train()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 64, 64, 3))
    want = net.features(torch.tensor(x).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
    weights = rng.normal(size=want.shape)
    (want * torch.tensor(weights)).sum().backward()
    for name, gate in linear.items():
        kernel, bias = gate.weight.detach().numpy().T, gate.bias.detach().numpy()
        params[name] = {"dense": {"kernel": kernel, "bias": bias}}
    with jax.enable_x64(True), float64.quick_convolutions():
        params, stats = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), (params, found.batch_stats)
        )

        def loss(params, stats, x):
            variables = {"params": params, "batch_stats": stats}
            features, new = ours.apply(variables, x, True, mutable=["batch_stats"])
            return (features * weights).sum(), (features, new["batch_stats"])

        step = jax.jit(jax.grad(loss, has_aux=True))
        slopes, (got, new) = jax.device_get(step(params, stats, x))
    largest = np.abs(got).max()
    np.testing.assert_allclose(got, want.detach(), rtol=0, atol=1e-9 * largest)
    for name, gate in linear.items():
        mine, weight, bias = slopes.pop(name)["dense"], gate.weight.grad, gate.bias.grad
        np.testing.assert_allclose(mine["kernel"].T, weight, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(mine["bias"], bias, rtol=1e-7, atol=1e-9)
    # The slopes under their names there, and the statistics, rounded to float32.
    with torch.no_grad():
        for part in net.features.parameters():
            part.copy_(part.grad)
    wanted = from_torch.convert(*torch_models.narrow_state(net.float()), "").encoder
    for mine, other in ((slopes, wanted.params), (new, wanted.batch_stats)):
        assert jax.tree.structure(mine) == jax.tree.structure(other)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())
