"""Whether ways of computing the same step learn the same: loss curves beside seed noise.

    python -m benchmarks.convergence [--steps 600] [--seeds 0,1,2] [--json FILE]

Trains the demo's network on the built-in data, as its own command, once per variant and
seed. All variants of a seed start from the same parameters and see the same clips;
rounding then drives them apart as another seed would, so what counts is the difference
between the means of the variants beside the spread of the seeds:

    direct    XLA's own 3-D convolution
    taps      2-D convolutions of frames, gradients by matrix products
    winograd  those, with fewer products along time (what CPUs get)
    bfloat16  convolutions and activations in bfloat16 (what accelerators get)
    products  winograd, and clips drawn by matrix products instead of gathers (what
              TPUs get)
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import command_line, measure

VARIANTS = {
    "direct": {".model.conv": "direct", ".model.dtype": "float32"},
    "taps": {".model.conv": "taps", ".model.dtype": "float32"},
    "winograd": {".model.conv": "winograd", ".model.dtype": "float32"},
    "bfloat16": {".model.conv": "taps", ".model.dtype": "bfloat16"},
    "products": {".model.conv": "winograd", ".model.dtype": "float32"},
}

# No field of the config: it changes nothing but the time.
BY_PRODUCTS = """
import runpy
from ctp_jax.ops import resample
resample.chosen_way = lambda: "products"
runpy.run_module("ctp_jax.main", run_name="__main__", alter_sys=True)
"""


def parse(argv):
    """The flags."""

    def seeds(text):
        return command_line.counts(text, 0)

    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument(
        "--variants", type=command_line.some_of(VARIANTS), default=list(VARIANTS)
    )
    parser.add_argument("--seeds", type=seeds, default=[0, 1, 2])
    parser.add_argument("--steps", type=command_line.count, default=600)
    parser.add_argument(
        "--points", type=command_line.count, default=6, help="of the curve"
    )
    parser.add_argument("--config", default="configs/demo.py")
    arguments = parser.parse_args(argv)
    if arguments.points > arguments.steps:
        parser.error(f"--points {arguments.points}: needs 1 to --steps")
    if len(arguments.seeds) < 2:
        parser.error("--seeds: needs two or more, or there is no noise to compare with")
    return arguments


def run(arguments, folder, variant, seed):
    """Mean losses of equal stretches of a run, and its seconds per step."""
    workdir = folder / f"{variant}_{seed}"
    flags = {
        "": arguments.config,
        ".data.name": "moving_shapes",
        ".data.data_dir": folder / "data",
        ".data.split": "train",
        ".data.eval_split": "",
        ".seed": seed,
        ".steps": arguments.steps,
        ".log_every": arguments.steps // arguments.points,
        **VARIANTS[variant],
    }
    program = ["-c", BY_PRODUCTS] if variant == "products" else ["-m", "ctp_jax.main"]
    command = [sys.executable, *program, f"--workdir={workdir}"]
    command += [f"--config{name}={value}" for name, value in flags.items()]
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    seconds = time.perf_counter() - began
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if line.get("kind", "train") == "train"]
    print(f"{variant}, seed {seed}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return losses


def compare(curves, reference):
    """Per variant and point: mean over seeds, and its distance from the reference.

    The distance is in standard errors of the difference of two means, from the spread
    of the seeds of both: below about 2 it is noise.
    """
    found = {}
    for name, runs in curves.items():
        points = list(zip(*runs, strict=True))
        base = list(zip(*curves[reference], strict=True))
        found[name] = []
        for ours, theirs in zip(points, base, strict=True):
            spread = statistics.variance(ours) + statistics.variance(theirs)
            error = (spread / len(ours)) ** 0.5
            difference = statistics.mean(ours) - statistics.mean(theirs)
            found[name].append(
                {
                    "mean": statistics.mean(ours),
                    "deviation": statistics.stdev(ours),
                    "distance": difference / error if error else 0.0,
                }
            )
    return found


def main(argv=None):
    """Prints the table."""
    arguments = parse(argv)
    curves = {name: [] for name in arguments.variants}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prepare = [sys.executable, "-m", "ctp_jax.prepare", "moving_shapes"]
        subprocess.run([*prepare, f"--data_dir={folder / 'data'}"], check=True)
        for seed in arguments.seeds:
            for name in arguments.variants:
                curves[name].append(run(arguments, folder, name, seed))
    found = compare(curves, arguments.variants[0])
    stretch = arguments.steps // arguments.points
    steps = [stretch * (i + 1) for i in range(len(curves[arguments.variants[0]][0]))]
    seeds = len(arguments.seeds)
    print(f"mean loss of the steps before, over {seeds} seeds (deviation of the seeds)")
    measure.show(
        ["", *map(str, steps)],
        [
            [name, *(f"{p['mean']:.3f} ({p['deviation']:.3f})" for p in points)]
            for name, points in found.items()
        ],
    )
    print(f"distance from {arguments.variants[0]}, in standard errors")
    measure.show(
        ["", *map(str, steps)],
        [
            [name, *(f"{p['distance']:+.1f}" for p in points)]
            for name, points in found.items()
            if name != arguments.variants[0]
        ],
    )
    measure.write_json(
        arguments.json, {"steps": steps, "curves": curves, "means": found}
    )


if __name__ == "__main__":
    command_line.run(main)
