"""Pictures of clips with boxes: contact sheets and animations (paper Fig. 1 and 7).

And of what speaks for a class in them (Fig. 5 and 8).

Symbols: v videos, n trajectories, t frames, s side of a clip in pixels.
"""

import io
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# The palette of Okabe and Ito, distinguishable for colour-blind readers.
COLOURS = ("#f0e442", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#0072b2")
BACKGROUND = "#ffffff"
INK = "#333333"
GAP = 6
FONT_SIZE = 15
# Of heat 0, 0.5 and 1: brighter means more to readers of any eyesight, too.
_HEAT = np.array([[87, 16, 110], [237, 105, 37], [252, 255, 164]])

Point = tuple[float, float]
Lines = list[list[Point]]


def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)


def _draw_box(
    image: Image.Image, box: np.ndarray, colour: str, rim: str, dashed: bool, width: int
) -> None:
    """Outlines x1, y1, x2, y2, solid or dashed, with a rim."""
    if not np.isfinite(box).all():
        return
    # A network that has gone astray predicts boxes of any size.
    x1, y1, x2, y2 = (float(value) for value in np.clip(box, -1e4, 1e4))
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    lines = [corners]
    if dashed:
        sides = itertools.pairwise(corners)
        lines = [dash for start, end in sides for dash in _dashes(start, end)]
    draw = ImageDraw.Draw(image)
    for line in lines:
        draw.line(line, fill=rim, width=2 * width)
    for line in lines:
        draw.line(line, fill=colour, width=width)


def _dashes(start: Point, end: Point, dash: float = 7.0, gap: float = 5.0) -> Lines:
    """The parts of a straight line that are drawn, beginning at its start."""
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1e-6)
    return [
        [
            (
                start[0] + (end[0] - start[0]) * at / length,
                start[1] + (end[1] - start[1]) * at / length,
            )
            for at in (begin, min(begin + dash, length))
        ]
        for begin in np.arange(0.0, length, dash + gap)
    ]


def _rim(image: Image.Image, box: np.ndarray) -> str:
    """Black or white, whichever has more contrast with what lies under the box.

    A colour alone is hard to see on pixels that are equally bright: dark videos.
    """
    size = np.array(image.size * 2)
    box = np.clip(np.nan_to_num(box), 0, size - 1)
    low, high = np.floor(box[:2]), np.ceil(box[2:])
    if (high < low).any():
        return "black"
    part = image.crop((*low.astype(int).tolist(), *(high.astype(int) + 1).tolist()))
    grey = np.asarray(part.convert("L"), np.float64) / 255
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    # Where both have equal contrast: WCAG 2, of sRGB's linear light.
    return "black" if (edge**2.2).mean() > 0.18 else "white"


def draw_frame(
    frame: np.ndarray,
    boxes: np.ndarray,
    predicted: np.ndarray | None,
    zoom: int,
    width: int = 2,
) -> Image.Image:
    """One frame with true boxes, solid, and predicted ones, dashed in the same colours.

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
    under = image.copy()  # rims depend on the frame alone
    for dashed, each in ((False, boxes), (True, predicted)):
        for number, box in enumerate(() if each is None else each * zoom):
            rim = _rim(under, box)
            colour = COLOURS[number % len(COLOURS)]
            _draw_box(image, box, colour, rim, dashed, 2 if dashed else width)
    return image


def _grid(
    images: Sequence[Sequence[Image.Image]], title: str, names: Sequence[str]
) -> Image.Image:
    """Rows of equally large images under a title, each row under its name."""
    side, high = images[0][0].size
    head = FONT_SIZE + 2 * GAP if title else GAP
    label = FONT_SIZE + GAP if names else 0
    width = max(len(row) for row in images) * (side + GAP) + GAP
    width = max(width, round(font().getlength(title)) + 2 * GAP)
    sheet = Image.new(
        "RGB", (width, head + len(images) * (high + label + GAP)), BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, fill=INK, font=font())
    for index, row in enumerate(images):
        top = head + index * (high + label + GAP)
        if names:
            draw.text((GAP, top), names[index], fill=INK, font=font())
        for column, image in enumerate(row):
            sheet.paste(image, (GAP + column * (side + GAP), top + label))
    return sheet


def png(image: Image.Image) -> bytes:
    """The contents of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def with_margins(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Clips (t, h, w, 3) of several sizes in one array; smaller ones get a grey margin."""
    height, width = np.max([clip.shape[1:3] for clip in clips], axis=0)
    whole = np.full((len(clips), len(clips[0]), height, width, 3), 128, np.uint8)
    for place, clip in zip(whole, clips, strict=True):
        place[:, : clip.shape[1], : clip.shape[2]] = clip
    return whole


def contact_sheet(
    clips: np.ndarray,
    boxes: Sequence[np.ndarray] | np.ndarray,
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
        boxes: v times (n, t, 4), x1 y1 x2 y2 in pixels of the clip.
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
    boxes: Sequence[np.ndarray] | np.ndarray,
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
    boxes: Sequence[np.ndarray] | np.ndarray,
    predicted: np.ndarray | None = None,
    original: np.ndarray | None = None,
    *,
    title: str = "",
    names: Sequence[str] = (),
    columns: int = 4,
    zoom: int = 2,
    frames_per_second: float = 8.0,
) -> None:
    """Writes all videos side by side as an animated GIF; see `contact_sheet`.

    Args:
        path: of the file.
        clips: as the next two, see `contact_sheet`.
        boxes: true ones.
        predicted: those of the network, or None.
        original: clips of the same shape to show on the left of the others, or None.
        title: a line above the videos.
        names: of the rows, of `columns` pictures each.
        columns: pictures side by side.
        zoom: picture pixels per frame pixel.
        frames_per_second: the last frame is shown for longer.
    """
    pictures = []
    for t in range(clips.shape[1]):
        images = _draw_videos(clips, boxes, predicted, t, zoom)
        if original is not None:
            none = np.zeros((len(clips), 0, clips.shape[1], 4))
            pairs = zip(
                _draw_videos(original, none, None, t, zoom), images, strict=True
            )
            images = [image for pair in pairs for image in pair]
        rows = [images[i : i + columns] for i in range(0, len(images), columns)]
        pictures.append(_grid(rows, title, names))
    # One palette for all frames: one per frame, with dithering, would flicker.
    palette = pictures[0].quantize(255)
    pictures = [
        picture.quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    each = round(1000 / frames_per_second)
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=[each] * (len(pictures) - 1) + [6 * each],
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


def overlay_heat(clips: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Grey clips with heat in colour, relative to the hottest place of each clip.

    Args:
        clips: uint8 (v, t, s, s, 3).
        heat: (v, t, s, s), at least 0.

    Returns:
        uint8 (v, t, s, s, 3).
    """
    most = heat.max((1, 2, 3), keepdims=True)
    heat = heat / np.where(most > 0, most, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(heat, stops, part) for part in _HEAT.T], axis=-1)
    grey = 0.7 * clips.mean(-1, keepdims=True)
    cover = 0.8 * heat[..., None]
    return (grey * (1 - cover) + colours * cover).round().astype(np.uint8)


def slopes_as_pixels(slopes: np.ndarray) -> np.ndarray:
    """Slopes by pixels as pictures around grey, each frame with mean 0 and deviation 0.1.

    Args:
        slopes: (v, t, s, s, 3).

    Returns:
        uint8 (v, t, s, s, 3).
    """
    axes = (-3, -2, -1)
    slopes = slopes.astype(np.float64)
    slopes = slopes - slopes.mean(axes, keepdims=True)
    spread = slopes.std(axes, keepdims=True)
    slopes = 0.1 * slopes / np.where(spread > 0, spread, 1)
    return (255 * np.clip(slopes + 0.5, 0, 1)).astype(np.uint8)
