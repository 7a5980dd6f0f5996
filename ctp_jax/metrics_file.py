"""Reads `metrics.jsonl`: one JSON object per line, with a `kind` and a `step`."""

import json
import pathlib
from typing import Any


def read(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """The intact lines in order, and the number of truncated or damaged ones."""
    lines, bad = [], 0
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
            whole = isinstance(line["kind"], str) and isinstance(line["step"], int)
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if whole:
            lines.append(line)
        else:
            bad += 1
    return lines, bad
