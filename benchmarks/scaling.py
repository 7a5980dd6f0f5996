"""What a training step moves, computes and holds: counted in the compiled program.

    python -m benchmarks.scaling --model r3d18 --devices 8 --batches 2 4 8
    python -m benchmarks.scaling --tpu v5e:2x4      # needs libtpu, but no TPU

Compiles the training step of configs/ucf_r3d.py for a mesh of devices and runs nothing:
needs neither data nor TensorFlow. The step is traced as on a TPU (one 3-D convolution
per layer, drawing by products); the devices are parts of this CPU, or the chips of a TPU slice
that need not be there. Everything is per device and step:

    collectives  by what they are for, in the program before XLA puts small ones
                 together, and how many messages are left when it has; one in a loop
                 counts as often as the loop runs
    sent         a ring that sums n bytes sends 2 (d - 1) / d n from each of d devices, one
                 that gathers them half of that
    FLOPs        as XLA counts them in the compiled program
    memory       the compiler's plan for arguments and temporaries
"""

import collections
import dataclasses
import math
import os
import re
from unittest import mock

import jax

from benchmarks import hlo, measure, pretraining
from ctp_jax.models import resnet3d
from ctp_jax.ranges import DTYPES
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import state

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_KIND = re.compile(rf"({KINDS})(?P<start>-start)?")
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
    program, found = hlo.Program(text), []
    for launched, runs in program.launched():
        for each in program.inside(launched):
            if kind := _KIND.fullmatch(each.op):
                sizes = each.sizes
                if kind["start"] and kind[1] in ("all-gather", "collective-permute"):
                    sizes = sizes[len(sizes) // 2 :]  # of (operands, results)
                found.append(Collective(kind[1], tuple(sizes), runs, each.origin))
    return found


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
    # Nothing runs on a TPU, so several processes may compile.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    # Slices of less than a host's chips must say so.
    one = {"chips_per_host_bounds": [1, 1, 1]} if name.endswith(":1x1") else {}
    topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **one)
    return mesh_lib.of(topology.devices)


def count_collectives(compiled):
    """Per origin: kinds, how many arrays and bytes; and the messages of all."""
    found = read_collectives(compiled.as_text())
    table = collections.defaultdict(lambda: [0, 0])
    for each in found:
        row = table[f"{each.origin} ({each.kind})"]
        row[0] += each.runs * len(each.sizes)
        row[1] += each.runs * sum(each.sizes)
    return dict(table), messages(found)


def messages(found):
    """Bytes of every message of some collectives."""
    return [sum(each.sizes) for each in found for _ in range(each.runs)]


def show_sizes(program):
    """Prints bytes of state and batch, and returns them."""
    parts, rows = program.state, program.batch["mask"].size
    found = {
        "parameters": size(parts.params),
        "optimiser state": size(parts.opt_state),
        "statistics": size(parts.model_state),
        "batch, per clip": size(program.batch) // rows,
        "plan, per clip": size(program.batch["plan"]) // rows,
    }
    print(f"{state.count(parts.params):,} parameters")
    measure.show(("", "bytes"), found.items())
    return found


def show_collectives(lowered, compiled, devices):
    """Prints what is exchanged, and returns (table, bytes of the messages)."""
    _, sent = count_collectives(compiled)
    table, _ = count_collectives(lowered.compile(NOT_COMBINED))
    arrays, total = (sum(column) for column in zip(*table.values(), strict=True))
    rows = [(name, *row) for name, row in sorted(table.items())]
    measure.show(("collectives", "arrays", "bytes"), [*rows, ("all", arrays, total)])
    gathered = sum(held for name, (_, held) in table.items() if "all-gather" in name)
    each = (devices - 1) / devices * (2 * total - gathered)
    print(
        f"when put together, {describe(sent)}; each of {devices} sends {each:,.0f} bytes"
    )
    return table, sent


def describe(sent):
    """How many messages of which sizes, in words."""
    small = sum(size < 1 << 16 for size in sent)
    return (
        f"{len(sent)} messages, {small} of them below 64 KiB, {sum(sent) / 1e6:.1f} MB "
        "in all"
    )


def memory_row(compiled, per_device):
    """The compiler's plan for a program: megabytes; GFLOP per clip."""
    plan = compiled.memory_analysis()
    arguments, temporary = plan.argument_size_in_bytes, plan.temp_size_in_bytes
    own = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return {
        "clips per device": per_device,
        "GFLOP per clip": compiled.cost_analysis()["flops"] / per_device / 1e9,
        "MB: arguments": arguments / 1e6,
        "temporary": temporary / 1e6,
        "total": (arguments + temporary + own) / 1e6,
        "donated": plan.alias_size_in_bytes / 1e6,
    }


def parse():
    parser = measure.make_parser(__spec__.name, __doc__)
    add = parser.add_argument
    add("--model", default="r3d18", choices=resnet3d.NAMES, help="network")
    add("--devices", type=int, default=8, help="parts of this CPU")
    add("--tpu", default="", help="a slice instead of those: v5e:2x4")
    add("--dtype", default="auto", choices=DTYPES, help="of convolutions")
    add("--width", type=float, default=1.0, help="of the network")
    add("--batches", type=int, nargs="+", default=[4], help="clips per device")
    return parser.parse_args()


def main():
    arguments = parse()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    mesh = tpu_mesh(arguments.tpu) if arguments.tpu else mesh_lib.make_mesh()
    found, rows = {"arguments": vars(arguments)}, []
    print(f"{arguments.model} on {mesh.size} x {mesh.devices.flat[0].device_kind}")
    for per_device in arguments.batches:
        config = pretraining.make_config(
            *(arguments.model, per_device * mesh.size),
            *(arguments.dtype, arguments.width),
        )
        # As on an accelerator: no formulations that are there for CPUs.
        with mock.patch.object(jax, "default_backend", return_value="tpu"):
            program = pretraining.Program(config, mesh)
            lowered = program.lower()
        compiled = lowered.compile()
        if not rows:
            found["bytes"] = show_sizes(program)
            table, sent = show_collectives(lowered, compiled, mesh.size)
            found |= {"collectives": table, "messages": sent}
        rows.append(memory_row(compiled, per_device))
    measure.show(tuple(rows[0]), [tuple(row.values()) for row in rows])
    measure.write_json(arguments.json, found | {"memory": rows})


if __name__ == "__main__":
    measure.run(main, devices=False)  # their number is set first
