"""Where the time of a training step goes, beside the least that each part could take.

    python -m benchmarks.profile_step [--model r3d18 --batch 32 --dtype bfloat16]

Traces a few steps of configs/ucf_r3d.py with `jax.profiler` and adds up the operations of
the device by what they are for. That is read from the compiled program, from the layer
that the last part of an operation came from; so a fusion of a ReLU and a sum counts as
one of them. On a CPU operations run on several threads at once, and the sum may exceed
the time of the step. GPUs do not tell the operations in a command buffer apart: there,
set XLA_FLAGS=--xla_gpu_enable_command_buffer=

`least` is the roofline (benchmarks/roofline.py): every layer by itself, at the rate of a
large matrix product or of copying, whichever makes it slower; both are measured here. A
ReLU costs nothing there: it is part of the normalisation before it.
Winograd's convolutions do fewer products than are counted, and fusions may move less.
"""

import collections
import itertools
import pathlib
import re
import tempfile
import time

import jax

from benchmarks import hlo, measure, pretraining, roofline
from ctp_jax.ranges import CONVOLUTIONS

_ONEDNN = "__onednn$convolution"
_CONTROL = re.compile(r"%?(while|call|conditional)\b")
"""Their time is that of the operations in them."""

REST = "the rest"


def purposes(text: str) -> dict[str, tuple[str, str]]:
    """{operation: (what it is for, JAX's name of it)}, from a program's HLO as text.

    A fusion without a name of its own is for what most of its operations are for.
    """
    program, found = hlo.Program(text), {}
    for each in itertools.chain(*program.computations.values()):
        if each.origin:
            found[each.name] = purpose(each.origin), each.origin
            continue
        parts = [(purpose(part.origin), part.origin) for part in program.inside(each)]
        known = collections.Counter(part for part in parts if part[0] != REST)
        found[each.name] = known.most_common(1)[0][0] if known else (REST, "")
        if _ONEDNN in each.line:
            # XLA drops the name where it transposes the operands, which are gradients'.
            found[each.name] = "convolution, backward", ""
    return found


def purpose(name: str) -> str:
    """What an operation is for, by JAX's name of it."""
    where = "backward" if "transpose(" in name else "forward"
    for part in (pretraining.DRAWING, pretraining.OPTIMISER):
        if re.search(rf"\b{part}\b", name):
            return part
    if "CtPHead" in name:
        return f"head, {where}"
    if re.search(r"bn\d?/", name):
        return f"normalisation, {where}"
    if re.search(r"(conv\d?|spatial|temporal)/", name):
        return f"convolution, {where}"
    if "ResNet3D" in name:
        return f"ReLU and sums, {where}"
    return REST


def trace(running, steps):
    """Seconds of a step, and what the device did in so many."""
    running.step()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            running.step(steps)
            seconds = (time.perf_counter() - start) / steps
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
        return seconds, list(device_events(profile))


def device_events(profile):
    """(operation, nanoseconds) of everything that the device did."""
    for plane in profile.planes:
        on_device = plane.name.startswith("/device:")
        for line in plane.lines:
            if on_device and not line.name.startswith(("Stream", "XLA Ops")):
                continue  # sums over the others
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation is None and on_device:
                    operation = event.name.split(" = ")[0].lstrip("%")
                if operation is not None and not _CONTROL.match(operation):
                    yield operation.removesuffix(_ONEDNN), event.duration_ns


def add_up(events, known, steps):
    """{purpose: milliseconds a step} and {operation: ...}, largest first."""
    by_purpose, by_operation = collections.Counter(), collections.Counter()
    for operation, duration in events:
        what = known.get(operation, ("not in the program", ""))[0]
        by_purpose[what] += duration / 1e6 / steps
        by_operation[operation] += duration / 1e6 / steps
    return dict(by_purpose.most_common()), dict(by_operation.most_common())


def ceilings(rounds):
    """Best rates: FLOP/s of products of each dtype, bytes a second of copying."""
    work = {dtype: roofline.matmul(dtype) for dtype in ("float32", "bfloat16")}
    work["copy"] = roofline.copy()
    calls = {name: call for name, (call, _) in work.items()}
    seconds = measure.in_turn(calls, rounds)
    return {name: work[name][1] / min(each) for name, each in seconds.items()}


def main():
    parser = measure.make_parser(__spec__.name, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of a side")
    cpu = jax.default_backend() == "cpu"
    pretraining.add_arguments(parser)
    parser.add_argument("--conv", default="auto", choices=CONVOLUTIONS)
    parser.add_argument("--steps", type=int, default=1 if cpu else 5, help="traced")
    arguments = parser.parse_args()
    config = pretraining.make_config(
        *(arguments.model, arguments.batch),
        *(arguments.dtype, arguments.width, arguments.conv),
        *(arguments.size, arguments.frames),
    )
    rates = ceilings(arguments.rounds)
    running = pretraining.Running(config, pretraining.make_batch(config))
    seconds, events = trace(running, arguments.steps)
    known = purposes(running.compiled.as_text())
    by_purpose, by_operation = add_up(events, known, arguments.steps)
    wide = arguments.dtype == "float32"
    work = roofline.step_work(roofline.layers(config), arguments.batch, wide)
    least = roofline.least_seconds(
        work, rates["bfloat16"], rates["float32"], rates["copy"]
    )
    device = jax.devices()[0].device_kind
    print(
        f"{device}: {1e3 * seconds:.4g} ms a step, traced; products "
        f"{rates['float32'] / 1e12:.3g} TFLOP/s float32, "
        f"{rates['bfloat16'] / 1e12:.3g} bfloat16; copying {rates['copy'] / 1e9:.3g} GB/s"
    )
    total = sum(by_purpose.values())
    measure.show(
        ("", "ms", "%", "least, ms"),
        [
            (name, ms, 100 * ms / total, name in least and 1e3 * least[name] or None)
            for name, ms in by_purpose.items()
        ],
    )
    print()
    rows = [
        (name, ms, 100 * ms / total, *known.get(name, ("", "")))
        for name, ms in by_operation.items()
    ]
    measure.show(("operation", "ms", "%", "for", "name"), rows[:20])
    measure.write_json(
        arguments.json,
        {
            "device": device,
            "arguments": vars(arguments),
            "rates": rates,
            "seconds": seconds,
            "milliseconds by purpose": by_purpose,
            "least seconds by purpose": least,
            "operations": rows,
        },
    )


if __name__ == "__main__":
    measure.run(main)
