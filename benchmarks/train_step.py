"""Speed and memory of the pretraining step, beside the same network in PyTorch.

    python -m benchmarks.train_step [--model r3d18 --dtype bfloat16 --batch 32]

Runs the step of configs/ucf_r3d.py on a made-up batch on one device: needs neither data
nor TensorFlow. All sides start from the same parameters and the same clips, and their
first losses and gradients are compared. They are timed in turn; on
CPUs, PyTorch's run in processes of their own.

    ours, CONV      the real step: draws the clips, looks for NaN, counts IoU
    torch ...       see benchmarks/torch_step.py, which favours PyTorch: its clips are
                    drawn already
    drawing alone   by itself
    matrix product  the ceiling: of large matrices of the same dtype

FLOP/s are those of convolutions and dense layers that read values and not padding,
counted once for all sides (benchmarks/roofline.py). float32 means float32; PyTorch's TF32
is a side of its own. Memory is what a step needs beside parameters, optimiser and batch:
the compiler's plan for ours, on GPUs the most that PyTorch's allocator held.
"""

import functools
import os
import statistics
import sys

import jax
import numpy as np

from benchmarks import measure, pretraining, roofline
from ctp_jax import models
from ctp_jax.models import resnet3d
from ctp_jax.ranges import CONVOLUTIONS

TOLERANCE = {"float32": 1e-3, "TF32": 1e-2, "bfloat16": 5e-2}
"""How far losses and norms of gradients may be from those of our first side."""

DRAWING, CEILING = "drawing alone", "matrix product"
PEERS = ("eager", "compile", "max-autotune")
LAYOUTS = ("contiguous", "channels_last_3d")


class Side:
    """One of those that are compared.

    One that fails (no memory, no compiler) keeps the reason, and the others go on.

    Attributes:
        name: as it is shown.
        failed: the reason; empty if it works.
        running: has `step`, and `temporary_bytes`; None if it could not be made.
        first: loss and norm of the gradients of the first step.
        memory: bytes.
    """

    def __init__(self, name, make):
        """Calls `make`, which returns what runs."""
        self.name, self.failed, self.first, self.memory = name, "", None, None
        self.running = self.attempt(make)

    def start(self):
        """Takes the first step."""
        self.first = self.attempt(lambda: self.running.step())
        self.memory = self.attempt(lambda: self.running.temporary_bytes())

    def attempt(self, call):
        """What the call returns; None once something has failed."""
        if self.failed:
            return None
        try:
            return call()
        except Exception as error:  # noqa: BLE001
            text = " ".join(str(error).split())
            self.failed = f"{type(error).__name__}: {text[:160]}"
            return None


def make_sides(arguments):
    """Our sides, then PyTorch's, which get state and clips of our first."""

    def make_config(conv):
        config = pretraining.make_config(
            *(arguments.model, arguments.batch, arguments.dtype, arguments.width, conv),
            *(arguments.size, arguments.frames),
        )
        # From its tiny start the head would give the same loss for any features.
        config.head.init_std = (0.01, 0.1)
        return config

    configs = {conv: make_config(conv) for conv in arguments.conv}
    first = configs[arguments.conv[0]]
    batch = pretraining.make_batch(first)
    sides = [
        Side(
            f"ours, {conv}",
            functools.partial(pretraining.Running, configs[conv], batch),
        )
        for conv in arguments.conv
    ]
    ours = sides[0].running
    if arguments.peers and ours is not None:
        from benchmarks import torch_step

        torch_step.begin()
        cpu = jax.default_backend() == "cpu"
        step = torch_step.Apart if cpu else torch_step.Step
        state, clips = jax.device_get(ours.state), np.asarray(ours.draw())
        boxes = batch["plan"]["boxes"]
        for variant in torch_step.variants(
            arguments.dtype, arguments.peers, arguments.layouts
        ):
            make = functools.partial(step, variant, first, state, clips, boxes)
            sides.append(Side(variant.name, make))
    return sides, roofline.layers(first)


def differences(sides, dtype):
    """How far each side's first loss and norm are from our first side's.

    Returns:
        {name: relative difference}, and a line for each that is too far.
    """
    found, wrong = {}, []
    want = sides[0].first
    for side in sides[1:]:
        if want is None or side.first is None:
            continue
        each = [abs(a - b) / abs(b) for a, b in zip(side.first, want, strict=True)]
        found[side.name] = max(each)
        tolerance = TOLERANCE["TF32" if "TF32" in side.name else dtype]
        if not max(each) <= tolerance:  # also where it is not a number
            wrong.append(f"{side.name}: {side.first}, not {want}")
    return found, wrong


def time_sides(sides, dtype, steps, rounds):
    """({name: seconds of a step, one a round}, FLOP/s of the matrix product).

    Also of drawing and of the matrix product, whose seconds are those of a call.
    """
    good = [side for side in sides if not side.failed]
    calls = {
        side.name: functools.partial(
            side.attempt, functools.partial(side.running.step, steps)
        )
        for side in good
    }
    if good and good[0] is sides[0]:
        calls[DRAWING] = functools.partial(good[0].running.draw, steps)
    calls[CEILING], flops = roofline.matmul(dtype)
    seconds = measure.in_turn(calls, rounds)
    ceiling = flops / statistics.median(seconds[CEILING])
    return {
        name: [value / (1 if name == CEILING else steps) for value in values]
        for name, values in seconds.items()
    }, ceiling


def make_rows(sides, seconds, flops, ceiling, batch, differs):
    """Rows of the table; `flops` are those of a step."""
    rows = []
    for side in sides:
        row = {"side": side.name, "failed": side.failed}
        if not side.failed:
            median = statistics.median(seconds[side.name])
            rate = flops / median
            row |= {"ms": 1e3 * median, "clips/s": batch / median}
            row |= {"GFLOP/s": rate / 1e9, "% of ceiling": 100 * rate / ceiling}
            row["memory, MB"] = side.memory and side.memory / 1e6
            row["differs by"] = differs.get(side.name)
        rows.append(row)
    if DRAWING in seconds:
        median = statistics.median(seconds[DRAWING])
        rows.append({"side": DRAWING, "ms": 1e3 * median, "clips/s": batch / median})
    rows.append({"side": CEILING, "GFLOP/s": ceiling / 1e9, "% of ceiling": 100.0})
    return rows


def comparisons(sides, seconds):
    """{text: ratio} of our fastest side to PyTorch's, and of drawing to ours."""

    def fastest(start):
        names = [s.name for s in sides if s.name.startswith(start) and not s.failed]
        medians = {name: statistics.median(seconds[name]) for name in names}
        return min(medians, key=medians.get, default="")

    ours, found = fastest("ours"), {}
    for over, under in ((ours, fastest("torch")), (DRAWING, ours)):
        if over in seconds and under in seconds:
            text = f"time of {over} / time of {under}"
            found[text] = measure.ratios(seconds[over], seconds[under])
    return found


def parse(argv=None):
    cpu = jax.default_backend() == "cpu"
    parser = measure.make_parser(__spec__.name, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of a side")
    pretraining.add_arguments(parser, models.MODULES)
    add = parser.add_argument
    ways = CONVOLUTIONS
    add("--conv", nargs="+", choices=ways, default=["auto"], help="of our sides")
    add("--peers", nargs="*", choices=PEERS, default=PEERS[:2], help="of PyTorch")
    add("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS, help="of PyTorch")
    add("--steps", type=int, default=1 if cpu else 10, help="in a timed call")
    arguments = parser.parse_args(argv)
    if arguments.model not in resnet3d.NAMES or not measure.is_installed("torch"):
        arguments.peers = []  # there are no others in PyTorch
    if arguments.peers:
        from benchmarks import torch_step

        if not torch_step.is_beside(jax.default_backend()):
            print("PyTorch would run on another device: measured without it")
            arguments.peers = []
    return arguments


def main():
    # PyTorch needs its share of the memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    arguments = parse()
    sides, layers = make_sides(arguments)
    for side in sides:
        side.start()
    differs, wrong = differences(sides, arguments.dtype)
    seconds, ceiling = time_sides(
        sides, arguments.dtype, arguments.steps, arguments.rounds
    )
    flops = roofline.step_flops(layers)
    batch = arguments.batch
    rows = make_rows(sides, seconds, flops * batch, ceiling, batch, differs)
    device = jax.devices()[0].device_kind
    print(
        f"{arguments.model}, {arguments.dtype}, {batch} clips, on {device}: "
        f"{flops / 1e9:.4g} GFLOP a clip"
    )
    header = ("side", "ms", "clips/s", "GFLOP/s", "% of ceiling", "memory, MB")
    header = (*header, "differs by")
    measure.show(header, [[row.get(name) for name in header] for row in rows])
    for side in sides:
        if side.failed:
            print(f"{side.name}: {side.failed}")
    ratios = comparisons(sides, seconds)
    for text, ratio in ratios.items():
        print(f"{text}: {measure.spelled(ratio)}")
    found = {"device": device, "arguments": vars(arguments), "rows": rows}
    measure.write_json(
        arguments.json, found | {"ratios": ratios, "seconds of a step": seconds}
    )
    if wrong:
        sys.exit("not the same: " + "; ".join(wrong))


if __name__ == "__main__":
    measure.run(main)
