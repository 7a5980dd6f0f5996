"""Writes a video with boxes drawn into its frames."""

import fractions
import pathlib
from collections.abc import Sequence
from typing import cast

import av
import av.codec
import numpy as np

from ctp_jax import pictures
from ctp_jax.own_videos.reader import Frame

_CODECS = ("libx264", "mpeg4")  # the first that PyAV was built with
SIDES = 16, 8192
"""Pixels of the sides of a frame: with fewer or more, the codecs fail."""
_TICKS = 1000  # of a written video, in a second


class VideoWriter:
    """Writes frames with boxes to an MP4 file, which `close` completes."""

    def __init__(self, path: pathlib.Path):
        """Opens the file."""
        self._container = av.open(str(path), "w")
        self._stream: av.VideoStream | None = None
        self._start, self._last = 0.0, -1

    def close(self) -> None:
        """Completes the file."""
        with self._container:
            if self._stream is not None:
                self._container.mux(self._stream.encode())

    def write(self, frame: Frame, boxes: Sequence[np.ndarray]) -> None:
        """Adds a frame; all must have the size of the first, and sides within `SIDES`.

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
