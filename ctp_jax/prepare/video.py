"""Decodes a video file and encodes its frames as JPEG files.

Imports no TensorFlow: the processes that decode in parallel import this module.
"""

import dataclasses
import io
import os
from collections.abc import Iterator, Mapping

import av
import av.error
import numpy as np
from etils import epath
from PIL import Image

from ctp_jax.data import storage

_NAMES = (
    "3g2 3gp amv asf avi divx dv f4v flv gif h264 h265 hevc ivf m1v m2p m2t m2ts m2v"
)
_NAMES += (
    " m4v mjpeg mjpg mk3d mkv mod mov mp4 mp4v mpe mpeg mpg mts mxf nut ogm ogv qt rm"
)
_NAMES += " rmvb tod trp ts vob vro webm wmv wtv xvid y4m"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""File name endings of videos, in lower case."""


class VideoError(Exception):
    """A video that cannot be used; the message is the reason, in one line."""


@dataclasses.dataclass(frozen=True)
class EncodedVideo:
    """A video as it is stored.

    Attributes:
        frames: one JPEG file (4:2:0) per frame, at a constant rate.
        fps: that rate, in frames per second.
        annotations: {name: float32 (n, ...)}, one value per frame; `boxes` (n, ..., 4)
            are x1 y1 x2 y2 in pixels of the stored frames.
    """

    frames: list[bytes]
    fps: float
    annotations: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def encode_video(
    path: str | os.PathLike, short_side: int = 144, quality: int = 90
) -> EncodedVideo:
    """Reads a video file and encodes its frames at a constant rate.

    A video of constant frame rate is stored frame by frame. A video of variable frame
    rate is resampled to its nominal rate (see `constant_rate`).

    Args:
        path: a file that FFmpeg can read. A file in an object store is downloaded as a
            whole; errors of the store are raised as they are.
        short_side: pixels; larger videos are scaled down to it, smaller ones are kept.
        quality: of the JPEG files, 1 to 95.

    Raises:
        VideoError: no video, no frames, a damaged or truncated file.
    """
    times, frames = [], []
    rate = 25.0
    for time, rate, image in decode_frames(path, short_side):
        times.append(time)
        frames.append(encode_jpeg(image, quality))
    shown, fps = constant_rate(times, rate)
    return EncodedVideo([frames[i] for i in shown], fps)


def decode_frames(
    path: str | os.PathLike, short_side: int
) -> Iterator[tuple[float | None, float, np.ndarray]]:
    """Decodes the first video stream of a file.

    Images are rotated as the rotation flag of the file says, and scaled by area
    averaging so that their short side is at most `short_side`. Pixels are taken as
    square.

    Yields:
        (time in seconds or None, nominal frames per second, uint8 RGB (h, w, 3)) of
        every frame, in the order of display.

    Raises:
        VideoError: see `encode_video`.
    """
    source: str | io.BytesIO = os.fspath(path)
    if storage.is_remote(path):
        # Outside of `try`: an error of the network does not make a bad video.
        source = io.BytesIO(epath.Path(path).read_bytes())
    count, announced = 0, 0
    try:
        empty = not (
            os.path.getsize(source) if isinstance(source, str) else source.getvalue()
        )
        if empty:
            raise VideoError("the file is empty")
        with av.open(source, "r") as container:
            if not container.streams.video:
                raise VideoError("the file has no video stream")
            stream = container.streams.video[0]
            # Videos are decoded in parallel: threads inside one only add overhead.
            stream.codec_context.thread_count = 1
            announced = stream.frames
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            width = height = 0
            for frame in container.decode(stream):
                if not count:
                    width, height = scaled_size(frame.width, frame.height, short_side)
                small = frame.reformat(
                    width, height, "rgb24", interpolation="AREA", threads=1
                )
                image = small.to_ndarray()
                count += 1
                yield frame.time, rate, np.rot90(image, round(frame.rotation / 90) % 4)
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        where = f" after {count} frames" if count else ""
        raise VideoError(f"{reason[:1].lower()}{reason[1:]}{where}") from error
    if not count:
        raise VideoError("no frame can be decoded")
    # Containers may announce a few frames too many; a tenth missing is damage.
    if count < 0.9 * announced:
        raise VideoError(f"cut short: {count} of {announced} frames can be decoded")


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with short side at most `short_side`, never enlarged."""
    scale = min(1.0, short_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def scale_image(image: np.ndarray, short_side: int) -> np.ndarray:
    """A uint8 RGB (h, w, 3) image, scaled as `decode_frames` scales a frame."""
    height, width = image.shape[:2]
    size = scaled_size(width, height, short_side)
    if size == (width, height):
        return image
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    return frame.reformat(*size, "rgb24", interpolation="AREA", threads=1).to_ndarray()


def constant_rate(
    times: list[float | None], stream_rate: float
) -> tuple[np.ndarray, float]:
    """Resamples timestamps to a constant rate.

    The nominal interval is the mean of all intervals that differ by less than half from
    the median interval. If no interval differs by more, the frames are taken as they
    are: rounded timestamps are not a variable rate. Otherwise output frame i is the
    last frame whose time is at most i nominal intervals after the first, with a quarter
    interval of tolerance: a pause repeats a frame, a burst drops some. If this would
    more than double the number of frames, the average rate is used instead.

    Args:
        times: presentation time of every frame in seconds; None if unknown.
        stream_rate: frames per second, used if the times are unknown.

    Returns:
        (int64 indices into `times`, frames per second).
    """
    as_they_are = np.arange(len(times))
    known = [time for time in times if time is not None]
    if len(known) < len(times) or len(times) < 2:
        return as_they_are, stream_rate
    shown_at = np.maximum.accumulate(np.asarray(known) - known[0])
    intervals = np.diff(shown_at)
    if not (intervals > 0).any():
        return as_they_are, stream_rate
    median = np.median(intervals[intervals > 0])
    steady = np.abs(intervals - median) < 0.5 * median
    interval = intervals[steady].mean()
    if steady.all():
        return as_they_are, float(1 / interval)
    count = round(shown_at[-1] / interval) + 1
    if count > 2 * len(times):
        interval = shown_at[-1] / (len(times) - 1)
        count = len(times)
    ticks = (np.arange(count) + 0.25) * interval
    return np.searchsorted(shown_at, ticks, side="right") - 1, float(1 / interval)


def encode_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """A uint8 RGB (h, w, 3) image as a JPEG file with 4:2:0 chroma."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0"
    )
    return buffer.getvalue()
