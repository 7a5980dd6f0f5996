"""What XLA makes of the training step on a chip that is not here: counted, not timed.

    python -m benchmarks.compiled --chip h200 [--config configs/ucf_r3d.py --batch 32]
    python -m benchmarks.compiled --chip v5e --devices 8

Compiles the step for the chip and runs nothing: needs neither the chip, nor data, nor
TensorFlow, but the compiler. For an H200 that is in `pip install "jax[cuda13]"`, for
TPUs in `pip install "jax[tpu]"`; both can be in one environment, of their own. Another GPU
is described by a GpuTargetConfig in text form, `--target FILE`; benchmarks/h200.txt is one.

    convolutions   what each is for and, on GPUs, which call of cuDNN computes it. For the
                   gradient of a kernel there is BackwardFilter; a forward convolution whose
                   window is a whole map is slow, and counted as a miss
    kernels        everything that is launched in a step: fusions, calls, copies
    transposes     kernels with a transposition in them, and the bytes that these make
    memory         the compiler's plan; on GPUs without the workspace of cuDNN
    messages       of collectives, of all devices (benchmarks/scaling.py)

XLA measures algorithms of cuDNN where there is a GPU; so which are used is not known.
"""

import argparse
import collections
import importlib
import os
import pathlib
import time
from unittest import mock

import jax
from jax.sharding import Mesh

from benchmarks import hlo, measure, pretraining, scaling
from ctp_jax.errors import UserError
from ctp_jax.ranges import CONVOLUTIONS, DTYPES
from ctp_jax.tasks import base
from ctp_jax.train import mesh as mesh_lib

TPU_SLICES = {
    1: "1x1",
    4: "2x2",
    8: "2x4",
    16: "4x4",
    32: "4x8",
    64: "8x8",
    256: "16x16",
}
"""Slices of v5e and v6e, by their chips."""

H200 = pathlib.Path(__file__).with_name("h200.txt")
TASKS = ("ctp", "recognition")


def gpu_mesh(target: str, devices: int) -> Mesh:
    """A mesh of GPUs that need not be there.

    Args:
        target: a GpuTargetConfig, as text.
        devices: of one host.

    Raises:
        UserError: the compiler is not installed.
    """
    from jax._src import xla_bridge
    from jax.experimental import topologies

    jax.devices()  # looks for plug-ins
    if "cuda" not in xla_bridge._backend_factories:
        raise UserError('there is no compiler for GPUs: pip install "jax[cuda13]"')
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=target, topology=f"1x1x{devices}"
    )
    return mesh_lib.of(topology.devices)


def named_platform():
    """A context in which programs can be lowered for GPUs where there are none.

    JAX asks the missing backend what the platform is called (jax#23971).
    """
    from jax._src import xla_bridge

    known = xla_bridge.canonicalize_platform

    def canonicalize(platform):
        return "cuda" if platform in ("gpu", "cuda") else known(platform)

    return mock.patch.object(xla_bridge, "canonicalize_platform", canonicalize)


def make_mesh(chip: str, devices: int, target: str = "") -> Mesh:
    """A mesh of chips that need not be there.

    Args:
        chip: 'h200', or a TPU.
        devices: how many.
        target: a file that describes another GPU than the H200.

    Raises:
        UserError: the compiler is not installed, or there are no such slices.
    """
    if chip == "h200":
        return gpu_mesh(pathlib.Path(target or H200).read_text(), devices)
    if devices not in TPU_SLICES:
        raise UserError(f"--devices {devices}: TPUs come in {[*TPU_SLICES]}")
    if not measure.is_installed("libtpu"):
        raise UserError('there is no compiler for TPUs: pip install "jax[tpu]"')
    return scaling.tpu_mesh(f"{chip}:{TPU_SLICES[devices]}")


def make_config(path: str, batch: int, dtype: str, conv: str, frames: int):
    """A config of the game or of finetuning, 'configs/ucf_r3d.py:ARG'.

    Args:
        path: of its file.
        batch: clips of all devices.
        dtype, conv: `config.model.dtype` and `config.model.conv`.
        frames: of a clip; 0: as it is.
    """
    name, _, argument = path.partition(":")
    module = importlib.import_module(f"configs.{pathlib.Path(name).stem}")
    config = module.get_config(argument or None)
    if config.task not in TASKS:
        raise UserError(f"--config {path}: task {config.task}, not one of {TASKS}")
    config.batch_size = batch
    config.model.dtype, config.model.conv = dtype, conv
    config.clip.num_frames = frames or config.clip.num_frames
    return config


def compile_step(config, mesh: Mesh, backend: str):
    """The compiled training step of a config.

    Args:
        config: from `make_config`.
        mesh: from `make_mesh`.
        backend: 'gpu' or 'tpu', for which convolutions are formulated.
    """
    batch = pretraining.make_batch(config)
    task = None
    if config.task == "recognition":
        task = base.load(config)
        task.class_names = [str(number) for number in range(config.num_classes)]
    with (
        mock.patch.object(jax, "default_backend", return_value=backend),
        named_platform(),
    ):
        program = pretraining.Program(config, mesh, task, batch)
        return program.lower().compile()


def summarise(text: str) -> dict:
    """Counts of a program, from its HLO as text."""
    program = hlo.Program(text)
    found = program.convolutions()
    table = collections.Counter(
        (each.kind, each.call, each.layout, each.window) for each in found
    )
    moves = hlo.count_moves(program)
    return {
        "convolutions": [[*key, count] for key, count in sorted(table.items())],
        "misses": sum(each.is_miss for each in found),
        "kernels": sum(times for _, times in program.launched()),
        **{what: moves.get(what, (0, 0)) for what in ("transposes", "copies")},
        "messages": scaling.messages(scaling.read_collectives(text)),
    }


def show(found: dict, plan) -> None:
    """Prints counts, and the compiler's plan for memory."""
    by_kind = collections.Counter()
    for kind, call, layout, _, count in found["convolutions"]:
        by_kind[kind, call, layout] += count
    header = ("convolutions", "call", "layout", "")
    measure.show(header, [(*key, count) for key, count in by_kind.items()])
    print(f"gradients of kernels that are no BackwardFilter: {found['misses']}")
    print(f"kernels: {found['kernels']}")
    for what in ("transposes", "copies"):
        count, moved = found[what]
        print(f"{what}: {count}, {moved / 1e6:.0f} MB")
    print(
        f"memory: arguments {plan.argument_size_in_bytes / 1e6:.0f} MB, "
        f"temporary {plan.temp_size_in_bytes / 1e6:.0f} MB"
    )
    print(scaling.describe(found["messages"]))


def parse(argv=None) -> argparse.Namespace:
    parser = measure.make_parser(__spec__.name, __doc__)
    add = parser.add_argument
    add("--chip", choices=("h200", "v5e", "v6e"), default="h200", help="what for")
    add("--target", default="", metavar="FILE", help="another GPU, instead of h200's")
    add("--config", default="configs/ucf_r3d.py", help="of the game or of finetuning")
    add("--batch", type=int, default=32, help="clips of a device")
    add("--devices", type=int, default=1, help="chips")
    add("--frames", type=int, default=0, help="of a clip; 0: those of the config")
    add("--dtype", choices=DTYPES, default="auto", help="of convolutions")
    add("--conv", choices=CONVOLUTIONS, default="auto", help="how they are computed")
    add("--windows", action="store_true", help="list all convolutions")
    add("--text", default="", metavar="FILE", help="the program goes there")
    return parser.parse_args(argv)


def main():
    arguments = parse()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the compiler is wanted, not the GPU
    jax.config.update("jax_platforms", "cpu")
    mesh = make_mesh(arguments.chip, arguments.devices, arguments.target)
    config = make_config(
        *(arguments.config, arguments.batch * mesh.size),
        *(arguments.dtype, arguments.conv, arguments.frames),
    )
    start = time.perf_counter()
    backend = "gpu" if arguments.chip == "h200" else "tpu"
    compiled = compile_step(config, mesh, backend)
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    if arguments.text:
        pathlib.Path(arguments.text).write_text(text)
    found, plan = summarise(text), compiled.memory_analysis()
    print(
        f"{arguments.config}, {arguments.batch} clips on each of {mesh.size} x "
        f"{mesh.devices.flat[0].device_kind}: compiled in {seconds:.0f} s"
    )
    show(found, plan)
    if arguments.windows:
        measure.show(
            ("convolution", "call", "layout", "window", ""), found["convolutions"]
        )
    memory = {
        name: getattr(plan, f"{name}_size_in_bytes") for name in ("argument", "temp")
    }
    measure.write_json(
        arguments.json, {"arguments": vars(arguments), "memory": memory, **found}
    )


if __name__ == "__main__":
    measure.run(main, devices=False)
