"""The line about the start, and that a second start compiles nothing."""

import json
import os
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.train import setup, start_up

pytestmark = pytest.mark.usefixtures("optimized")


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(1, 3), (5, 6)], 3),
        ([(1, 3), (2, 4)], 3),
        ([(2, 3), (1, 5), (4, 5)], 4),
    ],
)
def test_nested_and_overlapping_spans_count_once(spans, length):
    assert start_up.covered(spans) == length


def test_the_line_says_where_time_went():
    clock, said = start_up.StartUp(), []
    clock._began = clock._last = time.perf_counter()
    time.sleep(0.25)
    clock.mark("imports")
    jax.jit(lambda x: jnp.sin(x) * 0.125)(1.0)
    time.sleep(0.15)
    clock.finish(said.append)
    (line,) = said
    total, imports, step, tracing, compiling = map(float, re.findall(r"\d+\.\d", line))
    assert 0.2 <= imports <= 0.4 and step >= 0.1
    assert total == pytest.approx(imports + step, abs=0.11)
    assert tracing + compiling <= step + 0.1
    assert line.endswith("from the cache)")
    spans = [list(each) for each in clock._spans.values()]
    assert all(spans)
    jax.jit(lambda x: jnp.cos(x) * 0.125)(1.0)  # of no concern any more
    assert spans == list(clock._spans.values())


def test_only_the_first_clock_counts_from_the_start_of_the_process():
    script = (
        "import time; time.sleep(0.6)\n"
        "from ctp_jax.train import start_up\n"
        "for clock in (start_up.StartUp(), start_up.StartUp()):\n"
        "    clock.mark('imports'); print(clock.line())\n"
    )
    began = time.perf_counter()
    out = subprocess.check_output([sys.executable, "-c", script], text=True)
    whole = time.perf_counter() - began
    first, second = (float(x) for x in re.findall(r"start-up (\d+\.\d)", out))
    assert 0.6 <= first <= whole + 0.1 and second < 0.3


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
    environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}

    def programs_after(workdir):
        command = [sys.executable, "-m", "tests.toy_run", str(tmp_path / workdir)]
        settings = json.dumps({"config": {"steps": 3}})
        out = subprocess.check_output([*command, settings], env=environ, text=True)
        (counts,) = re.findall(r"start-up .*\((\d+) programs, (\d+) from", out)
        names = {path.name for path in cache.iterdir() if path.name.endswith("-cache")}
        return names, [int(count) for count in counts]

    names, (made, _) = programs_after("one")
    kinds = {name.rpartition("-cache")[0].rpartition("-")[0] for name in names}
    assert {"jit_init", "jit_train_step", "jit_eval_step", "jit__sums"} <= kinds
    assert made >= 2
    assert programs_after("two") == (names, [0, made])
