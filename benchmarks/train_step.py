"""Speed and memory of the pretraining step, beside the same network in PyTorch.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --models r3d18,r2plus1d18 --dtypes bfloat16 \\
        --batches 32,64 --conv auto,direct

Runs the step of configs/ucf_r3d.py on a made-up batch on one device: needs neither data
nor TensorFlow. All sides of a case start from the same parameters and the same clips, and
their first losses and gradients are compared. They are timed in turn.

    ours, CONV          the real step: draws the clips, looks for NaN, counts IoU
    ..., clips given    without its drawing, which PyTorch's sides leave out, too
    torch ...           see benchmarks/torch_step.py, which favours PyTorch
    drawing alone       by itself
    matrix product      the ceiling: of large matrices of the same dtype

FLOP/s are those of convolutions and dense layers that read values and not padding,
counted once for all sides (benchmarks/count.py). float32 means float32; PyTorch's TF32 is
a side of its own. Memory is the compiler's plan for ours (arguments, temporaries,
results) and, on GPUs, what PyTorch's allocator held at most. In the JSON file `peak` is
what our allocator held at most, where the device counts that (CPUs do not) and this side
was the first to need so much.
"""

import functools
import gc
import os
import statistics
import sys

import jax
import numpy as np

from benchmarks import ceilings, command_line, count, measure, pretraining
from ctp_jax.models import resnet3d
from ctp_jax.models.conv import conv3d
from ctp_jax.ops import colour

TOLERANCE = {"float32": 1e-3, "TF32": 1e-2, "bfloat16": 5e-2}
"""How far losses and norms of gradients may be from those of our first side."""

PEERS, LAYOUTS = (
    ("eager", "compile", "max-autotune"),
    ("contiguous", "channels_last_3d"),
)
DRAWING, CEILING = "drawing alone", "matrix product"
PHASES = {"forward": count.forward, "step": count.whole_step}


class Side:
    """One of those that are compared in a case. It keeps the reason when it fails."""

    def __init__(self, name, kind, make):
        """Calls `make`, which returns what has the phases as methods."""
        self.name, self.kind, self.failed = name, kind, ""
        self.first = self.memory = self.peak = None
        self.made = self._try(make)

    def start(self, phase):
        """Compiles; keeps the first loss (and norm) and the memory that it takes."""
        self.first = self.memory = self.peak = None
        if self.kind == "ours":
            self._try(lambda: self.made.compile(phase))
            before = pretraining.device_memory()
        self.first = self._try(lambda: self.run(phase, 1))
        self.memory = self._try(lambda: self.made.memory(phase))
        if self.kind == "ours" and before and not self.failed:
            in_use, peak = pretraining.device_memory()
            others = in_use - self.made.size()
            self.peak = peak - others if peak > before[1] else None

    def run(self, phase, times):
        """So many steps; returns what the last one gives."""
        return getattr(self.made, phase)(times)

    def timed(self, phase, times):
        """A call to time, that does nothing once it has failed."""
        return lambda: self._try(lambda: self.run(phase, times))

    def _try(self, call):
        if self.failed:
            return None
        try:
            return call()
        except Exception as error:  # noqa: BLE001 (no memory, no compiler: others go on)
            text = " ".join(str(error).split())
            self.failed = f"{type(error).__name__}: {text[:160]}"
            return None


class Case:
    """One network, dtype and batch size, with all that is to be compared.

    Attributes:
        rows: of the table and the JSON file.
        wrong: sides that computed something else.
    """

    def __init__(self, arguments, model, dtype, batch):
        self.arguments, self.rows, self.wrong = arguments, [], []
        self.about = {"model": model, "dtype": dtype, "batch": batch}
        self.config = self._config(arguments.conv[0])
        self.layers = count.layers(self.config)
        self.data = pretraining.make_batch(self.config)
        self.sides = [self._ours(conv, self.data) for conv in arguments.conv]
        if not self.sides[0].failed and (arguments.peers or not arguments.no_given):
            self._add_those_with_clips(self.sides[0].made)

    def _config(self, conv):
        about, width = self.about, self.arguments.width
        config = pretraining.make_config(
            about["model"], about["batch"], about["dtype"], width, conv
        )
        # From its tiny start the head would give the same loss for any features.
        config.head.init_std = (0.01, 0.1)
        return config

    def _ours(self, conv, data):
        given = "clips" in data
        return Side(
            f"ours, {conv}" + ", clips given" * given,
            "ours",
            lambda: pretraining.Running(self._config(conv), data),
        )

    def _add_those_with_clips(self, first):
        drawn = np.asarray(jax.jit(first.program.task.draw)(first.batch))
        given = pretraining.without_drawing(self.data, drawn)
        if not self.arguments.no_given:
            self.sides.append(self._ours(self.arguments.conv[0], given))
        if not self.arguments.peers:
            return
        from benchmarks import torch_step

        torch_step.begin()
        clips, boxes = np.asarray(colour.normalize(drawn)), self.data["plan"]["boxes"]
        state = jax.device_get(first.state)
        for variant in torch_step.variants(
            self.about["dtype"], self.arguments.peers, self.arguments.layouts
        ):
            make = functools.partial(
                torch_step.Step, variant, self.config, state, clips, boxes
            )
            self.sides.append(Side(variant.name, "torch", make))

    def measure(self, phase):
        """Times a phase, says what came out."""
        for side in self.sides:
            side.start(phase)
        differences = self._compare(phase)
        times, rounds = self.arguments.steps, self.arguments.rounds
        good = [side for side in self.sides if not side.failed]
        timed = {side.name: side.timed(phase, times) for side in good}
        if good and good[0].name == self.sides[0].name and phase == "step":
            timed[DRAWING] = self.sides[0].timed("draw", times)
        dtype, size = self.about["dtype"], self.arguments.matrix
        timed[CEILING], ceiling = ceilings.matmul(dtype, size)
        if dtype == "float32" and jax.default_backend() != "cpu":
            timed[f"{CEILING}, TF32"], _ = ceilings.matmul("tf32", size)
        seconds = measure.in_turn(timed, rounds)
        flops = PHASES[phase](self.layers) * self.about["batch"] * times
        best = statistics.median(ceiling / each for each in seconds[CEILING])
        rows = []
        for side in self.sides:
            row = {"side": side.name, "failed": side.failed}
            if not side.failed:
                row |= self._figures(seconds[side.name], flops, best)
                row |= {"memory": side.memory, "peak": side.peak, "first": side.first}
            rows.append(row | {"differs by": differences.get(side.name)})
        for name in (DRAWING, CEILING, f"{CEILING}, TF32"):
            if name in seconds:
                work = None if name == DRAWING else ceiling
                rows.append({"side": name} | self._figures(seconds[name], work, best))
        rows = [self.about | {"phase": phase} | row for row in rows]
        self._say(phase, rows, seconds)
        self.rows += rows

    def _figures(self, seconds, flops, ceiling):
        """Of one step; of a product of matrices there are no clips."""
        each = [value / self.arguments.steps for value in seconds]
        median = statistics.median(each)
        rate = flops / statistics.median(seconds) if flops else None
        return {
            "seconds": {"median": median, "min": min(each), "max": max(each)},
            "clips per second": self.about["batch"] / median,
            "FLOP/s": rate,
            "share of ceiling": rate and rate / ceiling,
        }

    def _compare(self, phase):
        """How far each side's first loss and norm are from our first side's."""
        want = self.sides[0].first
        if want is None:
            return {}
        found = {}
        for side in self.sides[1:]:
            if side.failed:
                continue
            difference = max(abs(a - b) / abs(b) for a, b in zip(side.first, want))
            found[side.name] = difference
            tolerance = TOLERANCE[
                "TF32" if "TF32" in side.name else self.about["dtype"]
            ]
            if not difference <= tolerance:  # also where it is not a number
                self.wrong.append(f"{side.name}, {phase}: {side.first}, not {want}")
        return found

    def _say(self, phase, rows, seconds):
        about = self.about
        flops = PHASES[phase](self.layers) / 1e9
        print(
            f"\n{about['model']}, {about['dtype']}, batch {about['batch']}, {phase}: "
            f"{flops:.4g} GFLOP a clip"
        )
        measure.show(HEADER, [_cells(row) for row in rows])
        for row in rows:
            if row.get("failed"):
                print(f"  {row['side']}: {row['failed']}")
        self._say_ratios(phase, seconds)

    def _say_ratios(self, phase, seconds):
        def fastest(kind):
            named = [s.name for s in self.sides if s.kind == kind and s.name in seconds]
            named = [name for name in named if "given" not in name]
            return min(
                named, key=lambda name: statistics.median(seconds[name]), default=""
            )

        ours, theirs = fastest("ours"), fastest("torch")
        for name, over, under in (
            ("speed-up", theirs, ours),
            ("drawing / step", DRAWING, ours),
        ):
            if over in seconds and under in seconds:
                found = measure.ratios(seconds[over], seconds[under])
                text = " ".join(f"{key} {value:.3g}" for key, value in found.items())
                print(f"  {name}, time of {over} / time of {under}: {text}")
                row = {"phase": phase, "ratio": name, "over": over, "under": under}
                self.rows.append(self.about | row | found)


HEADER = ("", "ms", "clips/s", "GFLOP/s", "% of ceiling", "memory MB", "differs by")


def _cells(row):
    rate, share, memory = (
        row.get(name) for name in ("FLOP/s", "share of ceiling", "memory")
    )
    seconds = row.get("seconds")
    is_matrix = row["side"].startswith(CEILING)
    return (
        row["side"],
        seconds and 1e3 * seconds["median"],
        None if is_matrix else row.get("clips per second"),
        rate and rate / 1e9,
        share and 100 * share,
        memory and memory / 1e6,
        row.get("differs by"),
    )


def parse(argv=None):
    some_of = command_line.some_of
    cpu = jax.default_backend() == "cpu"
    dtypes = ("float32", "bfloat16")
    parser = command_line.Parser(__spec__.name, __doc__)
    add = parser.add_argument
    add("--models", type=some_of(resnet3d.NAMES), default=["r3d18"])
    add("--dtypes", type=some_of(dtypes), default=list(dtypes)[: 1 if cpu else 2])
    add("--batches", type=command_line.counts, default=[2] if cpu else [32])
    add("--phases", type=some_of(tuple(PHASES)), default=list(PHASES))
    add("--conv", type=some_of(conv3d.IMPLEMENTATIONS), default=["auto"])
    add("--peers", type=some_of(PEERS, or_none=True), default=["eager", "compile"])
    add("--layouts", type=some_of(LAYOUTS), default=list(LAYOUTS))
    add(
        "--rounds", type=command_line.count, default=5, help="timed calls of every side"
    )
    add(
        "--steps",
        type=command_line.count,
        default=1 if cpu else 10,
        help="in a timed call",
    )
    add("--width", type=command_line.positive, default=1.0, help="of the network")
    add("--no_given", action="store_true", help="leave out: ours, clips given")
    add(
        "--matrix",
        type=command_line.count_or_zero,
        default=0,
        help="side of the matrices of the ceiling; 0: 2048 on a CPU, 8192 elsewhere",
    )
    arguments = parser.parse_args(argv)
    if arguments.peers and not command_line.is_there("torch"):
        arguments.peers = []
    if arguments.peers:
        from benchmarks import torch_step

        if not torch_step.is_beside(jax.default_backend()):
            print("PyTorch would run on another device: without it", flush=True)
            arguments.peers = []
    return arguments


def main():
    # PyTorch needs its share of the memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    arguments = parse()
    device = jax.devices()[0].device_kind
    print(f"{device}; {arguments.rounds} rounds of {arguments.steps} steps")
    flags = os.environ.get("XLA_FLAGS", "")
    rows, wrong = [], []
    for model in arguments.models:
        for dtype in arguments.dtypes:
            for batch in arguments.batches:
                case = Case(arguments, model, dtype, batch)
                for phase in arguments.phases:
                    case.measure(phase)
                    # Now: what comes next may be killed.
                    found = {"device": device, "flags": flags, "rows": rows + case.rows}
                    measure.write_json(arguments.json, found)
                rows, wrong = rows + case.rows, wrong + case.wrong
                del case
                gc.collect()
    if wrong:
        sys.exit("not the same: " + "; ".join(wrong))


if __name__ == "__main__":
    command_line.run(main)
