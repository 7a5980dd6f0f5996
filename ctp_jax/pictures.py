"""Pictures of clips with boxes: contact sheets and animations (paper Fig. 1 and 7).

Symbols: v videos, n trajectories, t frames, s side of a clip in pixels.
"""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# The palette of Okabe and Ito, distinguishable for colour-blind readers.
COLOURS = ("#f0e442", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#0072b2")
_BACKGROUND = "#ffffff"
_INK = "#333333"
_GAP = 6
_FONT_SIZE = 15
_CELL = (160, 120)  # width and height of a cell in a sheet of neighbours
_RIM = 5
# Bluish green and vermilion of the same palette; a tick or a cross says the same.
_RIGHT, _WRONG = COLOURS[3], COLOURS[2]


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)


def _draw_box(
    draw: ImageDraw.ImageDraw,
    box: np.ndarray,
    colour: str,
    dashed: bool,
    width: int = 2,
) -> None:
    """Outlines x1, y1, x2, y2: solid with a dark rim, or dashed."""
    if not np.isfinite(box).all():
        return
    x1, y1, x2, y2 = (float(value) for value in box)
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    if not dashed:
        draw.line(corners, fill="black", width=2 * width)
        draw.line(corners, fill=colour, width=width)
        return
    for start, end in itertools.pairwise(corners):
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1e-6)
        for begin in np.arange(0.0, length, 9.0):
            stop = min(begin + 5.0, length)
            piece = [
                tuple(
                    a + (b - a) * at / length for a, b in zip(start, end, strict=True)
                )
                for at in (begin, stop)
            ]
            draw.line(piece, fill=colour, width=2)


def draw_frame(
    frame: np.ndarray,
    boxes: np.ndarray,
    predicted: np.ndarray | None,
    zoom: int,
    width: int = 2,
) -> Image.Image:
    """One frame with true boxes (coloured) and predicted ones (white, dashed).

    Args:
        frame: uint8 (h, w, 3).
        boxes: (n, 4), x1 y1 x2 y2 in pixels of the frame; NaN: not drawn.
        predicted: likewise, or None.
        zoom: picture pixels per frame pixel.
        width: of the lines of true boxes, in picture pixels.
    """
    size = (frame.shape[1] * zoom, frame.shape[0] * zoom)
    image = Image.fromarray(frame)
    image = image.resize(size, Image.Resampling.BICUBIC) if zoom > 1 else image
    draw = ImageDraw.Draw(image)
    for number, box in enumerate(boxes * zoom):
        _draw_box(draw, box, COLOURS[number % len(COLOURS)], False, width)
    for box in () if predicted is None else predicted * zoom:
        _draw_box(draw, box, "white", dashed=True)
    return image


def _grid(
    images: Sequence[Sequence[Image.Image]], title: str, names: Sequence[str]
) -> Image.Image:
    """Rows of equally large images under a title, each row under its name."""
    side, high = images[0][0].size
    head = _FONT_SIZE + 2 * _GAP if title else _GAP
    label = _FONT_SIZE + _GAP if names else 0
    width = max(len(row) for row in images) * (side + _GAP) + _GAP
    width = max(width, round(_font().getlength(title)) + 2 * _GAP)
    sheet = Image.new(
        "RGB", (width, head + len(images) * (high + label + _GAP)), _BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill=_INK, font=_font())
    for index, row in enumerate(images):
        top = head + index * (high + label + _GAP)
        if names:
            draw.text((_GAP, top), names[index], fill=_INK, font=_font())
        for column, image in enumerate(row):
            sheet.paste(image, (_GAP + column * (side + _GAP), top + label))
    return sheet


def contact_sheet(
    clips: np.ndarray,
    boxes: np.ndarray,
    predicted: np.ndarray | None = None,
    *,
    title: str = "",
    names: Sequence[str] = (),
    columns: int = 8,
    zoom: int = 2,
) -> Image.Image:
    """A row of frames per video, with boxes.

    Args:
        clips: uint8 (v, t, h, w, 3).
        boxes: (v, n, t, 4), x1 y1 x2 y2 in pixels of the clip.
        predicted: likewise, or None.
        title: a line above the rows.
        names: one per video, above its row; or empty.
        columns: number of the t frames to show, evenly spread.
        zoom: picture pixels per frame pixel.
    """
    times = np.linspace(0, clips.shape[1] - 1, min(columns, clips.shape[1]))
    shown = [
        _draw_videos(clips, boxes, predicted, t, zoom)
        for t in times.round().astype(int)
    ]
    return _grid(list(zip(*shown, strict=True)), title, names)


def _draw_videos(
    clips: np.ndarray,
    boxes: np.ndarray,
    predicted: np.ndarray | None,
    t: int | np.integer,
    zoom: int,
) -> list[Image.Image]:
    """Frame t of every video."""
    return [
        draw_frame(
            clip[t],
            boxes[v][:, t],
            None if predicted is None else predicted[v][:, t],
            zoom,
        )
        for v, clip in enumerate(clips)
    ]


def save_animation(
    path: pathlib.Path,
    clips: np.ndarray,
    boxes: np.ndarray,
    predicted: np.ndarray | None = None,
    *,
    title: str = "",
    columns: int = 4,
    zoom: int = 2,
    frames_per_second: float = 8.0,
) -> None:
    """Writes all videos side by side as an animated GIF; see `contact_sheet`."""
    pictures = []
    for t in range(clips.shape[1]):
        images = _draw_videos(clips, boxes, predicted, t, zoom)
        rows = [images[i : i + columns] for i in range(0, len(images), columns)]
        pictures.append(_grid(rows, title, ()))
    # One palette for all frames: one per frame, with dithering, would flicker.
    palette = pictures[0].quantize(255)
    pictures = [
        picture.quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / frames_per_second),
        loop=0,
    )


def fit(
    frames: Sequence[np.ndarray], boxes: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Frames of any shape in the middle of black pictures, and their boxes there.

    Args:
        frames: uint8 (h, w, 3), t of them, all of one size.
        boxes: (n, t, 4), x1 y1 x2 y2 in shares of the frame's width and height.
        size: width and height of the pictures.

    Returns:
        uint8 (t, height, width, 3), and the boxes in pixels of these.
    """
    height, width = frames[0].shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = np.maximum(np.round([width * scale, height * scale]), 1).astype(int)
    left, top = (np.array(size) - inner) // 2
    pictures = np.zeros((len(frames), size[1], size[0], 3), np.uint8)
    for picture, frame in zip(pictures, frames, strict=True):
        small = Image.fromarray(frame).resize(tuple(inner), Image.Resampling.BICUBIC)
        picture[top : top + inner[1], left : left + inner[0]] = np.asarray(small)
    return pictures, boxes * np.tile(inner, 2) + np.tile([left, top], 2)


def neighbour_sheet(
    queries: Sequence[np.ndarray],
    neighbours: Sequence[Sequence[np.ndarray]],
    correct: np.ndarray,
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
        correct: bool (q, k).
        query_names: q names, below the frames; shortened to fit.
        neighbour_names: q times k names.
        title: a line above the rows.
    """
    line = _FONT_SIZE + _GAP
    width, height = (side + 2 * _RIM + _GAP for side in _CELL)
    columns, head = correct.shape[1], _GAP + 2 * line
    # A gap between the query and its neighbours.
    lefts = [_GAP, *(_GAP + width * (1 + k) + 3 * _GAP for k in range(columns))]
    total = max(lefts[-1] + width, round(_font().getlength(title)) + 2 * _GAP)
    sheet = Image.new(
        "RGB", (total, head + len(queries) * (height + line)), _BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill=_INK, font=_font())
    headings = (
        "query",
        *("nearest" if k == 0 else f"{k + 1}." for k in range(columns)),
    )
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, _GAP + line), heading, fill=_INK, font=_font())
    for row, query in enumerate(queries):
        top = head + row * (height + line)
        frames = (query, *neighbours[row])
        names = (query_names[row], *neighbour_names[row])
        marks = (None, *correct[row])
        for left, frame, name, mark in zip(lefts, frames, names, marks, strict=True):
            sheet.paste(_framed(frame, mark), (left, top))
            name = _cut(name, width - _GAP)
            draw.text((left, top + height - _GAP), name, fill=_INK, font=_font())
    return sheet


def _framed(frame: np.ndarray, correct: bool | np.bool_ | None) -> Image.Image:
    """A frame in a cell, with a coloured rim and a mark unless `correct` is None."""
    image = Image.fromarray(frame)
    width, height = _CELL
    scale = min(width / image.width, height / image.height)
    size = [max(round(side * scale), 1) for side in image.size]
    colour = "#999999" if correct is None else _RIGHT if correct else _WRONG
    cell = Image.new("RGB", (width + 2 * _RIM, height + 2 * _RIM), colour)
    cell.paste(_INK, (_RIM, _RIM, _RIM + width, _RIM + height))
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


def _cut(text: str, width: float) -> str:
    """The text, shortened to `width` pixels with two dots at its end if needed."""
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "..") > width:
        text = text[:-1]
    return text + ".."
