"""Formats numbers, durations and names for log lines, lists and reports."""

import operator
import shlex
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

_CONTROL = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))}
_CONTROL |= {0x2028: "\\u2028", 0x2029: "\\u2029"}  # these two end a line


def one_line(text: str) -> str:
    r"""The text with its control characters and line ends escaped, `\x0a`."""
    return text.translate(_CONTROL)


def number(value: float) -> str:
    """Three decimals; very small or large numbers with three digits and an exponent."""
    if isinstance(value, int):
        return str(value)
    size = abs(value)
    return f"{value:.3f}" if size == 0 or 1e-2 <= size < 1e4 else f"{value:.2e}"


def some(names: Iterable[str], number: int = 3) -> str:
    """The first of many: 'a, b, c, ...'."""
    names = list(names)
    return ", ".join(names[:number]) + ", ..." * (len(names) > number)


def count(number: SupportsIndex, noun: str, plural: str = "") -> str:
    """'1 video', '2 videos', '1,250 videos'; the plural where it is not noun + s."""
    number = operator.index(number)
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def wrapped(
    parts: Sequence[str], width: int = 100, indent: str = "    ", gap: str = "  "
) -> str:
    """Parts with a gap between them, on lines of at most `width` characters.

    All lines but the first are indented. A part is never broken; one that is too long for
    any line stays on the line that it is on.
    """
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}{gap}{part}" if lines[-1].strip() else lines[-1] + part
        if len(longer) > width >= len(indent + part) and lines[-1].strip():
            lines.append(indent + part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def folded(text: str, indent: str = "    ") -> str:
    """Text whose lines of more than 100 characters are broken between words."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        first, *rest = line.lstrip().split(" ")
        start = line[: len(line) - len(line.lstrip())] + first
        lines[number] = wrapped([start, *rest], indent=indent, gap=" ")
    return "\n".join(lines)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, the first column flush left and the others flush right."""
    table = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *cells in table:
        cells = [c.rjust(w) for c, w in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    return lines


def markdown(
    heads: Sequence[str], rows: Iterable[Sequence[str]], rules: Sequence[str] = ()
) -> list[str]:
    """Lines of a Markdown table; `rules` are '---', flush left, or '---:', for each head.

    >>> markdown(("video", "frames"), [("a.mp4", "80")], ("---", "---:"))
    ['| video | frames |', '| --- | ---: |', '| a.mp4 | 80 |']
    """
    rules = rules or ["---"] * len(heads)
    return [f"| {' | '.join(row)} |" for row in (heads, rules, *rows)]


def command(words: Sequence[str], indent: str = "    ") -> str:
    """A command to copy: on lines of 90 characters, with backslashes between them."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(indent + lines[-1] + word) > 90:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return f" \\\n{indent}".join(lines)


def duration(seconds: float) -> str:
    """'1.5s', '42s', '4m10s', '3h05m', '2d03h'."""
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
