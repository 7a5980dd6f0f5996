"""Small videos for the tests, written with PyAV."""

import dataclasses
import os
import signal
from fractions import Fraction

import av
import numpy as np

from ctp_jax.prepare import video


def picture(height: int, width: int, shift: int = 0) -> np.ndarray:
    """Smooth colours that differ in every corner, uint8 (height, width, 3)."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    channels = (rows * 220 + 20, columns * 220 + 20, np.full_like(rows, 40 + shift))
    return np.stack(channels, axis=-1).astype(np.uint8)


def write_video(
    path,
    frames,
    *,
    times=None,
    rate: int = 25,
    rotation: int = 0,
    flips: tuple[bool, bool] = (False, False),
    aspect: Fraction = Fraction(1),
    codec: str = "libx264",
    pix_fmt: str = "yuv444p",
):
    """Writes uint8 frames (h, w, 3); `times` in units of 1/1000 second.

    The display matrix turns them by `rotation` degrees, then flips them.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if codec == "libx264":
            stream.options = {"crf": "4", "bf": "0"}
        stream.codec_context.sample_aspect_ratio = aspect
        if rotation or any(flips):
            stream.set_display_rotation(rotation, *flips)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_numbered(path, count: int, *, height: int = 48, width: int = 64, **kwargs):
    """A video whose frame i is grey of level 20 + 8 i (see `numbers`)."""
    frames = [np.full((height, width, 3), 20 + 8 * i, np.uint8) for i in range(count)]
    return write_video(path, frames, **kwargs)


def numbers(images) -> list[int]:
    """Which frames of `write_numbered` these are."""
    return [round((float(image.mean()) - 20) / 8) for image in images]


def crash():
    """What a decoder does that meets a broken file of the worst kind."""
    os.kill(os.getpid(), signal.SIGKILL)


class TooLarge:
    """What cannot be sent to another process for lack of memory."""

    def __reduce__(self):
        raise MemoryError


def encode_numbered(count: int) -> video.EncodedVideo:
    """As `write_numbered`, without the file."""
    frames = [np.full((8, 8, 3), 20 + 8 * i, np.uint8) for i in range(count)]
    return video.EncodedVideo([video.encode_jpeg(frame) for frame in frames], 25.0)


def encode_boxed(count: int) -> video.EncodedVideo:
    """As `encode_numbered`, with a box in every frame."""
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    return dataclasses.replace(encode_numbered(count), annotations={"boxes": boxes})


def refuse() -> video.EncodedVideo:
    """What `encode_video` does with a file that is no video."""
    raise video.VideoError("no good")
