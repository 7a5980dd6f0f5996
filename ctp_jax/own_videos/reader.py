"""Reads a video of the user's own, frame by frame or clip by clip."""

import contextlib
import functools
import math
import pathlib
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import numpy as np

from ctp_jax.data import evenly_spread
from ctp_jax.data.batch import ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.prepare import frames as folders
from ctp_jax.prepare import video as videos
from ctp_jax.prepare.workers import Options

_WHOLE = 1 << 16  # a short side that no video has: its frames as they are


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
    count = 0
    try:
        with videos.errors_of_one_file():
            for number, shown in enumerate(_decode(video, _WHOLE, fps)):
                time = number / shown.rate if shown.time is None else shown.time
                frame = Frame(number, time, shown.image())
                count += 1
                if number >= start:
                    yield frame
    except videos.VideoError as error:
        if count <= start:
            raise UserError(f"{video}: {error}") from error
        print(f"note: {video}: {error}; it is tracked up to frame {count - 1}")
    if count <= start:
        raise UserError(f"--start={start}: {video} has {count} frames, from 0")


class _Shown(NamedTuple):
    """A frame whose pixels are made on demand; `pause` as `longest_pause`."""

    time: float | None
    rate: float
    pause: float
    image: Callable[[], np.ndarray]


def _decode(video: pathlib.Path, short_side: int, fps: float) -> Iterator[_Shown]:
    """The frames of a file, or of a folder, at most so large."""
    if video.is_dir():
        for number, read in enumerate(folders.lazy_frames(video)):
            image = functools.partial(_scaled, read, short_side)
            yield _Shown(number / fps, fps, math.inf, image)
        return
    for time, shown, _, image in videos.decode(video, short_side):
        yield _Shown(time, shown.rate, shown.longest_pause, image)


def _scaled(read: Callable[[], np.ndarray], short_side: int) -> np.ndarray:
    return videos.scale_image(read(), short_side)


SHORT_SIDE = Options.short_side
"""Pixels that frames are first scaled to, as `ctp_jax.prepare` does by default."""

Choose = Callable[[int, float], np.ndarray]
"""(number of frames, frames per second) -> the frame numbers of clips, int (c, t)."""


def choose(spec: ClipSpec, every: float, count: int, fps: float) -> np.ndarray:
    """A `Choose`, with the first two arguments given: the clips of an evaluation.

    Args:
        spec: evenly spread clips.
        every: seconds; above 0, one clip from the middle of every so many.
        count: number of frames.
        fps: frames per second.
    """
    if every:
        return evenly_spread.sample_segments(count, max(every * fps, 1.0), spec)
    return evenly_spread.sample_times(count, spec)


class Clip(NamedTuple):
    """A clip of a video.

    Attributes:
        attempt: a file whose frames are other than it announces is read again: then only
            the clips of the last attempt count.
        times: seconds since the first frame, (t,).
        frames: uint8 RGB (t, h, w, 3).
    """

    attempt: int
    times: np.ndarray
    frames: np.ndarray


def read_clips(
    video: pathlib.Path, choose: Choose, fps: float = 25.0
) -> Iterator[Clip]:
    """The clips of a video file, or of a folder of frames, one after the other.

    Their frames are those that `ctp_jax.prepare` would store, at the same constant rate
    and of the same size, before compression. Only frames that clips still need are held.

    Args:
        video: path.
        choose: says which frames.
        fps: of a folder.

    Raises:
        VideoError: the file cannot be read, whatever the reason, or is cut short.
    """
    with videos.errors_of_one_file():
        times, rate, pause = _announced(video, fps)
        before = np.zeros((0, 0), int)
        for attempt in range(3):
            index, found = videos.constant_rate(times, rate, pause)
            numbers = choose(len(index), found)
            wanted = index[numbers]
            if np.array_equal(wanted, before):
                return
            before, times = wanted, []
            waiting = _Waiting(attempt, numbers / found, wanted)
            for number, shown in enumerate(_decode(video, SHORT_SIDE, fps)):
                times.append(shown.time)
                rate, pause = shown.rate, shown.pause
                yield from waiting.take(number, shown.image)
        raise videos.VideoError("has other frames whenever it is read")


def _announced(
    video: pathlib.Path, fps: float
) -> tuple[list[float | None], float, float]:
    """Times of the frames before they are decoded, nominal rate, longest pause."""
    if video.is_dir():
        count = len(folders.list_frames(video, None))
        return [number / fps for number in range(count)], fps, math.inf
    times, shown = videos.announced_times(video)
    return times or [None], shown.rate, shown.longest_pause


class _Waiting:
    """Clips whose frames have not all been decoded yet."""

    def __init__(self, attempt: int, times: np.ndarray, wanted: np.ndarray):
        """Takes the numbers of the frames that are wanted, (c, t)."""
        self._attempt, self._times, self._wanted = attempt, times, wanted
        self._held: dict[int, np.ndarray] = {}
        self._next = 0  # clip
        # The last clip that needs a frame, and the last frame that a clip needs.
        self._users = {int(n): c for c, row in enumerate(wanted) for n in row}
        self._ready = wanted.max(axis=1)

    def take(self, number: int, image: Callable[[], np.ndarray]) -> Iterator[Clip]:
        """Takes the next frame; yields the clips that it completes, in their order."""
        if number in self._users:
            self._held[number] = image()
        while self._next < len(self._ready) and self._ready[self._next] <= number:
            row = self._wanted[self._next]
            frames = np.stack([self._held[int(each)] for each in row])
            yield Clip(self._attempt, self._times[self._next], frames)
            for each in set(row.tolist()):
                if self._users[each] == self._next:
                    del self._held[each]
            self._next += 1


def first_frame(video: pathlib.Path, start: int, fps: float) -> Frame:
    """See `read_frames`."""
    with contextlib.closing(read_frames(video, start, fps)) as frames:
        return next(frames)
