"""ctp_jax: Catch-the-Patch self-supervised video pretraining in JAX/Flax.

Public are `load_encoder` and `read_clips`, see `ctp_jax.encoder`; and the commands,
`python -m ctp_jax.main` and others.
"""

import sys
from typing import TYPE_CHECKING, Any

from ctp_jax.versions import VERSION as __version__

if TYPE_CHECKING:
    from ctp_jax.encoder import load_encoder, read_clips

__all__ = ["__version__", "load_encoder", "read_clips"]

# Python's value while it looks for the module of `python -m ctp_jax.<command>`.
_IS_COMMAND = sys.argv[:1] == ["-m"]

if sys.platform == "win32":
    _REMEDY = (
        "ctp_jax runs on Linux and macOS: on Windows, use it in WSL (wsl --install)"
    )
    raise SystemExit(_REMEDY) if _IS_COMMAND else ImportError(_REMEDY)

# Ctrl-C ends a command with one line from here on, while its modules are imported, too.
if _IS_COMMAND:
    from ctp_jax import terminal

    terminal.end_on_interrupt()


def __getattr__(name: str) -> Any:
    """Imports what is public on first use: commands start faster without JAX."""
    if name in ("load_encoder", "read_clips"):
        from ctp_jax import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
