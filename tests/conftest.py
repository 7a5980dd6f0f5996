"""Every test also checks every shape: jaxtyping's import hook, with beartype."""

import os

# Before JAX is imported. One thread a worker: pytest-xdist runs two of them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

from tests import checking

install_import_hook("ctp_jax", f"{checking.__name__}.check")
