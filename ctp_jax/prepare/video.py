"""From a video file to the JPEG frames that are stored.

No TensorFlow here: the processes that decode in parallel import this module only.
"""

import dataclasses
import io
import os
from collections.abc import Iterator, Mapping

import av
import numpy as np
from etils import epath
from PIL import Image

from ctp_jax.data import storage

SUFFIXES = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)
"""File name endings, in lower case, that are taken for videos."""


class VideoError(Exception):
    """A video that cannot be used; the message is one line with the reason."""


@dataclasses.dataclass(frozen=True)
class EncodedVideo:
    """A video as it is stored.

    Attributes:
        frames: one JPEG file (4:2:0) per frame, at a constant rate.
        fps: that rate, frames per second.
        annotations: {name: float32 (n, ...)} of what is known of the n frames; `boxes`
            (n, ..., 4) are x1 y1 x2 y2 in the pixels of the stored frames.
    """

    frames: list[bytes]
    fps: float
    annotations: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def encode_video(
    path: str | os.PathLike, short_side: int = 144, quality: int = 90
) -> EncodedVideo:
    """Reads a video file and encodes its frames at a constant rate.

    A video whose frames follow each other evenly is stored frame by frame. One of
    variable frame rate is stored at its nominal rate: frame i is the one on show at
    time i / fps (see `constant_rate`).

    Args:
        path: a file of any container and codec that FFmpeg reads; one in an object
            store is fetched as a whole, and fails with what its file system raises.
        short_side: pixels; larger videos are scaled down to it, smaller ones are kept.
        quality: of the JPEG files, 1 to 95.

    Raises:
        VideoError: no video, no frames, damaged or cut short.
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

    The image is turned upright as the rotation flag of the file says, and scaled by
    area averaging to short side min(own, short_side) with its aspect ratio (in
    pixels: the aspect ratio of a pixel itself is taken as 1).

    Yields:
        (time in seconds or None, the stream's rate in frames per second, uint8 RGB
        (h, w, 3)) for every frame in the order of display.

    Raises:
        VideoError: see `encode_video`.
    """
    count, announced = 0, 0
    source: str | io.BytesIO = os.fspath(path)
    if storage.is_remote(path):
        # Not one of the errors below: a network that fails does not make a bad video.
        source = io.BytesIO(epath.Path(path).read_bytes())
    try:
        size = (
            len(source.getvalue()) if storage.is_remote(path) else os.path.getsize(path)
        )
        if size == 0:
            raise VideoError("the file is empty")
        with av.open(source) as container:
            if not container.streams.video:
                raise VideoError("the file has no video stream")
            stream = container.streams.video[0]
            # Parallel over videos: threads inside one only add overhead.
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
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        where = f" after {count} frames" if count else ""
        raise VideoError(f"{reason[:1].lower()}{reason[1:]}{where}") from error
    if not count:
        raise VideoError("no frame can be decoded")
    # Containers count a few frames more than there are; a tenth missing is damage.
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
    """Which frames to show for a constant rate.

    The nominal interval is the median interval, made exact by averaging all that are
    within half of it. If that is all of them, the frames are taken as they are: the
    jitter of rounded timestamps is not variable rate. Otherwise frame i is the last
    one whose time is at most i intervals after the first (with a quarter interval of
    tolerance), so a pause repeats a frame and a burst loses some. A video for which
    this would more than double the frames is shown at its average rate instead.

    Args:
        times: when each frame is shown, in seconds; None where the file does not say.
        stream_rate: frames per second, used where times say nothing.

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
