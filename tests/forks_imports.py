"""What the processes of tests/forks.py have imported."""

import os

# As in ctp_jax.cli.quiet.
os.environ["TF_USE_LEGACY_KERAS"] = "1"

from ctp_jax import report, visualize
from ctp_jax.data import pipeline
from ctp_jax.train import loop
from tests import compiling, rare_collections, toy_data

__all__ = ["loop", "pipeline", "report", "toy_data", "visualize"]

compiling.quickly()
compiling.keep_everything()
rare_collections.begin()
