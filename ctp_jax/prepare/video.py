"""Decodes a video file and encodes its frames as JPEG files.

`ctp_jax.prepare.presentation` decides before what of the file is shown, and how. Both
import no TensorFlow: the processes that decode in parallel import them.
"""

import contextlib
import dataclasses
import functools
import io
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence

import av
import av.container
import av.error
import av.stream
import av.video.reformatter
import numpy as np
from etils import epath
from PIL import Image

from ctp_jax.prepare import boxes, presentation
from ctp_jax.prepare.presentation import VideoError
from ctp_jax.storage import remote

_NAMES = (
    "3g2 3gp amv asf avi divx dv f4v flv gif h264 h265 hevc ivf m1v m2p m2t m2ts m2v"
)
_NAMES += (
    " m4v mjpeg mjpg mk3d mkv mod mov mp4 mp4v mpe mpeg mpg mts mxf nut ogm ogv qt rm"
)
_NAMES += " rmvb tod trp ts vob vro webm wmv wtv xvid y4m"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""File name endings of videos, in lower case."""


@dataclasses.dataclass(frozen=True)
class EncodedVideo:
    """A video as it is stored.

    Attributes:
        frames: one JPEG file (4:2:0) per frame, at a constant rate.
        fps: that rate, in frames per second.
        annotations: {name: float32 (n, ...)}, one value per frame; `boxes` (n, ..., 4)
            are x1 y1 x2 y2 in pixels of the stored frames.
        flow: flow frames, see `ctp_jax.flow`, as many as frames; or none.
    """

    frames: list[bytes]
    fps: float
    annotations: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    flow: Sequence[bytes] = ()


def encode_video(
    path: str | os.PathLike,
    short_side: int = 144,
    quality: int = 90,
    *,
    annotate: boxes.Annotate | None = None,
) -> EncodedVideo:
    """Reads a video file and encodes its frames at a constant rate.

    A video of constant frame rate is stored frame by frame. A video of variable frame
    rate is resampled to its nominal rate (see `constant_rate`).

    Args:
        path: a file that FFmpeg can read. A file in an object store is downloaded as a
            whole; errors of the store are raised as they are.
        short_side: pixels; larger videos are scaled down to it, smaller ones are kept.
        quality: of the JPEG files, 1 to 95.
        annotate: of the decoded frames, before they are resampled and scaled.

    Raises:
        VideoError: no video, no frames, a damaged or truncated file, or whatever else
            reading this file or `annotate` raises.
    """
    source: str | io.BytesIO = os.fspath(path)
    if remote.is_remote(path):
        # Not below: an error of the network does not make a bad video.
        source = io.BytesIO(epath.Path(path).read_bytes())
    with errors_of_one_file():
        times, frames = [], []
        rate, pause, size, scaled = 25.0, math.inf, (1, 1), (1, 1)
        for time, shown, size, image in decode_frames(source, short_side):
            times.append(time)
            frames.append(encode_jpeg(image, quality))
            rate, pause = shown.rate, shown.longest_pause
            scaled = image.shape[1], image.shape[0]
        chosen, fps = constant_rate(times, rate, pause)
        found = boxes.annotations(annotate, len(frames), size, scaled)
        found = {name: values[chosen] for name, values in found.items()}
        return EncodedVideo([frames[i] for i in chosen], fps, found)


@contextlib.contextmanager
def errors_of_one_file() -> Iterator[None]:
    """Turns every error into a `VideoError`: it concerns this file, not the others."""
    try:
        yield
    except VideoError:
        raise
    except Exception as error:
        raise VideoError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text[:1].lower() + text[1:] or type(error).__name__


def check_file(path: str | os.PathLike) -> None:
    """Raises `VideoError` for what is no file (reading a FIFO may never end) or empty.

    Raises:
        OSError: there is no such file, or it must not be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise VideoError("not a file, but a folder, pipe, socket or device")
    if not status.st_size:
        raise VideoError("the file is empty")


def decode_frames(
    source: str | os.PathLike | io.BytesIO, short_side: int
) -> Iterator[
    tuple[float | None, presentation.Presentation, tuple[int, int], np.ndarray]
]:
    """Decodes the video stream of a file that players show.

    `presentation` decides what is shown. Images are upright, their pixels are square,
    interlaced ones are deinterlaced, and all are scaled by area averaging so that their
    short side is at most `short_side`.

    Args:
        source: a path, or the contents of a file.
        short_side: pixels.

    Yields:
        (time in seconds or None, what is shown, width and height before scaling, uint8
        RGB (h, w, 3)) of every frame, in the order of display. All have the size of the
        first.

    Raises:
        VideoError: no video stream, no frames, or more than a tenth of them missing.
        OSError: the file cannot be read.
        FFmpegError: the file cannot be opened.
    """
    for time, shown, whole, image in decode(source, short_side):
        yield time, shown, whole, image()


def decode(
    source: str | os.PathLike | io.BytesIO, short_side: int
) -> Iterator[
    tuple[
        float | None,
        presentation.Presentation,
        tuple[int, int],
        Callable[[], np.ndarray],
    ]
]:
    """As `decode_frames`, for those who need few of the images: a function makes each."""
    with _opened(source) as (container, shown):
        reformatter = av.video.reformatter.VideoReformatter()
        size = orientation = None
        whole = (0, 0)
        for frame in presentation.deinterlace(_decode(container, shown)):
            if not size or not orientation:
                whole = shown.size(frame.width, frame.height)
                size = scaled_size(*whole, short_side)
                orientation = presentation.orientation(frame)
                if presentation.lies(orientation):
                    whole = whole[1], whole[0]
            image = functools.partial(_image, reformatter, frame, size, orientation)
            yield frame.time, shown, whole, image


def _image(
    reformatter: av.video.reformatter.VideoReformatter,
    frame: av.VideoFrame,
    size: tuple[int, int],
    orientation: tuple[int, int, int, int],
) -> np.ndarray:
    small = reformatter.reformat(frame, *size, "rgb24", interpolation="AREA", threads=1)
    return presentation.turn(small.to_ndarray(), orientation)


@contextlib.contextmanager
def _opened(
    source: str | os.PathLike | io.BytesIO,
) -> Iterator[tuple[av.container.InputContainer, presentation.Presentation]]:
    if not isinstance(source, io.BytesIO):
        check_file(source)
        source = os.fspath(source)
    elif not source.getbuffer().nbytes:
        raise VideoError("the file is empty")
    with av.open(source, "r") as container:
        yield container, presentation.decide(container, source)


def announced_times(
    source: str | os.PathLike,
) -> tuple[list[float | None], presentation.Presentation]:
    """The times of the frames of a file as its packets have them; nothing is decoded.

    Of most files they are those that `decode_frames` gives, but not of all: interlaced
    and damaged ones may have other frames.

    Raises:
        VideoError, OSError, FFmpegError: as `decode_frames`.
    """
    with _opened(source) as (container, shown):
        stream = shown.streams[0]
        times = [
            None if packet.pts is None else float(packet.pts * packet.time_base)
            for packet in _packets(container, shown.streams[:1])
            if packet.stream is stream and packet.size and not packet.is_discard
        ]
    shown.check_moves(len(times))
    return sorted(times, key=lambda time: -1.0 if time is None else time), shown


def _decode(
    container: av.container.InputContainer, shown: presentation.Presentation
) -> Iterator[av.VideoFrame]:
    """The frames to be shown; afterwards, checks that they are complete."""
    stream = shown.streams[0]
    # Videos are decoded in parallel: threads inside one only add overhead.
    stream.codec_context.thread_count = 1
    tick = float(stream.time_base or 0)
    frames = errors = 0
    start = end = 0.0
    reason = ""
    for packet in _packets(container, shown.streams):
        if packet.stream is not stream:
            ticks = (packet.pts or 0) + (packet.duration or 0)
            end = max(end, float(ticks * packet.time_base))
            continue
        try:
            decoded = packet.decode()
        except av.error.FFmpegError as error:
            # As players do: the next packets may be whole.
            reason = f" ({_reason(error)})"
            if frames or not shown.discontinuous:
                errors += 1
            continue
        for frame in decoded:
            frames += 1
            time = frame.time or 0.0
            duration = max(frame.duration * tick, 1 / shown.rate)
            start, end = min(start, time), max(end, time + duration)
            yield frame
    if not frames:
        raise VideoError(f"no frame can be decoded{reason}")
    shown.check_complete(frames, errors, end - start)


def _packets(
    container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
) -> Iterator[av.Packet]:
    """Packets up to the end, or to where the file cannot be read any further."""
    try:
        yield from container.demux(*streams)
    except av.error.FFmpegError:
        # The decoder holds frames back; an empty packet makes it return them.
        last = av.Packet()
        last.stream = streams[0]
        last.time_base = streams[0].time_base or last.time_base
        yield last


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
    times: list[float | None], stream_rate: float, longest_pause: float = math.inf
) -> tuple[np.ndarray, float]:
    """Resamples timestamps to a constant rate.

    The nominal interval is the mean of all intervals that differ by less than half from
    the median interval. If no interval differs by more, the frames are taken as they
    are: rounded timestamps are not a variable rate. Nor are a few lost frames: frames
    are also taken as they are if that shows each within two intervals of its time.
    Times that step back (AVI gives them in the order of decoding, joined files begin
    anew) say nothing. Otherwise output frame i is the last frame whose time is at most
    i nominal intervals after the first, with a quarter interval of tolerance: a pause
    repeats a frame, a burst drops some. If this would more than double the number of
    frames, the average rate is used instead.

    Args:
        times: presentation time of every frame in seconds; None if unknown.
        stream_rate: frames per second, used if the times say nothing.
        longest_pause: seconds; after a longer interval, times have begun anew.

    Returns:
        (int64 indices into `times`, frames per second).
    """
    as_they_are = np.arange(len(times))
    known = [time for time in times if time is not None]
    if len(known) < len(times) or len(times) < 2:
        return as_they_are, stream_rate
    shown_at = np.asarray(known) - known[0]
    intervals = np.diff(shown_at)
    if intervals.min() < 0 or not 0 < intervals.max() <= longest_pause:
        return as_they_are, stream_rate
    median = np.median(intervals[intervals > 0])
    steady = np.abs(intervals - median) < 0.5 * median
    # Of an even number, the median may lie far from all of them.
    interval = intervals[steady].mean() if steady.any() else intervals.mean()
    late = np.abs(shown_at - as_they_are * interval)
    if steady.all() or (late < 2.25 * interval).all():
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
