"""Runs a network over the clips of many videos of one's own.

Threads read and decode; the device computes batches of clips, whichever videos they are
of. Symbols: b clips of a batch, n clips of a video, t frames per clip.
"""

import collections
import functools
import pathlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctp_jax.data import evenly_spread
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.own_videos import reader
from ctp_jax.prepare import video as videos
from ctp_jax.prepare.workers import available_cores
from ctp_jax.storage import files

_MARGIN = 1  # pixels around a window, for interpolation
_CANVAS = 16  # sides of a batch are multiples of it: few programs are compiled
_AHEAD = 4  # batches of clips that are held ready


class Result(NamedTuple):
    """What was found for one video.

    Attributes:
        index: its number among the videos.
        starts: seconds from its start to that of each clip, (n,).
        rows: of each clip what the function gave, (n, ...).
        error: why it cannot be read, '' if it can.
    """

    index: int
    starts: np.ndarray
    rows: np.ndarray
    error: str = ""


def run(
    paths: Sequence[pathlib.Path],
    spec: ClipSpec,
    function: Callable[[Batch], Any],
    *,
    every: float = 0.0,
    batch_size: int = 0,
    threads: int = 0,
) -> Iterator[Result]:
    """What a function gives for the clips of each video, in the order of their ends.

    Args:
        paths: of the videos.
        spec: of their clips, as an evaluation sees them.
        function: takes batches with frames, window, extent and flip of one clip per row,
            always of `batch_size` rows; returns an array (b, ...).
        every: seconds, see `reader.choose`.
        batch_size: 0: chosen for the device.
        threads: that decode; 0: one per core.
    """
    import jax

    batch_size = batch_size or (8 if jax.default_backend() == "cpu" else 64)
    rows: dict[int, list[Any]] = collections.defaultdict(list)
    waiting: list[_Item] = []
    computed: collections.deque[tuple[list[_Item], Any]] = collections.deque()

    def finish() -> Iterator[Result]:
        items, values = computed.popleft()
        values = iter(np.asarray(values))
        for item in items:
            found = rows[item.index]
            if item.clip is not None:
                if found and found[-1][0] != item.clip.attempt:
                    found.clear()  # the video is read again
                start = float(item.clip.times[0])
                found.append((item.clip.attempt, start, next(values)))
                continue
            del rows[item.index]
            if item.error:
                yield Result(item.index, np.zeros(0), np.zeros(0), item.error)
            else:
                _, starts, each = zip(*found, strict=True)
                yield Result(item.index, np.array(starts), np.stack(each))

    clips = 0
    for item in read(paths, spec, every, threads, _AHEAD * batch_size):
        waiting.append(item)
        clips += item.clip is not None
        if clips == batch_size:
            # The device works on this batch while results of the one before are taken.
            computed.append((waiting, function(_stack(waiting, spec, batch_size))))
            waiting, clips = [], 0
            if len(computed) > 1:
                yield from finish()
    last = function(_stack(waiting, spec, batch_size)) if clips else ()
    computed.append((waiting, last))
    while computed:
        yield from finish()


def in_order(results: Iterable[Result]) -> Iterator[Result]:
    """The results in the order of the videos, each as soon as those before are there."""
    ended: dict[int, Result] = {}
    following = 0
    for result in results:
        ended[result.index] = result
        while following in ended:
            yield ended.pop(following)
            following += 1


class _Item(NamedTuple):
    """The next clip of a video, cut to what it shows; or its end, or why it has none."""

    index: int
    clip: reader.Clip | None
    window: np.ndarray | None = None
    error: str = ""


def read(
    paths: Sequence[pathlib.Path],
    spec: ClipSpec,
    every: float,
    threads: int,
    ahead: int,
) -> Iterator[_Item]:
    """The clips of all videos; those of one video in their order, and then its end."""
    found: queue.Queue[_Item | BaseException] = queue.Queue(ahead)
    numbers, stop = iter(range(len(paths))), threading.Event()
    choose = functools.partial(reader.choose, spec, every)

    def put(item: _Item | BaseException) -> None:
        while not stop.is_set():
            try:
                return found.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            # `next` of an iterator of a range is one step of the interpreter.
            for index in numbers:
                error = ""
                try:
                    for clip in reader.read_clips(files.absolute(paths[index]), choose):
                        put(_cut(index, clip, spec))
                        if stop.is_set():
                            return
                except videos.VideoError as reason:
                    error = str(reason)
                put(_Item(index, None, error=error))
        except BaseException as error:  # noqa: BLE001 (raised where results are taken)
            put(error)

    count = min(threads or available_cores(), len(paths))
    for _ in range(count):
        threading.Thread(target=work, daemon=True).start()
    try:
        ended = 0
        while ended < len(paths):
            item = found.get()
            if isinstance(item, BaseException):
                raise item
            ended += item.clip is None
            yield item
    finally:
        stop.set()


def _cut(index: int, clip: reader.Clip, spec: ClipSpec) -> _Item:
    """The part of the frames that the clip shows: less to copy."""
    height, width = clip.frames.shape[1:3]
    window = evenly_spread.sample_window(height, width, spec)
    low = np.maximum(np.floor(window[:2]).astype(int) - _MARGIN, 0)
    high = np.ceil(window[:2] + window[2:]).astype(int) + _MARGIN
    part = clip.frames[:, low[0] : high[0], low[1] : high[1]]
    window = window - np.array([*low, 0, 0], np.float32)
    return _Item(index, clip._replace(frames=part), window)


def _stack(items: Sequence[_Item], spec: ClipSpec, rows: int) -> Batch:
    """A batch of the clips among the items, with empty rows up to `rows`."""
    cut = [(item.clip.frames, item.window) for item in items if item.clip is not None]
    sides = np.array([frames.shape[1:3] for frames, _ in cut])
    height, width = -(-sides.max(axis=0) // _CANVAS) * _CANVAS
    batch = {
        "frames": np.zeros((rows, 1, spec.num_frames, height, width, 3), np.uint8),
        "window": np.tile(np.array([0, 0, 1, 1], np.float32), (rows, 1, 1)),
        "extent": np.ones((rows, 1, 2), np.float32),
        "flip": np.zeros((rows, 1), bool),
        "plan": {},
    }
    for row, (frames, window) in enumerate(cut):
        h, w = frames.shape[1:3]
        batch["frames"][row, 0, :, :h, :w] = frames
        batch["window"][row], batch["extent"][row] = window, (h, w)
    return batch
