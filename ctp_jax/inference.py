"""Runs a network over the clips of many videos of one's own.

Threads read and decode; the device computes batches of clips, whichever videos they are
of. Symbols: b clips of a batch, n clips of a video, t frames per clip.
"""

import collections
import functools
import os
import pathlib
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from ctp_jax import files, own_video
from ctp_jax.data import evenly_spread
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.prepare import frames as image_folders
from ctp_jax.prepare import video as videos
from ctp_jax.prepare.builders import folders
from ctp_jax.prepare.workers import available_cores

if TYPE_CHECKING:
    from ctp_jax import encoder as encoder_lib

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


def _is_video(folder: pathlib.Path) -> bool:
    try:
        return bool(image_folders.list_frames(folder, None))
    except videos.VideoError:
        return False


class Flags(NamedTuple):
    """Those of commands that read many videos."""

    init_from: flags.FlagHolder[str]
    batch_size: flags.FlagHolder[int]
    workers: flags.FlagHolder[int]


def define_flags(flag_values: flags.FlagValues) -> Flags:
    """Defines them."""
    init_from = flags.DEFINE_string(
        "init_from",
        "",
        "The network: a workdir, a checkpoint, or an exported encoder.",
        flag_values=flag_values,
    )
    batch_size = flags.DEFINE_integer(
        "batch_size",
        0,
        "Clips that are computed at once; 0: 8 on CPUs, 64 on accelerators.",
        lower_bound=0,
        flag_values=flag_values,
    )
    workers = flags.DEFINE_integer(
        "workers",
        0,
        "Threads that decode; 0: one per core.",
        lower_bound=0,
        flag_values=flag_values,
    )
    return Flags(init_from, batch_size, workers)


def find_videos(arguments: Sequence[str]) -> list[pathlib.Path]:
    """The videos that a command was given: files, and all that lie in folders.

    A folder of numbered images without videos is a video itself.

    Raises:
        UserError: nothing was given, a path is not there, or a folder holds no videos.
    """
    if not arguments:
        raise UserError("no VIDEO is given: name files, or folders of them")
    found: list[pathlib.Path] = []
    for each in arguments:
        path = pathlib.Path(each).expanduser()
        if not path.exists():
            raise UserError(f"{each}: no such file or folder: check the path")
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = folders.Folder(os.fspath(path))
        except UserError as error:
            if _is_video(path):
                found.append(path)
                continue
            raise UserError(str(error).removeprefix("--videos=")) from error
        for note in inside.notes:
            print(f"note: {note}", file=sys.stderr)
        found += [path / name for name in inside.paths.values()]
    return list(dict.fromkeys(found))


def load_encoder(init_from: str) -> "encoder_lib.Encoder":
    """The encoder that --init_from names; `UserError` for one of optical flow."""
    from ctp_jax import encoder as encoder_lib

    try:
        found = encoder_lib.load_encoder(init_from)
    except UserError as error:
        raise UserError(f"--init_from: {error}") from error
    check_rgb(found.config, init_from)
    return found


def check_rgb(config: ConfigDict, init_from: str) -> None:
    """Raises `UserError` for a network that was trained on optical flow."""
    if config.get("data", {}).get("stream", "rgb") == "flow":
        raise UserError(
            f"--init_from={init_from}: was trained on optical flow, which videos do not "
            "store: name a run on RGB"
        )


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
        every: seconds, see `own_video.choose`.
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


def say_bad(video: str, reason: str) -> None:
    """A line about a file that cannot be read."""
    print(f"bad: {video}: {reason}", file=sys.stderr, flush=True)


class _Item(NamedTuple):
    """The next clip of a video, cut to what it shows; or its end, or why it has none."""

    index: int
    clip: own_video.Clip | None
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
    choose = functools.partial(own_video.choose, spec, every)

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
                    for clip in own_video.read_clips(
                        files.absolute(paths[index]), choose
                    ):
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


def _cut(index: int, clip: own_video.Clip, spec: ClipSpec) -> _Item:
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
