"""A video of the user's own, frame by frame: read, and written with boxes on it."""

import contextlib
import fractions
import pathlib
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, cast

import av
import av.codec
import numpy as np

from ctp_jax import pictures
from ctp_jax.errors import UserError
from ctp_jax.prepare import frames as folders
from ctp_jax.prepare import video as videos

_WHOLE = 1 << 16  # a short side that no video has: its frames as they are
_CODECS = ("libx264", "mpeg4")  # the first that PyAV was built with
_TICKS = 1000  # of a written video, in a second


class Frame(NamedTuple):
    """One frame: number from 0, time in seconds, uint8 RGB (h, w, 3)."""

    number: int
    time: float
    image: np.ndarray


def read_frames(
    video: pathlib.Path, start: int, fps: float
) -> Generator[Frame, None, None]:
    """The frames of a video file or of a folder, from `start` on, upright.

    Where a file cannot be read to its end, that is said, and the frames before are given.

    Args:
        video: path.
        start: number of the first one.
        fps: of a folder.

    Raises:
        UserError: there is nothing to read.
    """

    def timed() -> Iterator[tuple[float, np.ndarray]]:
        with videos.errors_of_one_file():
            if video.is_dir():
                for number, image in enumerate(folders.decode_folder(video)):
                    yield number / fps, image
                return
            frames = videos.decode_frames(video, _WHOLE)
            for number, (time, shown, _, image) in enumerate(frames):
                yield number / shown.rate if time is None else time, image

    count = 0
    try:
        for number, (time, image) in enumerate(timed()):
            count += 1
            if number >= start:
                yield Frame(number, time, image)
    except videos.VideoError as error:
        if count <= start:
            raise UserError(f"{video}: {error}") from error
        print(f"note: {video}: {error}; it is tracked up to frame {count - 1}")
    if count <= start:
        raise UserError(f"--start={start}: {video} has {count} frames, from 0")


def first_frame(video: pathlib.Path, start: int, fps: float) -> Frame:
    """See `read_frames`."""
    with contextlib.closing(read_frames(video, start, fps)) as frames:
        return next(frames)


class VideoWriter:
    """Writes frames with boxes to an MP4 file, which `close` completes."""

    def __init__(self, path: pathlib.Path):
        """Opens the file.

        Args:
            path: of it.
        """
        self._container = av.open(str(path), "w")
        self._stream: av.VideoStream | None = None
        self._start, self._last = 0.0, -1

    def close(self) -> None:
        """Completes the file."""
        with self._container:
            if self._stream is not None:
                self._container.mux(self._stream.encode())

    def write(self, frame: Frame, boxes: Sequence[np.ndarray]) -> None:
        """Adds a frame; all must have the size of the first.

        Args:
            frame: shown at its time.
            boxes: x1 y1 x2 y2 in its pixels, each in a colour of its own.
        """
        # The codecs need even sides.
        height, width = (side // 2 * 2 for side in frame.image.shape[:2])
        if self._stream is None:
            self._stream = self._open(width, height)
            self._start = frame.time
        shown = np.stack(boxes) if boxes else np.zeros((0, 4))
        lines = max(2, round(min(height, width) / 200))
        image = pictures.draw_frame(frame.image, shown, None, 1, lines)
        picture = av.VideoFrame.from_image(image.crop((0, 0, width, height)))
        # A player needs times that increase.
        tick = round((frame.time - self._start) * _TICKS)
        self._last = picture.pts = max(self._last + 1, tick)
        picture.time_base = fractions.Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(picture))

    def _open(self, width: int, height: int) -> av.VideoStream:
        codec = next(name for name in _CODECS if name in av.codecs_available)
        stream = cast(av.VideoStream, self._container.add_stream(codec, rate=30))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 4 * width * height
        stream.codec_context.time_base = fractions.Fraction(1, _TICKS)
        return stream
