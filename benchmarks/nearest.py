"""Nearest-neighbour search, beside NumPy of the usual kind.

    python -m benchmarks.nearest --queries 2000 --gallery 10000

Both sides take the same float32 features and give the nearest gallery rows by cosine
similarity, in turn, in one run:

    ours          ctp_jax.evaluators.nearest, in blocks on JAX's default device
    argpartition  NumPy: normalise, one matrix product, partial sort
    argsort       NumPy: the same with a full sort

`--one_core` keeps everything to one core. Below the times stands what Kinetics-400
against itself would take, from the speed that was measured.
"""

import json
import math
import os
import statistics
import time

import numpy as np

from benchmarks import command_line

KINETICS = 240_000
QUERY_BLOCK, GALLERY_BLOCK = 1024, 8192


def usual(queries, gallery, k, full):
    """(q, k) gallery rows, nearest first."""
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    gallery = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    similarity = queries @ gallery.T
    if full:
        return np.argsort(-similarity, axis=1)[:, :k]
    rows = np.argpartition(-similarity, k, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(similarity, rows, axis=1), axis=1)
    return np.take_along_axis(rows, order, axis=1)


def cost(queries, gallery, width, itemsize):
    """Arithmetic, bytes sent to the device, and the most that lies there at a time."""
    blocks = math.ceil(gallery / GALLERY_BLOCK)
    operands = 2 * GALLERY_BLOCK + 2 * QUERY_BLOCK
    return {
        "products_flop": 2 * queries * gallery * width,
        "sent_bytes": (gallery + blocks * queries) * width * itemsize,
        "device_bytes": 4 * (operands * width + 3 * QUERY_BLOCK * GALLERY_BLOCK),
    }


def main():
    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument("--queries", type=command_line.count, default=2000)
    parser.add_argument("--gallery", type=command_line.count, default=10_000)
    parser.add_argument(
        "--width", type=command_line.count, default=9216, help="of the features"
    )
    parser.add_argument("--k", type=command_line.count, default=50)
    parser.add_argument("--rounds", type=command_line.count, default=3)
    parser.add_argument("--one_core", action="store_true")
    arguments = parser.parse_args()
    if arguments.one_core:
        # Before a library counts the cores.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import jax

    from ctp_jax.evaluators import nearest

    q, g, d, k = (getattr(arguments, n) for n in ("queries", "gallery", "width", "k"))
    rng = np.random.default_rng(0)
    queries, gallery = (rng.standard_normal((n, d), np.float32) for n in (q, g))
    blocks = {"query_block": QUERY_BLOCK, "gallery_block": GALLERY_BLOCK}
    sides = {
        "ours": lambda: nearest.search(queries, gallery, k, **blocks)[1],
        "argpartition": lambda: usual(queries, gallery, k, full=False),
        "argsort": lambda: usual(queries, gallery, k, full=True),
    }
    found = {name: [] for name in sides}
    rows = {}
    for number in range(arguments.rounds + 1):
        for name, call in sides.items():
            began = time.perf_counter()
            rows[name] = call()
            if number:  # the first includes compilation
                found[name].append(time.perf_counter() - began)
    device = jax.devices()[0]
    print(
        f"{q} queries in {g} rows of {d} features, k = {k}, on {device.device_kind} "
        f"({len(os.sched_getaffinity(0))} CPU cores);"
    )
    print(f"seconds, median of {arguments.rounds} rounds (range)")
    for name, values in found.items():
        print(
            f"  {name:<13}{statistics.median(values):8.2f}  "
            f"({min(values):.2f} to {max(values):.2f})"
        )
    for name in ("argpartition", "argsort"):
        ratios = [a / b for a, b in zip(found[name], found["ours"], strict=True)]
        same = (rows[name] == rows["ours"]).mean()
        print(
            f"{name} / ours: {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}); {same:.4%} of the neighbours are the same"
        )
    rate = 2 * q * g * d / statistics.median(found["ours"])
    kinetics = cost(KINETICS, KINETICS, d, 4)
    kinetics["seconds_at_this_rate"] = kinetics["products_flop"] / rate
    print(f"ours: {rate / 1e9:.0f} GFLOP/s, all of it counted. {KINETICS} rows in")
    print("themselves (Kinetics-400), calculated:")
    print(f"  arithmetic             {kinetics['products_flop'] / 1e12:8.0f} TFLOP")
    print(f"  sent to the device     {kinetics['sent_bytes'] / 1e9:8.1f} GB")
    print(f"  on the device, at most {kinetics['device_bytes'] / 1e9:8.2f} GB")
    print(f"  similarities, NumPy    {4e-9 * KINETICS**2:8.1f} GB")
    hours = kinetics["seconds_at_this_rate"] / 3600
    print(f"  at the rate above      {hours:8.2f} h")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"seconds": found, "kinetics": kinetics}, file, indent=1)


if __name__ == "__main__":
    command_line.run(main)
