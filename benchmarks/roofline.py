"""What an accelerator could reach at most, on paper; and what the compiler counts.

    python -m benchmarks.roofline [--model r3d18] [--chip h200 | --flops F --bandwidth B]
    python -m benchmarks.roofline --compile --batch 4 [--tpu v5e:2x2]

Paper: every layer runs by itself, and takes as long as its products or its memory
traffic, whichever is longer, at the full rate of the chip. Rates of the chips are
ASSUMED, from their makers; pass measured ones (`python -m benchmarks.ceilings`) instead.
Of an activation of n numbers,

    convolution     reads its input and writes its output; the gradient of the kernel
                    reads input and cotangent, that of the input reads the cotangent and
                    writes; none of the clip
    normalisation   reads three times (mean; variance, which needs the mean; the result)
                    and writes once; backward reads it and the cotangent twice (two sums;
                    the gradient, which needs them) and writes once. ReLU and the cast
                    are part of it
    sum             of a block: reads the other branch, forward and backward
    parameters      once a step: read and written by the optimiser, with momentum and
                    gradient; the gradient once more for its norm; a copy in bfloat16

`--compile` counts FLOPs and bytes in the compiled step (XLA's cost analysis: bytes that
operations read and write, those that stay in a cache included), with its drawing and
with clips given, for this CPU or for a TPU that need not be there (needs libtpu). It is
traced as on a GPU, where drawing gathers, or as on a TPU, where it is products: `--as`.
XLA counts the loop over the patches as one turn; the others are added.
"""

import dataclasses
from unittest import mock

import jax

from benchmarks import command_line, count, measure, pretraining, scaling
from ctp_jax.models import base, resnet3d
from ctp_jax.tasks import render
from ctp_jax.train import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class Chip:
    """Rates per second.

    Attributes:
        flops: of bfloat16 products.
        wide: of float32 products.
        bandwidth: bytes from and to memory.
    """

    flops: float
    wide: float
    bandwidth: float


ASSUMED = {
    "h200": Chip(989e12, 67e12, 4.8e12),
    "v5e": Chip(197e12, 197e12 / 6, 819e9),  # float32: six products of bfloat16
}
"""Of the makers' data sheets: H200 SXM, without sparsity; TPU v5e, one chip."""

NORM_FORWARD, NORM_BACKWARD = 3 + 1, 2 * 2 + 1
OPTIMISER = 4 * (3 + 2 + 1) + 4 + 2
"""Bytes per parameter and step: gradient, momentum and parameter read, the last two
written; the norm of the gradient; the copy in bfloat16."""


@dataclasses.dataclass(frozen=True)
class Work:
    """One pass over memory with its products, of a batch.

    Attributes:
        layer: name of the layer.
        kind: of the layer, or 'optimiser'.
        backward: whether it belongs to the backward pass.
        flops: products, twice.
        moved: bytes.
        wide: in float32.
    """

    layer: str
    kind: str
    backward: bool
    flops: float
    moved: float
    wide: bool = False

    def seconds(self, chip: Chip) -> float:
        """At the full rate of the chip."""
        return max(self._products(chip), self.moved / chip.bandwidth)

    def by_memory(self, chip: Chip) -> bool:
        """Whether memory is what it waits for."""
        return self.moved / chip.bandwidth > self._products(chip)

    def _products(self, chip):
        return self.flops / (chip.wide if self.wide else chip.flops)


def step_work(layers: list[count.Layer], batch: int) -> list[Work]:
    """All that a step does, but for drawing, RoIAlign and loss."""
    found = []
    for number, layer in enumerate(layers):
        width = 4 if layer.wide else 2
        first = number == 0

        def add(backward, flops, numbers, weights, layer=layer, width=width):
            moved = width * batch * numbers + weights
            found.append(
                Work(layer.name, layer.kind, backward, batch * flops, moved, layer.wide)
            )

        if layer.kind == "norm":
            add(False, 0, NORM_FORWARD * layer.outputs, 0)
            add(True, 0, NORM_BACKWARD * layer.outputs, 0)
        elif layer.kind == "sum":
            add(False, 0, layer.outputs, 0)
            add(True, 0, layer.outputs, 0)
        else:
            both, weights = layer.inputs + layer.outputs, layer.weights
            add(False, layer.flops, both, width * weights)
            add(True, layer.flops, both, 4 * weights)
            if not first:
                add(True, layer.flops, both, width * weights)
    weights = sum(layer.weights for layer in layers)
    found.append(Work("optimiser", "optimiser", True, 0, OPTIMISER * weights))
    return found


def show_layers(work, batch, chip):
    """A row a layer, per clip."""
    rows = []
    for name in dict.fromkeys(each.layer for each in work):
        own = [each for each in work if each.layer == name]
        flops, moved = (sum(getattr(e, f) for e in own) for f in ("flops", "moved"))
        seconds = sum(each.seconds(chip) for each in own)
        waiting = sum(each.seconds(chip) for each in own if each.by_memory(chip))
        rows.append(
            (
                f"{name} ({own[0].kind})" if own[0].kind != name else name,
                flops / batch / 1e9,
                moved / batch / 1e6,
                flops / moved,
                1e6 * seconds / batch,
                100 * waiting / seconds,
            )
        )
    header = ("forward and backward", "GFLOP", "MB", "FLOP/byte", "us", "% memory")
    measure.show(header, rows)
    return [dict(zip(("layer", *header[1:]), row)) for row in rows]


def bounds(layers, batch, chip, target):
    """What follows for the whole step, per clip."""
    work = step_work(layers, batch)
    flops, moved = (sum(getattr(e, f) for e in work) for f in ("flops", "moved"))
    products = [each for each in work if each.flops]
    busy = sum(each.seconds(chip) for each in products) / batch
    rest = sum(each.seconds(chip) for each in work) / batch - busy
    return {
        "FLOP": flops / batch,
        "FLOP, padding counted": count.whole_step(layers, padded=True),
        "bytes": moved / batch,
        "seconds of convolutions and dense layers": busy,
        "seconds of the rest, limited by memory": rest,
        "clips/s at most": 1 / (busy + rest),
        "share of the ceiling then": flops / batch / (busy + rest) / chip.flops,
        "clips/s at 40 % of the ceiling": 0.4 * chip.flops / (flops / batch),
        f"share of the ceiling at {target:g} clips/s": target
        * flops
        / batch
        / chip.flops,
        f"share of their bound that convolutions need at {target:g} clips/s": busy
        / (1 / target - rest)
        if 1 / target > rest
        else float("inf"),
    }


def compiled_counts(arguments, given):
    """What the compiler says of the step, per device and step."""
    mesh = scaling.tpu_mesh(arguments.tpu) if arguments.tpu else mesh_lib.one_device()
    config = pretraining.make_config(
        arguments.model, arguments.batch * mesh.size, arguments.dtype, arguments.width
    )
    program = pretraining.Step(config, mesh, given=given, traced_as=arguments.traced_as)
    compiled = program.lower().compile()
    costs = compiled.cost_analysis()
    more = {} if given else further_patches(config, mesh, arguments.traced_as)
    return {
        "device": mesh.devices.flat[0].device_kind,
        "flops": costs["flops"] + more.get("flops", 0),
        "bytes": costs["bytes accessed"] + more.get("bytes accessed", 0),
        "memory": pretraining.planned_memory(compiled),
    }


def further_patches(config, mesh, traced_as):
    """What pasting all patches but one costs: XLA counts a loop's body once."""

    def costs():
        program = pretraining.Step(config, mesh, traced_as=traced_as)
        with program.tracing():
            return program.draw.lower(program.batch).compile().cost_analysis()

    with mock.patch.object(render, "paste_patches", lambda clips, plan: clips):
        without = costs()
    once, turns = costs(), config.game.num_trajectories - 1
    return {
        name: turns * (once[name] - without[name])
        for name in ("flops", "bytes accessed")
    }


def show_compiled(arguments, chip):
    """Counts with and without drawing, and the share that it has."""
    whole, given = (compiled_counts(arguments, given) for given in (False, True))
    batch = arguments.batch
    print(
        f"\ncompiled for {whole['device']}, traced as on a {arguments.traced_as}, "
        f"{batch} clips a device; per clip"
    )
    rows = [
        (name, found["flops"] / batch / 1e9, found["bytes"] / batch / 1e6)
        + tuple(found["memory"][part] / 1e6 for part in ("total", "temporary"))
        for name, found in (("whole step", whole), ("clips given", given))
    ]
    header = ("", "GFLOP", "MB accessed", "MB planned", "of them temporary")
    measure.show(header, rows)
    shares = {name: 1 - given[name] / whole[name] for name in ("flops", "bytes")}
    print(
        f"drawing: {100 * shares['flops']:.2f} % of the FLOPs, "
        f"{100 * shares['bytes']:.2f} % of the bytes"
    )
    more = {name: (whole[name] - given[name]) / batch for name in shares}
    seconds = more["flops"] / chip.wide + more["bytes"] / chip.bandwidth
    share = seconds * arguments.target
    print(
        f"at full rates, its products in float32: {1e6 * seconds:.3g} us a clip, "
        f"{100 * share:.2g} % of the time at {arguments.target:g} clips/s"
    )
    return {
        "whole": whole,
        "given": given,
        "share of drawing": shares,
        "seconds of drawing at full rates": seconds,
    }


def parse(argv=None):
    parser = command_line.Parser(__spec__.name, __doc__)
    add = parser.add_argument
    add("--model", default="r3d18", choices=resnet3d.NAMES)
    add("--batch", type=command_line.count, default=32, help="clips a device")
    add("--width", type=command_line.positive, default=1.0, help="of the network")
    add("--chip", default="h200", choices=ASSUMED, help="assumed rates")
    add(
        "--flops",
        type=command_line.positive,
        help="measured instead: bfloat16 products, 1/s",
    )
    add("--wide_flops", type=command_line.positive, help="the same of float32 products")
    add(
        "--bandwidth",
        type=command_line.positive,
        help="measured instead: bytes a second",
    )
    add(
        "--target",
        type=command_line.positive,
        default=900.0,
        help="clips/s that are wanted",
    )
    add("--compile", action="store_true", help="compile the step and count in it")
    add("--tpu", default="", help="compile for that, e.g. v5e:2x2")
    add(
        "--as",
        dest="traced_as",
        choices=("gpu", "tpu"),
        help="formulations of; else those of --tpu or of --chip",
    )
    add("--dtype", default="auto", choices=base.DTYPES, help="of what is compiled")
    arguments = parser.parse_args(argv)
    if not arguments.traced_as:
        on_tpu = arguments.tpu or arguments.chip == "v5e"
        arguments.traced_as = "tpu" if on_tpu else "gpu"
    return arguments


def main():
    arguments = parse()
    jax.config.update("jax_platforms", "cpu")
    chip = ASSUMED[arguments.chip]
    chip = Chip(
        arguments.flops or chip.flops,
        arguments.wide_flops or chip.wide,
        arguments.bandwidth or chip.bandwidth,
    )
    config = pretraining.make_config(
        arguments.model, arguments.batch, "bfloat16", arguments.width
    )
    layers = count.layers(config)
    print(
        f"{arguments.model}, batch {arguments.batch}, on paper at {chip.flops / 1e12:g} "
        f"TFLOP/s bfloat16, {chip.wide / 1e12:g} float32, {chip.bandwidth / 1e12:g} TB/s"
    )
    rows = show_layers(step_work(layers, arguments.batch), arguments.batch, chip)
    found = bounds(layers, arguments.batch, chip, arguments.target)
    print("\nper clip")
    measure.show(("", ""), found.items())
    result = {"chip": dataclasses.asdict(chip), "layers": rows, "bounds": found}
    if arguments.compile or arguments.tpu:
        result["compiled"] = show_compiled(arguments, chip)
    measure.write_json(arguments.json, result)


if __name__ == "__main__":
    command_line.run(main)
