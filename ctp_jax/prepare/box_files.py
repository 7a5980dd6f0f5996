"""Reads files of boxes: tables with a header, MOTChallenge's, GOT-10k's and OTB's.

Imports no TensorFlow, see `ctp_jax.prepare.video`.
"""

import dataclasses
import math
import os

import numpy as np

from ctp_jax.formatting import one_line
from ctp_jax.prepare.presentation import VideoError
from ctp_jax.storage import remote

MAX_BYTES = 1 << 28
_BOX = ("x", "y", "w", "h")
_MOT = ("frame", "id", *_BOX, "conf", "class", "visibility", "z")
_CORNERS = ("x1", "y1", "x2", "y2")
_NEEDS = (
    "needs the columns frame,x,y,w,h (or frame,x1,y1,x2,y2) and perhaps id,visibility"
)
_SAME = {"left": "x", "top": "y", "width": "w", "height": "h"}
_SEPARATORS = (";", "\t", ",")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The m rows of a file of boxes, with its own numbers.

    Attributes:
        kind: 'csv', 'mot' or 'bare', see `read_rows`.
        frames: int (m,).
        objects: int (m,), from 0 in the order of their first appearance.
        corners: whether the boxes are x1,y1,x2,y2, as the header says.
        boxes: float (m, 4), nan for empty cells.
        visibility: float (m,), in [0, 1].
    """

    kind: str
    frames: np.ndarray
    objects: np.ndarray
    corners: bool
    boxes: np.ndarray
    visibility: np.ndarray


def read_rows(path: str) -> Rows:
    """Reads a file of boxes; semicolons, tabs, commas or spaces stand between values.

    Which of them it is, in this order, the first line says. Where it is neither a comma
    nor spaces, a number may have a decimal comma.

    - csv: the first line names the columns frame,x,y,w,h and perhaps id,visibility; or
      frame,x1,y1,x2,y2, or left,top,width,height for x,y,w,h.
    - mot: lines frame,id,x,y,w,h and perhaps conf,class,visibility, as of MOTChallenge.
      Those with conf 0 are not to be considered. With a tenth value, those after conf are
      coordinates in the world.
    - bare: lines x,y,w,h, one per frame, as of GOT-10k and OTB.

    Raises:
        VideoError: another format, a cell that is no number, or an object that has two
            boxes in a frame.
    """
    name = os.path.basename(path)
    lines = enumerate(read_text(path).split("\n"), start=1)
    lines = [(f"{name}:{i}", line) for i, line in lines if line.strip()]
    between = next(
        (each for each in _SEPARATORS if lines and each in lines[0][1]), None
    )
    cells = [
        (where, [cell.strip("\"' ") for cell in line.split(between)])
        for where, line in lines
    ]
    kind, columns = _columns(*cells[0]) if cells else ("bare", _BOX)
    of_box = _CORNERS if _CORNERS[0] in columns else _BOX
    rows: list[tuple[int, str, list[float], float]] = []
    seen: set[tuple[float, str]] = set()
    for where, line in cells[kind == "csv" :]:
        own, value = _parse(where, columns, line)
        frame = value.get("frame", float(len(rows)))
        if not frame.is_integer() or abs(frame) > 1e9:
            raise VideoError(f"{where}: frame {frame:g}: needs a whole number")
        if (frame, own) in seen:
            of = f" of object {one_line(own[:40])}" * bool(own)
            raise VideoError(f"{where}: a second box{of} in frame {frame:g}")
        seen.add((frame, own))
        if value.get("conf") == 0:
            continue
        visible = 1.0 if "z" in value else value.get("visibility", 1.0)
        if visible < 0 or visible > 1:
            raise VideoError(f"{where}: visibility {visible:g}: needs 0 to 1")
        box = [value[column] for column in of_box]
        rows.append((int(frame), own, box, 0.0 if math.isnan(visible) else visible))
    if not rows:
        raise VideoError(f"{name}: has no boxes")
    ids = dict.fromkeys(row[1] for row in sorted(rows, key=lambda row: row[0]))
    numbers = {own: i for i, own in enumerate(ids)}
    frames, objects, boxes, visibility = zip(*rows, strict=True)
    return Rows(
        kind,
        np.array(frames),
        np.array([numbers[own] for own in objects]),
        of_box == _CORNERS,
        np.array(boxes),
        np.array(visibility),
    )


def _columns(where: str, first: list[str]) -> tuple[str, tuple[str, ...]]:
    """The kind of a file, and its columns, by its first line."""
    try:
        [float(cell.replace(",", ".") or "nan") for cell in first]
    except ValueError:
        columns = tuple(_SAME.get(cell.lower(), cell.lower()) for cell in first)
        for needed in ({"frame", *_BOX}, {"frame", *_CORNERS}):
            known = needed <= set(columns) <= needed | {"id", "visibility"}
            if known and len(set(columns)) == len(columns):
                return "csv", columns
        has = one_line(",".join(first)[:100])
        raise VideoError(f"{where}: {_NEEDS}, has `{has}`") from None
    if len(first) == len(_BOX):
        return "bare", _BOX
    if 6 <= len(first) <= len(_MOT):
        return "mot", _MOT[: len(first)]
    raise VideoError(
        f"{where}: has {len(first)} values: {_NEEDS} in a first line, or lines x,y,w,h or "
        "frame,id,x,y,w,h,..."
    )


def _parse(
    where: str, columns: tuple[str, ...], line: list[str]
) -> tuple[str, dict[str, float]]:
    """The id in a line, empty if it has none, and its numbers by column."""
    if len(line) != len(columns):
        needs = ",".join(columns)
        raise VideoError(f"{where}: has {len(line)} values, needs {needs}")
    row = dict(zip(columns, line, strict=True))
    own = row.pop("id", "")
    return own, {column: number(where, column, cell) for column, cell in row.items()}


def number(where: str, what: str, cell: str) -> float:
    """The number in a cell, nan if it is empty; raises `VideoError`."""
    try:
        return float(cell.replace(",", ".") or "nan")
    except ValueError:
        raise VideoError(f"{where}: {what} is {cell[:40]!r}, no number") from None


def read_text(path: str) -> str:
    """The text of a file, also from an object store; raises `VideoError`."""
    try:
        with remote.opened(path, MAX_BYTES) as file:
            text = file.read().decode("utf-8-sig", "replace")
            return text.replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise VideoError(f"{os.path.basename(path)}: {error.strerror}") from error
