"""Pictures of a workdir, as data that stands in the page."""

import base64
import dataclasses
import io
import pathlib

from PIL import Image

MAX_BYTES = 1_500_000
MAX_GIF_BYTES = 3_000_000
_MAX_OTHERS = 12
_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif"}
_TYPES["WEBP"] = "image/webp"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture in the page.

    Attributes:
        name: of its file.
        source: 'data:image/...'.
        width, height: pixels.
        note: what was done to it to make it fit; ''.
    """

    name: str
    source: str
    width: int
    height: int
    note: str = ""


def names(workdir: pathlib.Path) -> list[str]:
    """Pictures that lie in a workdir."""
    found = (p.name for p in workdir.iterdir() if p.suffix.lower() in _SUFFIXES)
    return sorted(n for n in found if not n.startswith("."))[: _MAX_OTHERS + 4]


def load(path: pathlib.Path) -> Picture:
    """A picture of at most `MAX_BYTES` (an animation: `MAX_GIF_BYTES`).

    A larger one is made smaller; of a larger animation its first frame is left.

    Raises:
        ValueError: the file is no picture, or is cut.
    """
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()  # fails on a file that was cut
            kind, size = image.format, image.size
            moving = getattr(image, "n_frames", 1) > 1
            limit = MAX_GIF_BYTES if kind == "GIF" else MAX_BYTES
            # A GIF that was cut after its first frame still loads.
            if kind == "GIF" and not data.rstrip(b"\0").endswith(b";"):
                raise ValueError("cut")
            if len(data) <= limit and kind in _TYPES:
                return Picture(path.name, _as_source(data, _TYPES[kind]), *size)
            image.seek(0)
            small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError("damaged or not yet wholly written; left out") from error
    except Image.DecompressionBombError as error:
        raise ValueError("too large to be opened; left out") from error
    data, small = _shrink(small)
    note = "first frame of a large animation" if moving else "reduced"
    return Picture(path.name, _as_source(data, "image/jpeg"), *small.size, note)


def _shrink(image: Image.Image) -> tuple[bytes, Image.Image]:
    """A JPEG below `MAX_BYTES`, of at most 1600 pixels a side."""
    side = 1600
    while True:
        smaller = image.copy()
        smaller.thumbnail((side, side))
        file = io.BytesIO()
        smaller.save(file, "JPEG", quality=85)
        if file.tell() <= MAX_BYTES or side < 200:
            return file.getvalue(), smaller
        side = side * 3 // 4


def _as_source(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
