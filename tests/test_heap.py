import json
import os
import subprocess
import sys

import pytest

from ctp_jax import heap

# Page faults of a later call of a program with intermediates of 64 MB and more, and whether
# `keep` did anything.
PROGRAM = """
import json, resource, sys
from ctp_jax import heap
kept = heap.keep() if sys.argv[1] == "keep" else False
import jax, jax.numpy as jnp
x = jnp.ones((2048, 2048))
chain = jax.jit(lambda x: (x @ x.T @ (x @ x) @ (x.T @ x)).sum())
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    chain(x).block_until_ready()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps([kept, faults]))
"""


def run(what, **environment):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    command = [sys.executable, "-c", PROGRAM, what]
    text = subprocess.check_output(command, env=environment, text=True)
    return json.loads(text)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="another allocator than glibc's"
)
def test_what_a_step_frees_the_next_one_gets_without_page_faults():
    kept, with_it = run("keep")
    assert kept
    _, without = run("leave")
    assert with_it < without / 10


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_PLATFORMS": "cuda,cpu"},
        {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    ],
)
def test_it_leaves_accelerators_and_who_tunes_malloc_alone(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not heap.keep()
