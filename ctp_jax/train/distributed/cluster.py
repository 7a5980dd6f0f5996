"""Where the processes of a run meet: from flags, or from what started them.

No JAX here: a mistake in the flags is answered before it is imported.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re
from collections.abc import Mapping

from ctp_jax.errors import UserError

AUTO = "auto"
"""A coordinator that JAX finds out: on TPUs, from the machine's metadata."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What `jax.distributed.initialize` wants to know.

    Attributes:
        coordinator: `HOST:PORT` of process 0, or `AUTO`, and then the rest is None.
        count: of processes.
        index: of this one, from 0.
        local_devices: numbers of the GPUs that this process drives; None: all that it
            sees.
        sure: whether somebody said that there are several processes; else, where
            they cannot be found, one goes on alone.
    """

    coordinator: str
    count: int | None = None
    index: int | None = None
    local_devices: tuple[int, ...] | None = None
    sure: bool = True


def find(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environ: Mapping[str, str] = os.environ,
) -> Cluster | None:
    """The meeting point, or None for a run of one process.

    Flags come first, then `CTP_COORDINATOR`, then Slurm, then a TPU.

    Args:
        coordinator: `HOST:PORT`, `auto`, or None where the flag is not given.
        count: of processes, or None.
        index: of this process, or None.
        environ: environment variables.

    Raises:
        UserError: flags or variables that are incomplete or contradict each other.
    """
    if coordinator or count is not None or index is not None:
        names = ("--coordinator", "--process_count", "--process_index")
        return _explicit(names, coordinator, count, index)
    if environ.get("CTP_COORDINATOR"):
        return _from_kubernetes(environ)
    if _number(environ, "SLURM_STEP_NUM_TASKS", 1) > 1:
        return _from_slurm(environ)
    return _from_tpu(environ)


def _explicit(names, coordinator, count, index) -> Cluster | None:
    if coordinator == AUTO and count is None and index is None:
        return Cluster(AUTO)
    values = (coordinator, count, index)
    missing = [n for n, v in zip(names, values, strict=True) if v is None or v == ""]
    if missing:
        given = [n for n in names if n not in missing]
        raise UserError(
            f"{' and '.join(given)} without {' and '.join(missing)}: several processes "
            "need all three, or --coordinator=auto on TPUs"
        )
    if not re.fullmatch(r"\[?[^\s/]+?\]?:\d{1,5}", coordinator):
        raise UserError(f"{names[0]}={coordinator}: needs HOST:PORT of process 0")
    if count < 1:
        raise UserError(f"{names[1]}={count}: must be 1 or more")
    if not 0 <= index < count:
        raise UserError(
            f"{names[2]}={index}: must be from 0 to {count - 1}, below {names[1]}"
        )
    return Cluster(coordinator, count, index) if count > 1 else None


def _from_kubernetes(environ) -> Cluster | None:
    """An indexed Job counts its pods itself."""
    index_name = "CTP_PROCESS_INDEX"
    if not environ.get(index_name) and environ.get("JOB_COMPLETION_INDEX"):
        index_name = "JOB_COMPLETION_INDEX"
    names = ("CTP_COORDINATOR", "CTP_PROCESS_COUNT", index_name)
    count, index = (_number(environ, name, None) for name in names[1:])
    return _explicit(names, environ["CTP_COORDINATOR"], count, index)


def _from_slurm(environ) -> Cluster:
    """A job step of several tasks."""
    job = _number(environ, "SLURM_JOB_ID", 0)
    step = _number(environ, "SLURM_STEP_ID", 0)
    host = first_host(environ.get("SLURM_STEP_NODELIST", ""))
    # Above the ports that Linux gives out by itself; other steps get other ports.
    port = 61440 + (job + 101 * step) % 4096
    names = ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    count, index = (_number(environ, name, None) for name in names[1:])
    found = _explicit(names, f"{host}:{port}" if host else None, count, index)
    local = environ.get("SLURM_LOCALID", "")
    # "4(x2),1": four tasks on each of two nodes, one on the next.
    tasks = re.sub(r"\(x\d+\)", "", environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    several_here = any(number != "1" for number in tasks.split(",") if number)
    gpus = [gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if several_here and local.isdigit() and len(gpus) > 1:
        # Tasks that share a node and see all of its GPUs take one each.
        return dataclasses.replace(found, local_devices=(int(local),))
    return found


def first_host(nodes: str) -> str:
    """The first name of a Slurm node list, `gpu[003-005,9],big` say."""
    match = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else ""


def _from_tpu(environ) -> Cluster | None:
    """All hosts of a TPU run the same command, and JAX knows who they are."""
    platforms = environ.get("JAX_PLATFORMS", "")
    if platforms and "tpu" not in platforms:
        return None
    hosts = environ.get("TPU_WORKER_HOSTNAMES")
    if hosts is not None:
        return Cluster(AUTO) if "," in hosts else None
    chips = any(pathlib.Path(f"/dev/{name}").exists() for name in ("accel0", "vfio/0"))
    if chips and importlib.util.find_spec("libtpu"):
        return Cluster(AUTO, sure=False)
    return None


def _number(environ, name: str, default: int | None) -> int | None:
    text = environ.get(name, "")
    if text == "":
        return default
    if not re.fullmatch(r"\d+", text):
        raise UserError(f"environment variable {name}={text}: needs a number")
    return int(text)
