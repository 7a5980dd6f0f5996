"""Convolutions by oneDNN, in a process whose XLA was told to call it as commands do."""

import platform

import pytest

from ctp_jax import devices
from tests import forks

SCRIPT = """
import functools
import jax
from ctp_jax import devices
from ctp_jax.models.conv import conv3d, onednn
from tests.models import test_layers

devices.use_onednn()
assert onednn.is_called()
layers = {**test_layers.LAYERS, "wide": ((3, 3, 3), (1, 1, 1), (1, 1, 1), 16, 40)}
for kernel, strides, padding, channels, features in layers.values():
    x, k = test_layers.example(kernel, channels, features)
    test_layers.compare(x, k, strides, padding, "auto")
    ours = functools.partial(conv3d.conv3d, strides=strides, padding=padding)
    text = jax.jit(ours).lower(x, k).compile().as_text()
    assert ("__onednn$convolution" in text) == (kernel != (1, 1, 1)), (kernel, text)
"""


HAS_ONEDNN = devices.has_onednn() and platform.machine() == "x86_64"


@pytest.mark.skipif(not HAS_ONEDNN, reason="this XLA has no oneDNN")
def test_every_layer_is_the_plain_convolution_by_onednn():
    forks.run(["-c", SCRIPT], {"XLA_FLAGS": ""})


@pytest.mark.parametrize("given", ["", "--xla_cpu_use_onednn=false"])
def test_switches_of_the_user_stay(given):
    script = "import os; from ctp_jax import devices; devices.use_onednn(); print(os.environ['XLA_FLAGS'])"
    lines = forks.run(["-c", script], {"XLA_FLAGS": given}).splitlines()
    assert ("=true" in lines[-1]) == (devices.has_onednn() and not given)
