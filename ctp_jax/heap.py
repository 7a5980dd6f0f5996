"""Freed memory is kept for the next step where a CPU computes.

XLA allocates all intermediates of a program anew in every call, a gigabyte in a step of
R3D-18 on two clips, and frees them after it. glibc returns blocks of that size to the
kernel, which hands them out again page by page, each filled with zeros and charged with
a page fault: some 10 % of the step, and more on virtual machines. Accelerators have an
allocator of their own.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform

# Of mallopt(3). One arena: all others take large blocks from the kernel whatever is set.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1
_SETTINGS = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}


def keep() -> bool:
    """Lets this process keep what it frees; to be called before JAX makes its threads.

    Does nothing where JAX may find an accelerator, without glibc, and where
    $GLIBC_TUNABLES sets something of malloc.

    Returns:
        Whether it was done.
    """
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if tuned or platform.libc_ver()[0] != "glibc" or not _is_cpu_all_there_is():
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(name, value) for name, value in _SETTINGS.items())


def _is_cpu_all_there_is() -> bool:
    """Whether JAX will compute on the CPU, without asking it: that makes its threads."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not (
        any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))
        or importlib.metadata.entry_points(group="jax_plugins")
    )
