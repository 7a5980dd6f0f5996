"""Whole runs compile the same programs again and again: keep them for the session."""

import os
import tempfile

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def compilation_cache():
    with tempfile.TemporaryDirectory() as directory:
        # In the environment too, for the subprocesses.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        jax.config.update("jax_compilation_cache_dir", directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        yield
        jax.config.update("jax_compilation_cache_dir", None)
