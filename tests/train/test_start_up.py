"""A quick start: light compilation of the initial state, and the compilation cache."""

import json
import re

import jax
import numpy as np
import pytest

from ctp_jax.train import setup
from tests import forks

pytestmark = pytest.mark.usefixtures("optimized")

COUNTING = """
import atexit, collections, os, runpy, jax
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
name = "/jax/compilation_cache/cache_"
atexit.register(lambda: print("programs", counts[name + "misses"], counts[name + "hits"]))
runpy.run_module("tests.toy_run", run_name="__main__", alter_sys=True)
"""


def test_the_quick_compilation_gives_the_same_bits():
    def make(key):
        keys = jax.random.split(key, 3)
        normal = jax.random.normal(keys[0], (3, 3, 16, 32)) * 0.2
        truncated = jax.random.truncated_normal(keys[1], -2, 2, (64, 48))
        return normal, truncated, jax.random.uniform(keys[2], (777,))

    usual = jax.jit(make)(jax.random.key(3))
    quick = jax.jit(make, compiler_options=setup._quick_compilation())
    for one, other in zip(usual, quick(jax.random.key(3)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_second_start_compiles_nothing(tmp_path):
    cache = tmp_path / "cache"
    environ = {"JAX_COMPILATION_CACHE_DIR": str(cache)}

    def programs_after(workdir):
        settings = json.dumps({"config": {"steps": 3}})
        out = forks.run(["-c", COUNTING, tmp_path / workdir, settings], environ)
        (counts,) = re.findall(r"programs (\d+) (\d+)", out)
        names = {path.name for path in cache.iterdir() if path.name.endswith("-cache")}
        return names, [int(count) for count in counts]

    names, (made, _) = programs_after("one")
    kinds = {name.rpartition("-cache")[0].rpartition("-")[0] for name in names}
    assert {"jit_init", "jit_train_step", "jit_eval_step", "jit__sums"} <= kinds
    assert made >= 2
    assert programs_after("two") == (names, [0, made])
