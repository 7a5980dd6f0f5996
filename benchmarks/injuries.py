"""Hurts checkpoints at random and counts how many injuries are noticed.

    python -m benchmarks.injuries --tries 1000

A small run is trained once. Then, time after time, its newest checkpoint is copied,
hurt in one place, and restored. An injury counts as noticed if the step is set aside
and the one before comes back, the same in every bit as it was given to be saved.
"""

import contextlib
import io
import json
import os
import pathlib
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a tiny network

import numpy as np

from benchmarks import command_line
from ctp_jax import cli
from tests.train.checkpoints import injuries


def noticed(prepared, workdir, kind, rng):
    """(what was hurt, whether it was noticed and the step before came back)."""
    newest = injuries.copy(prepared, workdir)
    hurt = kind(newest, rng)
    step, state, said = injuries.restored(prepared, workdir)
    before = sorted(prepared.states)[-2]
    right = step == before and len(said) == 1
    return hurt, right and injuries.same(state, prepared.states[before])


def main():
    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument(
        "--tries", type=command_line.count, default=1000, help="of all kinds together"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cli.quiet()
    rng = np.random.default_rng(arguments.seed)
    found = {kind.__name__: [0, 0] for kind in injuries.KINDS}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        with contextlib.redirect_stdout(io.StringIO()):
            prepared = injuries.prepare(pathlib.Path(directory) / "run")
        workdir = pathlib.Path(directory) / "hurt"
        for number in range(arguments.tries):
            kind = injuries.KINDS[number % len(injuries.KINDS)]
            hurt, right = noticed(prepared, workdir, kind, rng)
            counts = found[kind.__name__]
            counts[0] += right
            counts[1] += 1
            if not right:
                print(f"not noticed: {kind.__name__} of {hurt} (try {number})")
        seconds = time.perf_counter() - began
    print(f"{'injury':<16}{'noticed':>9}{'tried':>8}")
    for name, (right, tried) in found.items():
        print(f"{name:<16}{right:>9}{tried:>8}")
    right, tried = map(sum, zip(*found.values(), strict=True))
    print(f"{'all':<16}{right:>9}{tried:>8}   in {seconds:.0f} s")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(
                {"noticed": right, "tried": tried, "kinds": found}, file, indent=1
            )


if __name__ == "__main__":
    command_line.run(main)
