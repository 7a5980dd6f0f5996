"""Draws videos beside their nearest neighbours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ctp_jax.pictures import BACKGROUND, COLOURS, FONT_SIZE, GAP, INK, font

_CELL = (160, 120)  # width and height
_RIM = 5
# Bluish green and vermilion of the same palette; a tick or a cross says the same.
_RIGHT, _WRONG = COLOURS[3], COLOURS[2]


def draw(
    queries: Sequence[np.ndarray],
    neighbours: Sequence[Sequence[np.ndarray]],
    correct: np.ndarray | None,
    *,
    query_names: Sequence[str],
    neighbour_names: Sequence[Sequence[str]],
    title: str = "",
) -> Image.Image:
    """A row per query: its frame, then the frames of its neighbours, nearest first.

    Neighbours of the query's class have a green rim and a tick, others a red rim and a
    cross.

    Args:
        queries: uint8 (h, w, 3) each, of any size; q of them.
        neighbours: for each query the frames of its k neighbours, likewise.
        correct: bool (q, k); None: nothing is judged.
        query_names: q names, below the frames, on two lines if need be; longer ones are
            shortened to fit.
        neighbour_names: q times k names.
        title: a line above the rows.
    """
    line = FONT_SIZE + GAP
    width, height = (side + 2 * _RIM + GAP for side in _CELL)
    columns, head = len(neighbours[0]), GAP + 2 * line
    # A gap between the query and its neighbours.
    lefts = [GAP, *(GAP + width * (1 + k) + 3 * GAP for k in range(columns))]
    total = max(lefts[-1] + width, round(font().getlength(title)) + 2 * GAP)
    high = height + 2 * line  # of a row
    sheet = Image.new("RGB", (total, head + len(queries) * high), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), title, fill=INK, font=font())
    headings = (
        "query",
        *("nearest" if k == 0 else f"{k + 1}." for k in range(columns)),
    )
    for left, heading in zip(lefts, headings, strict=True):
        pen.text((left, GAP + line), heading, fill=INK, font=font())
    for row, query in enumerate(queries):
        top = head + row * high
        frames = (query, *neighbours[row])
        names = (query_names[row], *neighbour_names[row])
        marks = (None, *([None] * columns if correct is None else correct[row]))
        for left, frame, name, mark in zip(lefts, frames, names, marks, strict=True):
            sheet.paste(_framed(frame, mark), (left, top))
            name = _two_lines(name, width - GAP)
            pen.text((left, top + height - GAP), name, fill=INK, font=font())
    return sheet


def _framed(frame: np.ndarray, correct: bool | np.bool_ | None) -> Image.Image:
    """A frame in a cell, with a coloured rim and a mark unless `correct` is None."""
    image = Image.fromarray(frame)
    width, height = _CELL
    scale = min(width / image.width, height / image.height)
    size = [max(round(side * scale), 1) for side in image.size]
    colour = "#999999" if correct is None else _RIGHT if correct else _WRONG
    cell = Image.new("RGB", (width + 2 * _RIM, height + 2 * _RIM), colour)
    cell.paste(INK, (_RIM, _RIM, _RIM + width, _RIM + height))
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (width - image.width) // 2, (height - image.height) // 2
    cell.paste(image, (_RIM + left, _RIM + top))
    if correct is None:
        return cell
    # Drawn as lines, because not every font has a tick and a cross.
    draw, side = ImageDraw.Draw(cell), 18
    draw.rectangle((0, 0, side + _RIM, side + _RIM), fill=colour)
    strokes = (
        [[(5, 12), (10, 17), (18, 6)]]
        if correct
        else [[(6, 6), (17, 17)], [(17, 6), (6, 17)]]
    )
    for stroke in strokes:
        draw.line(stroke, fill="white", width=3)
    return cell


def _two_lines(text: str, width: float) -> str:
    """The text on one or two lines of `width` pixels, with two dots where it is cut.

    Names of videos have no spaces, so it is broken anywhere.
    """
    first = _fitting(text, width)
    rest = text[len(first) :]
    if _fitting(rest, width) != rest:
        rest = _fitting(rest, width - font().getlength("..")) + ".."
    return f"{first}\n{rest}".rstrip("\n")


def _fitting(text: str, width: float) -> str:
    """As much of the beginning as `width` pixels hold."""
    while font().getlength(text) > width:
        text = text[:-1]
    return text
