"""What a training step moves, computes and holds: counted in the compiled program.

    python -m benchmarks.scaling --model r3d18 --devices 8 --batches 2,4,8
    python -m benchmarks.scaling --tpu v5e:2x4      # needs libtpu, but no TPU

Compiles the training step of configs/ucf_r3d.py for a mesh of devices and runs nothing:
needs neither data nor TensorFlow. The step is traced as on a TPU (one 3-D convolution
per layer, drawing by products); the devices are parts of this CPU, or the chips of a TPU slice
that need not be there. Everything is per device and step:

    collectives  by what they are for, in the program before XLA puts small ones
                 together, and how many messages are left when it has; one in a loop
                 counts as often as the loop runs
    sent         of n bytes a ring sends 2 (d - 1) / d n from each of d devices
    FLOPs        as XLA counts them in the compiled program
    memory       the compiler's plan for arguments and temporaries
"""

import collections
import dataclasses
import functools
import json
import math
import os
import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from benchmarks import command_line, pretraining
from ctp_jax.models import base, resnet3d
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import state

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf" = (?P<type>.*?) (?P<kind>{KINDS})(?P<start>-start)?\(")
_SHAPE = re.compile(r"\b(pred|bf16|[a-z]\d+)\[([\d,]*)\]")
_CALL = re.compile(r"\b(?:body|calls|to_apply|branch_computations)=\{?(%[^,\s)}]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
NOT_COMBINED = {"xla_disable_hlo_passes": "all-reduce-combiner,cpu-all-reduce-combiner"}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a compiled program.

    Attributes:
        kind: all-reduce, ...
        sizes: bytes of each array that it carries.
        runs: how often it runs in a step.
        name: what JAX calls the operation that it came from.
    """

    kind: str
    sizes: tuple[int, ...]
    runs: int
    name: str

    @property
    def origin(self) -> str:
        """What it is for."""
        backward = "transpose(" in self.name
        if re.search(r"bn\d?/", self.name):
            return f"BatchNorm, {'backward' if backward else 'forward'}"
        return "gradients" if backward else "metrics"


def read_collectives(text):
    """The collectives of a program, from its HLO as text."""
    calls, found = collections.defaultdict(list), []
    inside = entry = ""
    for line in text.splitlines():
        if line.endswith("{") and " -> " in line:
            inside = re.match(r"(?:ENTRY )?(%?[^\s(]+)", line)[1].lstrip("%")
            entry = inside if line.startswith("ENTRY") else entry
        trips = _TRIPS.search(line)
        for called in _CALL.findall(line):
            times = int(trips[1]) if trips and " while(" in line else 1
            calls[called.lstrip("%")].append((inside, times))
        if match := _COLLECTIVE.search(line):
            found.append((match, inside))

    @functools.cache
    def runs(computation):
        if computation == entry:
            return 1
        return sum(times * runs(caller) for caller, times in calls[computation])

    return [_collective(match, runs(inside)) for match, inside in found]


def _collective(match, runs):
    sizes = [_bytes(*shape) for shape in _SHAPE.findall(match["type"])]
    if match["start"] and match["kind"] in ("all-gather", "collective-permute"):
        sizes = sizes[len(sizes) // 2 :]  # of (operands, results)
    name = re.search(r'op_name="([^"]*)"', match.string)
    return Collective(match["kind"], tuple(sizes), runs, name[1] if name else "")


def _bytes(dtype, dimensions):
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
    return bits * math.prod(map(int, filter(None, dimensions.split(",")))) // 8


def size(tree):
    """Bytes of all arrays, or shapes of arrays, in a tree."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def tpu_mesh(name):
    """A mesh of TPU chips that need not be there: 'v5e:2x4'. Needs libtpu."""
    # Or libtpu would look for the machine's own TPU.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_WORKER_ID", "0")
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
    devices = np.array(topology.devices)
    return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))


def count_collectives(compiled):
    """Per origin: kinds, how many arrays and bytes; and the messages of all."""
    found = read_collectives(compiled.as_text())
    table = collections.defaultdict(lambda: [0, 0])
    for each in found:
        row = table[f"{each.origin} ({each.kind})"]
        row[0] += each.runs * len(each.sizes)
        row[1] += each.runs * sum(each.sizes)
    messages = [sum(each.sizes) for each in found for _ in range(each.runs)]
    return dict(table), messages


def show_sizes(first, found):
    parts, rows = first.state, first.batch["mask"].size
    found["bytes"] = {
        "parameters": size(parts.params),
        "optimiser state": size(parts.opt_state),
        "statistics": size(parts.model_state),
        "batch, per clip": size(first.batch) / rows,
        "plan, per clip": size(first.batch["plan"]) / rows,
    }
    print(f"{state.count(parts.params):,} parameters; bytes")
    for name, value in found["bytes"].items():
        print(f"  {name:<22}{value:>14,.0f}")


def show_collectives(table, messages, devices):
    print(f"{'collectives':<36}{'arrays':>8}{'bytes':>14}")
    for name, (arrays, held) in sorted(table.items()):
        print(f"  {name:<34}{arrays:>8}{held:>14,}")
    total = sum(held for _, held in table.values())
    small = sum(message < 1 << 16 for message in messages)
    print(f"  {'all':<34}{sum(a for a, _ in table.values()):>8}{total:>14,}")
    print(
        f"  messages when put together: {len(messages)}, {small} of them below 64 KiB"
    )
    print(
        f"  sent by each of {devices}: {2 * (devices - 1) / devices * total:,.0f} bytes"
    )


def parse():
    def size(text):
        return command_line.counts(text.replace("x", ","))

    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument("--model", default="r3d18", choices=resnet3d.NAMES)
    parser.add_argument(
        "--devices", type=command_line.count, default=8, help="parts of this CPU"
    )
    parser.add_argument("--tpu", default="", help="instead of those, e.g. v5e:2x4")
    parser.add_argument("--dtype", default="auto", choices=base.DTYPES)
    parser.add_argument(
        "--width", type=command_line.positive, default=1.0, help="of the network"
    )
    parser.add_argument(
        "--batches", type=command_line.counts, default=[4], help="clips per device"
    )
    parser.add_argument(
        "--canvas", type=size, default=pretraining.CANVAS, help="HEIGHTxWIDTH"
    )
    return parser.parse_args()


def show_memory(per_device, memory):
    names = ("arguments", "temporary", "total", "donated")
    a, b, c, d = (memory[name] / 1e6 for name in names)
    gigaflops = memory["flops"] / 1e9
    print(
        f"{per_device:>8}{gigaflops:>16.1f}{a:>14.0f}{b:>13.0f}{c:>9.0f}{d:>11.0f}",
        flush=True,
    )


def main():
    arguments = parse()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    mesh = tpu_mesh(arguments.tpu) if arguments.tpu else mesh_lib.make_mesh()
    found = {"devices": mesh.size, "memory": {}}
    print(f"{arguments.model} on {mesh.size} x {mesh.devices.flat[0].device_kind}")
    for number, per_device in enumerate(arguments.batches):
        config = pretraining.make_config(
            arguments.model,
            per_device * mesh.size,
            arguments.dtype,
            arguments.width,
        )
        # As on an accelerator: no formulations that are there for CPUs.
        program = pretraining.Step(config, mesh, arguments.canvas, traced_as="tpu")
        lowered = program.lower()
        compiled = lowered.compile()
        if number == 0:
            show_sizes(program, found)
            _, messages = count_collectives(compiled)
            table, _ = count_collectives(lowered.compile(NOT_COMBINED))
            show_collectives(table, messages, mesh.size)
            found |= {"collectives": table, "messages": messages}
            print(
                "   clips  GFLOP per clip  MB: arguments  temporary    total    donated"
            )
        memory = pretraining.planned_memory(compiled)
        memory["flops"] = compiled.cost_analysis()["flops"] / per_device
        found["memory"][per_device] = memory
        show_memory(per_device, memory)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    command_line.run(main)
