"""ctp_jax: Catch-the-Patch self-supervised video pretraining in JAX/Flax."""

import sys

__version__ = "0.1.0"

# Python's value while it looks for the module of `python -m ctp_jax.<command>`: Ctrl-C
# ends a command with one line from here on, while its modules are imported, too.
if sys.argv[:1] == ["-m"]:
    from ctp_jax import terminal

    terminal.end_on_interrupt()
