"""What a command does before it uses JAX's devices: `start`."""

import os
import sys
from importlib import metadata

from ctp_jax.errors import UserError
from ctp_jax.storage import files


def start() -> None:
    """Sets up the compiler, then looks for devices; raises `UserError` if there are none."""
    prepare()
    check()


def prepare(small: bool = True) -> None:
    """Sets up the compiler.

    Args:
        small: see `use_compilation_cache`.
    """
    use_onednn()
    use_compilation_cache(small)


ONEDNN = ("--xla_cpu_use_onednn", "--xla_cpu_experimental_onednn_custom_call")
"""Switches of XLA: call oneDNN for convolutions and matrix products on CPUs."""


def has_onednn() -> bool:
    """Whether this jaxlib is one whose oneDNN was tried.

    Older ones have none, and XLA ends the process at a switch that it does not know.
    """
    return metadata.version("jaxlib").startswith("0.12.")


def use_onednn() -> None:
    """Lets XLA call oneDNN on CPUs, see `ctp_jax.models.conv.onednn`.

    Where `$XLA_FLAGS` has one of the switches already, it stays as it is.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if has_onednn() and not any(name in given for name in ONEDNN):
        switches = " ".join(f"{name}=true" for name in ONEDNN)
        os.environ["XLA_FLAGS"] = f"{given} {switches}".strip()


def use_compilation_cache(small: bool = True) -> None:
    """Caches compiled programs on the disk, so that a second start takes seconds.

    They are in $JAX_COMPILATION_CACHE_DIR, by default `~/.cache/ctp_jax`.

    Args:
        small: also cache programs that compile in less than a second; a run has many.
            False for several processes: one might read what another is writing.
    """
    import jax  # not above: commands that need no JAX start faster without

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        try:
            cache = files.absolute(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        except UserError as error:
            print(f"note: compiled programs are not cached: {error}", file=sys.stderr)
            return
        jax.config.update("jax_compilation_cache_dir", os.fspath(cache / "ctp_jax"))
    if small and not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def check() -> None:
    """Raises `UserError` if JAX finds no devices."""
    import jax

    try:
        jax.devices()
    except Exception as error:  # of any kind, even AssertionError
        wanted = os.environ.get("JAX_PLATFORMS")
        named = f"JAX_PLATFORMS={wanted}" if wanted else "JAX"
        # JAX adds advice in brackets.
        reason = " ".join(str(error).split()).partition(" (set ")[0][:200]
        reason = reason or type(error).__name__
        raise UserError(
            f"{named}: no such device here ({reason}): unset JAX_PLATFORMS, or install "
            "JAX for the device (jax[cuda], jax[tpu]) and check its driver and "
            "CUDA_VISIBLE_DEVICES"
        ) from error
