"""What a compiled program consists of, read from its optimised HLO as text.

Knows the calls of cuDNN on GPUs, and convolutions as they are on TPUs and CPUs.
"""

import collections
import dataclasses
import math
import re

FORWARD, INPUT, KERNEL = "forward", "input gradient", "kernel gradient"

_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[^\s=]+) = (?P<type>\(.*?\)|\S+) (?P<op>[a-z][\w-]*)\("
)
_SHAPE = re.compile(r"\b(pred|bf16|[a-z]\d+)\w*\[([\d,]*)\](?:\{([\d,]*))?")
_CALLED = r"\b(?:body|to_apply)=%?([^\s,]+)|\bbranch_computations=\{([^}]*)\}"
_TRIPS = r'"known_trip_count":\{"n":"(\d+)"\}'
_NO_KERNEL = re.compile(
    "parameter|constant|tuple|get-tuple-element|bitcast|while|call|conditional|"
    "after-all|opt-barrier|optimization-barrier|partition-id|replica-id|.*-done"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name, op: what it is called, and what it does.
        type: of its result, as text.
        line: all of it.
    """

    name: str
    op: str
    type: str
    line: str

    def attribute(self, pattern: str) -> str:
        """The first group of a regular expression; empty if it is not there."""
        found = re.search(pattern, self.line)
        return found[1] if found else ""

    @property
    def origin(self) -> str:
        """JAX's name of what it came from."""
        return self.attribute(r'op_name="([^"]*)"')

    @property
    def shapes(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Of each result: type, sizes, and its axes from the innermost one."""
        return [
            (dtype, _numbers(sizes), _numbers(layout))
            for dtype, sizes, layout in _SHAPE.findall(self.type)
        ]

    @property
    def sizes(self) -> list[int]:
        """Bytes of each result."""
        return [
            math.prod(sizes)
            * (8 if kind == "pred" else int(re.sub(r"\D", "", kind)))
            // 8
            for kind, sizes, _ in self.shapes
        ]

    @property
    def bytes(self) -> int:
        """Of all results."""
        return sum(self.sizes)


def _numbers(text):
    return tuple(int(number) for number in text.split(",") if number)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution.

    Attributes:
        kind: FORWARD, INPUT or KERNEL.
        call: of cuDNN, 'Forward', 'BackwardInput' or 'BackwardFilter'; else 'convolution'.
        window: sizes, strides and padding.
        layout: 'channels last' or 'channels first', or which axis of the result is the
            innermost one.
    """

    kind: str
    call: str
    window: str
    layout: str

    @property
    def is_miss(self) -> bool:
        """A gradient of a kernel for which another call than its own is used."""
        others = ("Forward", "BackwardInput")
        return self.kind == KERNEL and self.call in others


class Program:
    """A program.

    Attributes:
        computations: name -> instructions.
        entry: name of the one that runs.
    """

    def __init__(self, text: str):
        """Reads what `compiled.as_text()` returns."""
        self.computations: dict[str, list[Instruction]] = {}
        self.entry, inside = "", []
        for line in text.splitlines():
            if line.endswith("{") and " -> " in line:
                name = re.match(r"(?:ENTRY )?%?([^\s(]+)", line)[1]
                inside = self.computations[name] = []
                self.entry = name if line.startswith("ENTRY") else self.entry
            elif found := _INSTRUCTION.match(line):
                inside.append(Instruction(**found.groupdict(), line=line))

    def launched(self) -> list[tuple[Instruction, int]]:
        """Instructions that are kernels (or copies, collectives), and how often they run.

        Those inside of fusions are not.
        """
        found, left = [], [(self.entry, 1)]
        while left:
            name, times = left.pop()
            for each in self.computations[name]:
                if each.op in ("while", "call", "conditional"):
                    trips = int(each.attribute(_TRIPS) or 1)
                    for called in re.findall(_CALLED, each.line):
                        names = re.findall(r"[^\s,%]+", " ".join(called))
                        left += [(name, times * trips) for name in names]
                elif not _NO_KERNEL.fullmatch(each.op):
                    found.append((each, times))
        return found

    def inside(self, instruction: Instruction) -> list[Instruction]:
        """Those that a fusion consists of; otherwise the instruction itself."""
        called = instruction.attribute(r"\bcalls=%?([^\s,]+)")
        return self.computations.get(called, [instruction])

    def convolutions(self) -> list[Convolution]:
        """All, in loops once."""
        found = []
        for instructions in self.computations.values():
            for each in instructions:
                call = each.attribute(r'custom_call_target="__cudnn\$conv(\w+)"')
                # TPUs compute products of matrices as convolutions, too.
                plain = each.origin.endswith("conv_general_dilated")
                if call or (each.op == "convolution" and plain):
                    found.append(_convolution(each, call))
        return found


def _convolution(instruction, call):
    window = instruction.attribute(r"window=\{([^}]*)\}")
    labels = instruction.attribute(r"dim_labels=([^\s,]+)")
    inputs, _, outputs = re.split("_|->", labels)
    name = re.sub("BiasActivation|Graph", "", call)
    _, sizes, axes = instruction.shapes[0]
    if "transpose(" not in instruction.origin:
        kind = FORWARD
    elif call:
        made = inputs if name == "BackwardInput" else outputs
        kind = _kind_of_call(name, window, made, sizes)
    else:
        # Over clips, which our activations have first, the gradient of a kernel sums.
        kind = KERNEL if inputs.index("f") < inputs.index("b") else INPUT
    if call:
        layout = "channels last" if inputs[-1] == "f" else "channels first"
    else:
        last = outputs[axes[0]] if axes else outputs[-1]
        # Of a kernel, both of its axes of channels have such names.
        names = {"f": "channels last", "b": "clips last"}
        names |= {"b": "channels last"} if kind == KERNEL else {}
        layout = names.get(last, f"axis {last} last")
    return Convolution(kind, name or "convolution", window or "1", layout)


def _kind_of_call(name, window, labels, sizes):
    """Which gradient a call of cuDNN computes.

    That of a kernel has the cotangent as its window, if it is no BackwardFilter: over
    height and width that is larger than the result, which is the kernel.
    """
    if name == "BackwardFilter":
        return KERNEL
    seen = re.search(r"size=([\dx]+)", window)
    seen = [int(size) for size in seen[1].split("x")] if seen else []
    made = [size for axis, size in sorted(zip(labels, sizes)) if axis.isdigit()]
    return KERNEL if math.prod(seen[-2:]) > math.prod(made[-2:]) else INPUT


def count_moves(program: Program) -> dict[str, tuple[int, int]]:
    """{what: (kernels, bytes that they write)} of transposes and copies, in a run."""
    found = collections.defaultdict(lambda: (0, 0))
    for each, times in program.launched():
        parts = program.inside(each)
        transposed = sum(part.bytes for part in parts if part.op == "transpose")
        what = "transposes" if transposed else "copies"
        moved = transposed or (each.bytes if each.op in ("copy", "copy-start") else 0)
        if moved:
            count, total = found[what]
            found[what] = count + times, total + times * moved
    return dict(found)
