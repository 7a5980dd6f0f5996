"""Decides, before a video file is decoded, what of it is to be shown and how.

A container says more than one thing about a video: several streams, pixels that are not
square, frames that are hidden. Players agree on what it means; so do these functions.
"""

import contextlib
import dataclasses
import io
import math
import pathlib
import re
import types
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import av.container
import av.error
import av.filter
import av.format
import av.logging
import av.stream
import av.video.stream
import numpy as np

_PICTURES = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
_PICTURE_FORMATS = re.compile("image2|.*_pipe")  # FFmpeg's names


class VideoError(Exception):
    """A video that cannot be used; the message is the reason, in one line."""


@dataclasses.dataclass(frozen=True)
class Presentation:
    """What of a file is to be shown, and how.

    Attributes:
        streams: to be read. The first is the video; if only the length of the whole
            file is announced, the others tell, too, how far it goes.
        pixel_aspect: width of a pixel over its height; 1 if that is unknown or absurd.
        rate: nominal frames per second.
        frames: how many are to be shown, as announced; 0 if they are not counted.
        seconds: time of the end, as announced; 0 if it is unknown.
        discontinuous: whether files of the format may be cut and joined anywhere, as
            MPEG-TS: what cannot be decoded before the first frame is not missing.
        pictures: whether the format is one of pictures, of which a file may hold several.
    """

    streams: tuple[av.stream.Stream, ...]
    pixel_aspect: Fraction
    rate: float
    frames: int
    seconds: float
    discontinuous: bool
    pictures: bool

    @property
    def longest_pause(self) -> float:
        """Seconds; a longer one means that times begin anew. The limit is FFmpeg's."""
        return 10.0 if self.discontinuous else math.inf

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a frame in square pixels; the height is kept."""
        return max(1, round(width * self.pixel_aspect)), height

    def check_moves(self, frames: int) -> None:
        """Raises `VideoError` for a single picture, given the number of frames."""
        if self.pictures and frames == 1:
            raise VideoError("a picture, not a video")

    def check_complete(self, frames: int, errors: int, end: float) -> None:
        """Raises `VideoError` if more than a tenth of what is announced is missing.

        And for a single picture.

        Containers may announce a few frames too many; a tenth missing is damage.

        Args:
            frames: how many could be decoded.
            errors: how often the decoder failed: the frames that are known to be lost.
            end: latest time in what was read of all streams, in seconds.
        """
        self.check_moves(frames)
        announced = max(self.frames, frames + errors)
        if frames < 0.9 * announced:
            what = f"{frames} of {announced} frames"
        elif not self.frames and end < 0.9 * self.seconds:
            what = f"{end:.1f} of {self.seconds:.1f} s"
        else:
            return
        raise VideoError(f"cut short: {what} can be decoded")


def decide(
    container: av.container.InputContainer, source: str | io.BytesIO
) -> Presentation:
    """What is to be shown of an open file.

    Args:
        container: the open file.
        source: its path or contents.

    Raises:
        VideoError: no video stream, or no decoder for it.
    """
    stream = _choose_stream(container)
    rates = (stream.average_rate, stream.guessed_rate)
    # A single frame may last a tick of the clock: that is no rate.
    rate = float(next((rate for rate in rates if rate and rate < 1000), 25))
    frames = _announced_frames(container, stream, rate)
    tagged = _tagged_seconds(stream)
    own = _seconds(stream, stream.duration)
    # Of the longest stream, which may be the sound.
    whole = (container.duration or 0) / av.time_base
    if not whole and container.format.name == "asf":
        whole = _asf_seconds(source)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    others = [other for other in container.streams if other is not stream]
    return Presentation(
        streams=(stream,) if frames or tagged else (stream, *others),
        pixel_aspect=aspect if 0.1 <= aspect <= 10 else Fraction(1),
        rate=rate,
        frames=frames,
        seconds=min(filter(None, (tagged, own, whole)), default=0.0),
        discontinuous=bool(container.format.flags & av.format.Flags.ts_discont.value),
        pictures=bool(_PICTURE_FORMATS.fullmatch(container.format.name)),
    )


def _choose_stream(
    container: av.container.InputContainer,
) -> av.video.stream.VideoStream:
    """The default video stream, else the largest; not a cover, thumbnail or picture."""
    videos = container.streams.video
    streams = [stream for stream in videos if not stream.disposition & _PICTURES]
    if not streams:
        only = ", only a picture" if videos else ""
        raise VideoError(f"the file has no video stream{only}")

    def rank(stream: av.video.stream.VideoStream) -> tuple[bool, int, int]:
        context = stream.codec_context
        area = context.width * context.height if context else 0
        default = stream.disposition & av.stream.Disposition.default
        picture = stream.frames == 1 or 0 < _tagged_seconds(stream) <= 0.1
        return not picture, default, area

    stream = max(streams, key=rank)  # the first of equals
    if not stream.codec_context:
        raise VideoError(f"no decoder for its codec, {_codec(container, stream)}")
    return stream


def _codec(container: av.container.InputContainer, stream: av.stream.Stream) -> str:
    """The name of a codec without a decoder, which PyAV tells in a log only."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        # Not in PyAV's stubs.
        text = container.dumps_format()  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        av.logging.set_level(level)
    # `Stream #0:1[0x2](und): Video: none (encv / 0x76636E65), ...`
    found = re.search(rf"Stream #0:{stream.index}\b.*?Video: (?:none \()?(\w+)", text)
    return found[1] if found and found[1] != "none" else "unknown"


def _announced_frames(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    rate: float,
) -> int:
    """How many frames the container promises to show; 0 if it does not count them."""
    entries = stream.index_entries
    if not stream.frames or not len(entries):
        return stream.frames
    # Frames outside of an edit list (MP4) are hidden, or missing in the index. Those
    # that were dropped at recording (AVI) are counted and have no entry; but the index
    # of an AVI file is at its end, which may be cut off.
    end = _seconds(stream, entries[-1].timestamp) + 1 / rate
    complete = end >= 0.9 * _seconds(stream, stream.duration)
    if complete or "mov" in container.format.name.split(","):
        return sum(not entry.is_discard for entry in entries)
    return stream.frames


def _tagged_seconds(stream: av.video.stream.VideoStream) -> float:
    """Duration of a stream as its tags say, which Matroska files have; else 0."""
    for name, value in stream.metadata.items():
        found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", value)
        if name.startswith("DURATION") and found:
            return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])
    return 0.0


def _seconds(stream: av.stream.Stream, ticks: int | None) -> float:
    return float((ticks or 0) * (stream.time_base or 0))


def _asf_seconds(source: str | io.BytesIO) -> float:
    """Duration of an ASF file that was cut short.

    FFmpeg ignores it if the file is smaller than announced; it cannot tell the size of
    a file that can only be read.
    """
    data = (
        pathlib.Path(source).read_bytes()
        if isinstance(source, str)
        else source.getvalue()
    )
    file = types.SimpleNamespace(read=io.BytesIO(data).read)
    with av.open(file, "r") as container:
        return (container.duration or 0) / av.time_base


def orientation(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """The part of the display matrix of a frame that `turn` needs."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # other side data, of a type that PyAV does not know
        turns = round(frame.rotation / 90)
        cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns % 4]
        return cosine, -sine, sine, cosine
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return a, b, c, d


def lies(orientation: tuple[int, int, int, int]) -> bool:
    """Whether `turn` exchanges width and height."""
    a, b, c, d = orientation
    return abs(a) + abs(d) < abs(b) + abs(c)


def turn(image: np.ndarray, orientation: tuple[int, int, int, int]) -> np.ndarray:
    """Turns an image upright: any of the eight orientations, mirrored ones too.

    Args:
        image: (h, w, 3).
        orientation: (a, b, c, d): the pixel at (x, y) belongs at (a x + c y, b x + d y),
            apart from a shift. Other angles are rounded to right ones.

    Returns:
        (h, w, 3) or (w, h, 3).
    """
    a, b, c, d = orientation
    if lies(orientation):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def deinterlace(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Deinterlaces the frames that are flagged as interlaced, with FFmpeg's bwdif.

    Gives as many frames as it takes, at the same times; others pass unchanged.
    """
    graph, layout = None, ()
    for frame in frames:
        before, layout = layout, (frame.width, frame.height, frame.format.name)
        if graph and layout != before:
            yield from _filter(graph, None)
            graph = None
        if not graph and frame.interlaced_frame:
            graph = _bwdif(frame)
        if graph:
            yield from _filter(graph, frame)
        else:
            yield frame
    if graph:
        yield from _filter(graph, None)


def _bwdif(frame: av.VideoFrame) -> av.filter.Graph:
    """The filter, for frames like this one."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        ),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _filter(
    graph: av.filter.Graph, frame: av.VideoFrame | None
) -> Iterator[av.VideoFrame]:
    """What the filter has ready when it gets a frame, or None for the end."""
    graph.vpush(frame)
    with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            yield graph.vpull()
