"""Where the time of a training step goes, by what its operations are for.

    python -m benchmarks.profile_step [--model r3d18 --batch 32 --dtype bfloat16]

Traces a few steps with `jax.profiler` and adds up the operations of the device. What an
operation is for is read from the compiled program: the layer or the source file that its
last part came from; so a fusion of a ReLU and a sum counts as one of them. On a CPU
operations run on several threads at once, and the sum may exceed the time of the step.
GPUs do not tell the operations in a command buffer apart: there, set
XLA_FLAGS=--xla_gpu_enable_command_buffer=
"""

import collections
import os
import pathlib
import re
import tempfile
import time

import jax

from benchmarks import command_line, measure, pretraining
from ctp_jax.models import base, resnet3d
from ctp_jax.models.conv import conv3d

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([^\s=]+) = ")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([^\s(]+)")
_NUMBER = re.compile(r"^(\d+) (.*)")
_CONTROL = re.compile(r"%?(while|call|conditional)\b")
"""Their time is that of the operations in them."""

REST = "the rest"


def frame_files(text: str) -> dict[int, list[str]]:
    """Source files of each stack frame of a program, from the inside out."""
    tables, table = collections.defaultdict(dict), None
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables[line]
        elif table is not None and (row := _NUMBER.match(line)):
            table[int(row[1])] = row[2]
        elif line:
            table = None

    def field(row, name):
        found = re.search(rf"\b{name}=(\d+)", row)
        return int(found[1]) if found else 0

    frames = tables["StackFrames"]
    # XLA prints a frame's parent one too high: the first is its own.
    high = any(field(row, "parent_frame_id") == key for key, row in frames.items())

    def files(frame):
        found = []
        while frame in frames:
            place = tables["FileLocations"].get(
                field(frames[frame], "file_location_id")
            )
            name = tables["FileNames"].get(field(place or "", "file_name_id"), "")
            found.append(name.strip('"'))
            frame = field(frames[frame], "parent_frame_id") - high
        return found

    return {frame: files(frame) for frame in frames}


def purposes(text: str) -> dict[str, tuple[str, str]]:
    """{operation: (what it is for, JAX's name of it)}, from a program's HLO as text.

    A fusion without a name of its own is for what most of its operations are for.
    """
    files, found, inside = frame_files(text), {}, collections.defaultdict(list)
    unnamed, computation = {}, ""
    for line in text.splitlines():
        if line.endswith("{") and " -> " in line:
            computation = _COMPUTATION.match(line)[1]
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        name = re.search(r'op_name="([^"]*)"', line)
        frame = re.search(r"stack_frame_id=(\d+)", line)
        calls = re.search(r"\bcalls=%?([^\s,]+)", line)
        if name:
            stack = files.get(int(frame[1]), []) if frame else []
            found[match[1]] = purpose(name[1], stack), name[1]
            inside[computation].append(found[match[1]])
        else:
            found[match[1]] = REST, ""
            if calls:
                unnamed[match[1]] = calls[1]
    for operation, called in unnamed.items():
        known = [each for each in inside[called] if each[0] != REST]
        if known:
            found[operation] = collections.Counter(known).most_common(1)[0][0]
    return found


def purpose(name: str, files: list[str]) -> str:
    """What an operation is for, by JAX's name of it and the files it came from."""
    where = "backward" if "transpose(" in name else "forward"
    if any(file.endswith("ctp_jax/tasks/render.py") for file in files):
        return "drawing"
    if "CtPHead" in name:
        return f"head, {where}"
    if re.search(r"bn\d?/", name):
        return f"normalisation, {where}"
    if re.search(r"(conv\d?|spatial|temporal)/", name):
        return f"convolution, {where}"
    if "ResNet3D" in name:
        return f"ReLU and sums, {where}"
    if any("/optax/" in file or file.endswith("optimizer.py") for file in files):
        return "optimiser"
    return REST


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
                    yield operation, event.duration_ns


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


def add_up(events, known, steps):
    """Rows (name, milliseconds a step, operations a step, ...) by purpose and by one."""
    by_purpose, by_operation = (collections.Counter() for _ in range(2))
    counts = collections.Counter()
    for operation, duration in events:
        what = known.get(operation, ("not in the program", ""))[0]
        by_purpose[what] += duration / 1e6 / steps
        by_operation[operation] += duration / 1e6 / steps
        counts[what] += 1 / steps
    total = sum(by_purpose.values()) or 1.0
    purposes_ = [
        (name, value, 100 * value / total, counts[name])
        for name, value in by_purpose.most_common()
    ]
    operations = [
        (name, value, 100 * value / total, *known.get(name, ("", "")))
        for name, value in by_operation.most_common()
    ]
    return purposes_, operations


def main():
    parser = command_line.Parser(__spec__.name, __doc__)
    add = parser.add_argument
    cpu = jax.default_backend() == "cpu"
    add("--model", default="r3d18", choices=resnet3d.NAMES)
    add("--batch", type=command_line.count, default=2 if cpu else 32)
    add("--dtype", default="auto", choices=base.DTYPES)
    add("--conv", default="auto", choices=conv3d.IMPLEMENTATIONS)
    add("--width", type=command_line.positive, default=1.0, help="of the network")
    add("--steps", type=command_line.count, default=1 if cpu else 5)
    add("--top", type=command_line.count, default=25, help="operations to show")
    add(
        "--hlo",
        type=command_line.writable,
        default="",
        help="write the compiled program there",
    )
    arguments = parser.parse_args()
    config = pretraining.make_config(
        arguments.model,
        arguments.batch,
        arguments.dtype,
        arguments.width,
        arguments.conv,
    )
    running = pretraining.Running(config, pretraining.make_batch(config))
    text = running.compile("step").as_text()
    if arguments.hlo:
        pathlib.Path(arguments.hlo).write_text(text)
    seconds, events = trace(running, arguments.steps)
    by_purpose, operations = add_up(events, purposes(text), arguments.steps)
    device = jax.devices()[0].device_kind
    flags = os.environ.get("XLA_FLAGS", "")
    print(f"{device}: {1e3 * seconds:.4g} ms a step, traced; XLA_FLAGS={flags!r}")
    measure.show(("", "ms", "%", "operations"), by_purpose)
    print()
    measure.show(("operation", "ms", "%", "for", "name"), operations[: arguments.top])
    measure.write_json(
        arguments.json,
        {
            "device": device,
            "flags": flags,
            "arguments": vars(arguments),
            "seconds": seconds,
            "by purpose": by_purpose,
            "operations": operations,
        },
    )


if __name__ == "__main__":
    command_line.run(main)
