"""Encodes videos in worker processes, which import neither TensorFlow nor TFDS."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from ctp_jax import terminal
from ctp_jax.prepare import video


@dataclasses.dataclass(frozen=True)
class Item:
    """One video to prepare.

    Attributes:
        id: its name, unique in the data set.
        label: its class, -1 for none.
        encode: returns the `video.EncodedVideo` or raises `video.VideoError`. It is
            pickled and called in a worker process, so its module must not import
            TensorFlow. A `functools.partial` of a module's function, whose arguments
            become part of the fingerprint of the data set.
    """

    id: str
    label: int
    encode: Callable[[], video.EncodedVideo]


@dataclasses.dataclass(frozen=True)
class Options:
    """How to prepare the videos.

    Attributes:
        short_side: pixels, see `video.encode_video`.
        quality: of the JPEG files, 1 to 95.
        workers: number of processes; 0: one per core.
        max_bad: see `ctp_jax.errors.allowed_bad`.
        progress: whether to show a progress bar.
        shards: number of files; 0: by the number of videos.
    """

    short_side: int = 144
    quality: int = 90
    workers: int = 0
    max_bad: float = 0.01
    progress: bool = True
    shards: int = 0


Result = tuple[Item, video.EncodedVideo | str]
"""A video, and either its frames or the reason why it cannot be used."""
Results = Generator[Result, None, None]


def encode_in_parallel(items: Sequence[Item], workers: int) -> Results:
    """Encodes the videos in worker processes; yields them in order.

    At most three videos per process are held in memory. When a process dies (damaged
    files have crashed decoders), the videos that were being encoded are tried again one
    at a time, and the one that kills its process counts as unreadable.

    Args:
        items: the videos.
        workers: number of processes; 0: one per core.
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


def _encode(items: Iterable[Item], workers: int, ahead: int) -> Results:
    """Yields the results in order, with `ahead` items submitted at a time."""
    with _starting():
        executor = concurrent.futures.ProcessPoolExecutor(
            workers,
            # Not fork: the parent has threads.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
        )
    try:
        waiting: collections.deque[
            tuple[Item, concurrent.futures.Future[video.EncodedVideo | str]]
        ] = collections.deque()
        for item in list(items):  # a copy: the caller removes items meanwhile
            with _starting():
                waiting.append((item, executor.submit(_run, item.encode)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, _result(future)
        while waiting:
            first, future = waiting.popleft()
            yield first, _result(future)
    except BaseException:
        # Not killed: that could cut a result in two, for whose end the pool would wait.
        for process in [*(executor._processes or {}).values()]:
            with contextlib.suppress(ProcessLookupError):
                if process.is_alive() and process.pid:
                    os.kill(process.pid, _STOP)
        raise
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Around calls that may start workers: no signal cuts the start short.

    Workers inherit which signals are blocked, so they never hear Ctrl-C and SIGHUP, which a
    terminal sends to them, too; the parent decides. They could ignore these themselves only
    after half a second of imports.
    """
    # Before the block: it unblocks SIGINT.
    multiprocessing.resource_tracker.ensure_running()
    with terminal.held_back():
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP, _STOP)
        )
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _result(
    future: concurrent.futures.Future[video.EncodedVideo | str],
) -> video.EncodedVideo | str:
    try:
        return future.result()
    except MemoryError:  # on the way from the worker
        return "out of memory"


_STOP = signal.SIGUSR1
"""Tells a worker that nobody wants its videos any more: it drops what it is encoding."""


class _Stopped(BaseException):
    """Raised by `_STOP` where a worker encodes; not where it sends a result."""


_state = {"encoding": False, "stopped": False}  # of a worker


def _run(encode: Callable[[], video.EncodedVideo]) -> video.EncodedVideo | str:
    try:
        _state["encoding"] = True
        return "" if _state["stopped"] else encode()
    except _Stopped:
        return ""
    except video.VideoError as error:
        return str(error)
    finally:
        _state["encoding"] = False


def _stop(*_) -> None:
    _state["stopped"] = True
    if _state["encoding"]:
        _state["encoding"] = False
        raise _Stopped


def _start_worker() -> None:
    """Ends with the parent, and stops when it says so."""
    signal.signal(_STOP, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (_STOP,))
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends this process when the parent has ended, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
