"""Reads a folder of numbered image files as the JPEG frames of a video.

Imports no TensorFlow, see `ctp_jax.prepare.video`.
"""

import functools
import io
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageOps

from ctp_jax.errors import reason
from ctp_jax.prepare import boxes, video

SUFFIXES = frozenset([".bmp", ".jpeg", ".jpg", ".png"])
"""File name endings of frames, in lower case."""

_EIGHT_BITS = frozenset(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
"""Modes of Pillow with 8 bits or less per channel."""

_ORIENTATION = 0x0112
"""The EXIF tag; 1 is upright."""


@video.errors_of_one_file()
def encode_frames(
    folder: str | os.PathLike,
    fps: float,
    short_side: int = 144,
    quality: int = 90,
    *,
    first: int | None = 1,
    annotate: boxes.Annotate | None = None,
) -> video.EncodedVideo:
    """Reads a folder of frames.

    A baseline RGB JPEG file whose short side is at most `short_side` is stored as it
    is. All other images are scaled as videos are and encoded again: progressive and
    greyscale JPEG, images with an EXIF rotation, PNG, BMP.

    Args:
        folder: contains the files, see `list_frames`.
        fps: frames per second.
        short_side: pixels; larger frames are scaled down to it, smaller ones are kept.
        quality: of the JPEG files that are encoded again, 1 to 95.
        first: number of the first frame; None accepts any.
        annotate: of the frames in these files; boxes are scaled with them.

    Raises:
        VideoError: no frames, missing frames, frames of different sizes, damaged files,
            or what `annotate` raises.
    """
    names = list_frames(folder, first)
    frames: list[bytes] = []
    size = (0, 0)
    for name in names:
        path = pathlib.Path(folder, name)
        try:
            video.check_file(path)
            frame, frame_size = encode_frame(path.read_bytes(), short_side, quality)
        except OSError as error:
            raise video.VideoError(f"{name}: {error.strerror or error}") from error
        except video.VideoError as error:
            raise video.VideoError(f"{name}: {error}") from error
        if not frames:
            size = frame_size
        if frame_size != size:
            raise video.VideoError(
                f"{name}: has {frame_size[0]}x{frame_size[1]} pixels, the frames before "
                f"have {size[0]}x{size[1]}"
            )
        frames.append(frame)
    scaled = video.scaled_size(*size, short_side)
    found = boxes.annotations(annotate, len(frames), size, scaled)
    return video.EncodedVideo(frames, fps, found)


def lazy_frames(
    folder: str | os.PathLike,
) -> Iterator[Callable[[], np.ndarray]]:
    """For every frame of a folder, in the order of their numbers, a function that reads it.

    It returns upright uint8 RGB (h, w, 3), and raises `VideoError` as `encode_frames`.

    Raises:
        VideoError: see `list_frames`; the first number may be any.
    """
    sizes: list[tuple[int, ...]] = []

    def read(name: str) -> np.ndarray:
        path = pathlib.Path(folder, name)
        try:
            video.check_file(path)
            image = np.asarray(_decode(path.read_bytes())[0].convert("RGB"))
        except OSError as error:
            raise video.VideoError(f"{name}: {error.strerror or error}") from error
        except video.VideoError as error:
            raise video.VideoError(f"{name}: {error}") from error
        sizes.append(image.shape)
        if image.shape != sizes[0]:
            raise video.VideoError(f"{name}: has another size than the frames before")
        return image

    for name in list_frames(folder, None):
        yield functools.partial(read, name)


def list_frames(folder: str | os.PathLike, first: int | None = 1) -> list[str]:
    """File names of the frames of a folder, in the order of their numbers.

    The number of a frame is the last number in its file name: `00012.jpg`,
    `img_12.png`. Hidden files and files with other endings are ignored.

    Args:
        folder: contains the files; its subfolders are ignored.
        first: number of the first frame; None accepts any.

    Raises:
        VideoError: no folder, no frames, a missing or a repeated number.
    """
    try:
        files = sorted(os.listdir(folder))
    except OSError as error:
        raise video.VideoError(str(error.strerror or error)) from error
    numbered: dict[int, str] = {}
    for name in files:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in SUFFIXES or name.startswith("."):
            continue
        numbers = re.findall(r"\d+", stem)
        if not numbers:
            raise video.VideoError(f"{name}: no number in the file name")
        before = numbered.setdefault(int(numbers[-1]), name)
        if before != name:
            raise video.VideoError(f"{before} and {name} have the same number")
    if not numbered:
        raise video.VideoError("no frame in the folder")
    start = min(numbered) if first is None else first
    for expected, number in enumerate(sorted(numbered), start):
        if number != expected:
            raise video.VideoError(
                f"frame {expected} is missing, {numbered[number]} comes instead"
            )
    return [numbered[number] for number in sorted(numbered)]


def encode_frame(
    data: bytes, short_side: int, quality: int
) -> tuple[bytes, tuple[int, int]]:
    """A frame as it is stored, and its size before scaling.

    Args:
        data: an image file.
        short_side: pixels.
        quality: 1 to 95.

    Returns:
        (JPEG file, (width, height) of the upright image before scaling).

    Raises:
        VideoError: no image, a damaged image, or more than 8 bits per channel.
    """
    image, upright = _decode(data)
    plain = (
        upright
        and image.format == "JPEG"
        and image.mode == "RGB"
        and not image.info.get("progressive")
        # Decoders differ in how they read truncated files.
        and data.endswith(b"\xff\xd9")
    )
    if not plain or video.scaled_size(*image.size, short_side) != image.size:
        pixels = video.scale_image(np.asarray(image.convert("RGB")), short_side)
        data = video.encode_jpeg(pixels, quality)
    return data, image.size


def _decode(data: bytes) -> tuple[Image.Image, bool]:
    """The upright image of a file, and whether it is stored upright."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF data, for example
            with Image.open(io.BytesIO(data), formats=("BMP", "JPEG", "PNG")) as image:
                image.load()
                upright = image.getexif().get(_ORIENTATION, 1) == 1
                if not upright:
                    image = ImageOps.exif_transpose(image)
    except Image.UnidentifiedImageError as error:
        raise video.VideoError("neither JPEG nor PNG nor BMP") from error
    # Pillow raises errors of many types for damaged files.
    except Exception as error:
        raise video.VideoError(f"cannot be decoded ({reason(error)})") from error
    if image.mode not in _EIGHT_BITS:
        raise video.VideoError(f"needs 8 bits per channel, has mode {image.mode}")
    return image, upright
