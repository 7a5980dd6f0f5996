"""ctp_jax: Catch-the-Patch self-supervised video pretraining in JAX/Flax."""

__version__ = "0.1.0"
