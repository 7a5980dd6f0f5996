"""The device mesh: one axis, `data`, over every device of every process.

Arrays are either replicated or split along their leading dimension. Under `jax.jit`
over this mesh, a mean over the batch is a mean over all devices. So gradients are averaged
and BatchNorm is synchronised without further code.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ctp_jax.errors import UserError


def make_mesh() -> Mesh:
    """A mesh over all devices, ordered by process.

    So a global batch has the rows of process 0, then those of process 1, and so on: the
    same order as in a run of one process.
    """
    devices = sorted(
        jax.devices(), key=lambda device: (device.process_index, device.id)
    )
    return of(devices)


def one_device() -> Mesh:
    """A mesh of the first device alone, to inspect a run."""
    return of(jax.local_devices()[:1])


def of(devices: Sequence[Any]) -> Mesh:
    """A mesh of these devices, in this order."""
    # Auto, because the new default, Explicit, requires shardings in our programs.
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters and metrics."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: leading dimension over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int, num_devices: int, parts: int = 1) -> None:
    """Raises `UserError` unless the devices can share the batch evenly.

    Args:
        batch_size: over all devices.
        num_devices: of the mesh.
        parts: `config.optimizer.accumulate`, in which each device computes its share.
    """
    unit = num_devices * parts
    if batch_size % unit == 0:
        return
    below = batch_size // unit * unit
    sizes = [size for size in (below, below + unit) if size > 0]
    raise UserError(
        f"config.batch_size = {batch_size} is not divisible by {num_devices} devices"
        + f" in {parts} parts each (config.optimizer.accumulate)" * (parts > 1)
        + f": use {' or '.join(map(str, sizes))}"
    )


def put(batch: Any, mesh: Mesh) -> Any:
    """This process's share of a batch (NumPy) as global arrays on the devices.

    Returns at once: the transfer runs while the device computes.
    """
    sharding = over_batch(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
        dict(batch),
    )
