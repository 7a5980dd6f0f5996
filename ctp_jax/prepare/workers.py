"""Encoding videos in other processes, which import neither TensorFlow nor TFDS."""

import collections
import concurrent.futures
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from ctp_jax.prepare import video


@dataclasses.dataclass(frozen=True)
class Item:
    """One video to prepare.

    Attributes:
        id: its name, unique in the data set.
        label: its class, -1 for none.
        encode: function of no arguments that gives `video.EncodedVideo` or raises
            `video.VideoError`; pickled and called in another process, so its module
            must not import TensorFlow. A `functools.partial` of a function of a
            module: what it is applied to is part of the data set's fingerprint.
    """

    id: str
    label: int
    encode: Callable[[], video.EncodedVideo]


def encode_in_parallel(
    items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, video.EncodedVideo | str]]:
    """Encodes the videos in other processes, in order.

    At most a few videos per process are held in memory. A video that kills its
    process (broken files have crashed decoders) is found by trying those that were
    under way one at a time, and counts as unreadable.

    Args:
        items: the videos.
        workers: how many processes; 0 for one per core.

    Yields:
        (item, encoded video, or the reason why there is none).
    """
    workers = min(workers or available_cores(), len(items))
    ahead = 3 * workers
    remaining = collections.deque(items)
    while remaining:
        try:
            for pair in _encode(remaining, workers, ahead):
                yield pair
                remaining.popleft()
        except concurrent.futures.process.BrokenProcessPool:
            suspects = list(remaining)[:ahead]
            try:
                for pair in _encode(suspects, 1, ahead=1):
                    yield pair
                    remaining.popleft()
            except concurrent.futures.process.BrokenProcessPool:
                yield remaining[0], "the decoder crashed"
                remaining.popleft()


def _encode(items, workers: int, ahead: int):
    """Yields (item, result) in order, with `ahead` items under way."""
    executor = concurrent.futures.ProcessPoolExecutor(
        workers,
        # Not fork: the parent holds threads.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        waiting = collections.deque()
        for item in list(items):  # the caller shortens it meanwhile
            waiting.append((item, executor.submit(_run, item.encode)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _run(encode: Callable[[], video.EncodedVideo]) -> video.EncodedVideo | str:
    try:
        return encode()
    except video.VideoError as error:
        return str(error)


def _start_worker() -> None:
    """Leaves Ctrl-C, which reaches every process, to the parent; dies with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends this process when the parent is gone, killed for example."""
    multiprocessing.parent_process().join()
    os._exit(1)


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
