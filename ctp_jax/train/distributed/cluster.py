"""Which processes are one run: by flags, or as JAX recognises a cluster.

JAX knows Slurm, Open MPI, Cloud TPU and Kubernetes (`jax._src.clusters`); nothing about
them is repeated here.
"""

import dataclasses
import re

from ctp_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Several processes that are one run.

    Attributes:
        source: what says so: `flags`, or the name of JAX's class for the cluster.
        coordinator: `HOST:PORT` of process 0; None: JAX finds it, and the rest.
        process_count: how many there are.
        process_index: of this one, from 0.
    """

    source: str
    coordinator: str | None = None
    process_count: int | None = None
    process_index: int | None = None


def find(
    coordinator: str | None, count: int | None, index: int | None
) -> Cluster | None:
    """The cluster that this process belongs to, or None for a run of one process.

    Args:
        coordinator: the flag --coordinator, `HOST:PORT`; of this and the next two, None
            stands for a flag that is not given. Without any of them JAX decides.
        count: --process_count, 1 or more. 1 alone is a run of one process.
        index: --process_index, 0 or more.

    Raises:
        UserError: flags that are incomplete or contradict each other, or a cluster that
            JAX recognises and cannot read.
    """
    if not coordinator and count is None and index is None:
        return _recognise()
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
            f"{' and '.join(given)} without {' and '.join(missing)}: several "
            "processes need all three"
        )
    if not re.fullmatch(r"\[?[^\s/]+?\]?:\d{1,5}", coordinator):
        raise UserError(f"--coordinator={coordinator}: needs HOST:PORT of process 0")
    if index >= count:
        raise UserError(
            f"--process_index={index}: must be from 0 to {count - 1}, below "
            "--process_count"
        )
    return Cluster("flags", coordinator, count, index)


def _recognise() -> Cluster | None:
    """What `jax.distributed.initialize` would find, if it is several processes."""
    # Not above: a mistake in the flags is answered before JAX is imported.
    from jax._src import clusters  # no public name says whether there is a cluster

    for kind in clusters.ClusterEnv._cluster_types:
        try:
            if not kind.opt_in_only_method and kind.is_env_present():
                return Cluster(kind.__name__) if kind.get_process_count() > 1 else None
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(
                f"JAX recognises a cluster here ({kind.__name__}) but not which "
                f"processes are one run ({reason}): give --coordinator, --process_count "
                "and --process_index, or --process_count=1 for this one alone"
            ) from error
    return None
