"""Finds out which processes are one run: from flags, or as JAX detects a cluster.

JAX detects Slurm, Open MPI, Cloud TPU and Kubernetes (`jax._src.clusters`).
"""

import contextlib
import dataclasses
import ipaddress
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from ctp_jax.errors import UserError

_PATIENCE = 60  # seconds until a name must be known: that of a new pod takes some


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Several processes that are one run.

    Attributes:
        source: `flags`, or the name of JAX's class for the cluster.
        coordinator: `HOST:PORT` of process 0; None: JAX finds this and the next two.
        process_count: number of processes.
        process_index: of this process, from 0.
    """

    source: str
    coordinator: str | None = None
    process_count: int | None = None
    process_index: int | None = None

    def listen_address(self, say: Callable[[str], None]) -> str | None:
        """Where process 0 listens: at the address that was named, on no other interface.

        Args:
            say: prints a line for the user.

        Returns:
            ADDRESS:PORT, or None if this is another process, or if JAX or
            $JAX_COORDINATOR_BIND_ADDRESS says it.

        Raises:
            UserError: no address of this machine was named.
        """
        said = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
        if said or self.coordinator is None or self.process_index != 0:
            return None
        name, _, port = self.coordinator.rpartition(":")
        name = name.strip("[]")
        for family, place in _look_up(name):
            with contextlib.suppress(OSError), socket.socket(family) as probe:
                probe.bind((place[0], 0, *place[2:]))
                address = ipaddress.ip_address(place[0].partition("%")[0])
                if address.is_loopback and name not in (str(address), "localhost"):
                    say(
                        f"note: {name} is {address} here, which other machines cannot "
                        "reach: for them, name the address of this machine instead"
                    )
                bracketed = f"[{place[0]}]" if address.version == 6 else place[0]
                return f"{bracketed}:{port}"
        raise UserError(
            f"--coordinator={self.coordinator}: {name} is no address of this machine, "
            "which runs process 0: name one of its own, or set "
            f"JAX_COORDINATOR_BIND_ADDRESS=[::]:{port} to listen on all its interfaces"
        )


def _look_up(name: str) -> list[tuple[Any, Any]]:
    """(family, place) of every address of a host; `UserError` if it has none."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            return [(family, place) for family, _, _, _, place in found]
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--coordinator: {name}: {error.strerror}: name the address of the "
                    "machine that runs process 0"
                ) from error
            time.sleep(1)


def find(
    coordinator: str | None, count: int | None, index: int | None
) -> Cluster | None:
    """The cluster that this process belongs to, or None for a run of one process.

    Args:
        coordinator: --coordinator, `HOST:PORT`; None: the flag is not given. If none of
            the three flags is given, JAX decides.
        count: --process_count, 1 or more. 1 without the others: one process.
        index: --process_index, 0 or more.

    Raises:
        UserError: the flags are incomplete or contradict each other, or JAX detects a
            cluster and cannot read its settings.
    """
    if not coordinator and count is None and index is None:
        return _detect()
    if count == 1 and not index:
        return None
    if not coordinator or count is None or index is None:
        values = {
            "--coordinator": coordinator,
            "--process_count": count,
            "--process_index": index,
        }
        given = [name for name, value in values.items() if value not in (None, "")]
        missing = [name for name in values if name not in given]
        raise UserError(
            f"{' and '.join(given)} without {' and '.join(missing)}: give all three for "
            "several processes"
        )
    port = re.fullmatch(r"\[?[^\s/]+?\]?:(\d{1,5})", coordinator)
    if not port or not 0 < int(port[1]) < 2**16:
        raise UserError(f"--coordinator={coordinator}: must be HOST:PORT of process 0")
    if index >= count:
        raise UserError(
            f"--process_index={index}: must be from 0 to {count - 1} (below "
            "--process_count)"
        )
    return Cluster("flags", coordinator, count, index)


def _detect() -> Cluster | None:
    """The cluster that `jax.distributed.initialize` would find, if it has processes."""
    # Imported here, so that wrong flags are reported before JAX is imported. There is no
    # public name for this.
    from jax._src import clusters

    for kind in clusters.ClusterEnv._cluster_types:
        try:
            if not kind.opt_in_only_method and kind.is_env_present():
                return Cluster(kind.__name__) if kind.get_process_count() > 1 else None
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(
                f"JAX detects a cluster ({kind.__name__}) but cannot read its settings "
                f"({reason}): give --coordinator, --process_count and --process_index, "
                "or --process_count=1 for a run of one process"
            ) from error
    return None
