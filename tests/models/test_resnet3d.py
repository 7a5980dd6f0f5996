"""R3D-18 and R(2+1)D-18 against PyTorch and published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax import models
from tests.models.made_networks import (
    SMALL,
    count,
    model_config,
    random_variables,
    shapes,
)


def test_r3d18_has_the_papers_parameters():
    variables, _ = shapes(models.create(model_config()))
    assert count(variables["params"]) == 33_166_272


@pytest.mark.slow
def test_bfloat16_stays_close():
    config = model_config(name="r2plus1d18", **SMALL)
    full = models.create(config)
    config.dtype = "bfloat16"
    half = models.create(config)
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


def test_mid_channels_of_a_block_as_torchvision_has_them():
    """Tran et al.'s caffe2 models and torchvision: 144 144 | 230 230 | 460 460 | ..."""

    def mids(mid_per_block):
        config = model_config(name="r2plus1d18", mid_per_block=mid_per_block)
        params = shapes(models.create(config))[0]["params"]
        return [
            params[f"stage{stage}_block1"][conv]["spatial"]["kernel"].shape[-1]
            for stage in (1, 2, 3, 4)
            for conv in ("conv1", "conv2")
        ]

    assert mids(True) == [144, 144, 230, 230, 460, 460, 921, 921]
    assert mids(False) == [144, 144, 230, 288, 460, 576, 921, 1152]
