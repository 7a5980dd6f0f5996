"""Memory in large pages, which glibc asks for only if it is told when a process starts.

Steps on CPUs and batches of clips are allocated anew again and again, and the system then
clears every page of theirs: with pages of 2 MiB instead of 4 KiB, that and looking up
addresses take less time (docs/performance.md). Light imports only.
"""

import os
import sys

_VARIABLE = "GLIBC_TUNABLES"


def start_again() -> None:
    """Starts this process again, by the same command, with large pages; once.

    Returns where there is nothing to do: without glibc, and where `$GLIBC_TUNABLES` is
    set, be it to nothing. Where the system offers no large pages, they make no difference.
    """
    if _VARIABLE in os.environ or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return
    os.environ[_VARIABLE] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
