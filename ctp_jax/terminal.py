"""The terminal of a command: Ctrl-C, standard streams that may go away, progress.

Light imports only: `ctp_jax/__init__.py` calls `end_at_once` before the modules of a
command are imported.
"""

import contextlib
import errno
import io
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PATIENCE = 5.0  # seconds for busy threads after an interrupt
_FIRST = 5  # seconds before the first line of progress that goes into a file
_EVERY = 60  # seconds between two more
_SILENT = 1.5  # seconds after which a person wants to know that a command has started

T = TypeVar("T")


def write(line: str) -> None:
    """Writes a line to standard error, from a signal handler too.

    A handler must not call `print`, which it may have interrupted. The reader of the
    line may have ended: `2>&1 | tee log` gets the same Ctrl-C.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def end(line: str = "error: interrupted", code: int = INTERRUPTED) -> NoReturn:
    """Ends the process with a line, and without libraries that tidy up.

    They do so in any order, and crash where they are interrupted in their work.
    """
    write(line)
    os._exit(code)


def end_at_once(number: int, line: str, code: int) -> None:
    """From now on, a signal ends the process with a line and an exit code.

    For moments with nothing to save or to clean up, such as imports: an exception may be
    swallowed there, or turned into an ImportError. A signal that is ignored stays so.
    """
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda *_: end(line, code))


def end_on_interrupt() -> None:
    """From now on, Ctrl-C ends the process at once."""
    end_at_once(signal.SIGINT, "error: interrupted", INTERRUPTED)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Signals that ask for an end and arrive inside come at the end of the block.

    For calls that start processes. An exception there could leave a process that nobody
    knows of, which goes on alone or is waited for without end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main one
        return
    came = []
    asking = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    try:
        with contextlib.ExitStack() as stack:
            for number in asking:
                handler = signal.getsignal(number)
                if callable(handler):
                    stack.callback(signal.signal, number, handler)
                    signal.signal(number, lambda number, _: came.append(number))
            yield
    finally:
        for number in came[:1]:
            signal.raise_signal(number)


def end_soon(code: int) -> None:
    """Ends the process in five seconds, if it still runs: busy threads would hold it."""
    timer = threading.Timer(_PATIENCE, os._exit, (code,))
    timer.daemon = True
    timer.start()


class Interrupts:
    """Turns the first Ctrl-C into a KeyboardInterrupt; the second ends the process.

    Attributes:
        came: whether there was one. Libraries turn the exception into others.
    """

    def __init__(self):
        """Installs the handler, unless Ctrl-C is ignored."""
        self.came = False
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._raise)

    def _raise(self, number, frame):
        self.came = True
        end_on_interrupt()
        raise KeyboardInterrupt


class _Descriptor(io.FileIO):
    """A standard stream without its buffer, which drops what cannot be written.

    Attributes:
        full: whether something was lost because a disk is full.
        wrote: whether anything was written to one of these streams.
    """

    full = False
    wrote = False

    def write(self, data: Any, /) -> int:
        _Descriptor.wrote = True
        try:
            # None: another program has made it non-blocking, and it is busy.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except OSError as error:
            # Libraries write to it as well, and buffers are flushed once more at the end.
            _open_null(self.fileno())
            if error.errno in _FULL:
                self.full = True
                write(f"error: standard output: {error.strerror}: the rest is dropped")
            return len(data)


def _open_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def guard_streams() -> None:
    """Standard output and error never raise from now on.

    What cannot be written is dropped, because its reader has ended (`| head`), its
    terminal is closed or its disk is full. Names that are not UTF-8 are escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: another file would get its number
            _open_null(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue  # replaced by a test or a notebook
        number = 1 if name == "stdout" else 2
        raw = _Descriptor(number, "w", closefd=False)
        guarded = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding if stream else "utf-8",
            errors="backslashreplace",
            # Unbuffered, as with python -u, here means line by line.
            line_buffering=stream is not None
            and (stream.line_buffering or stream.write_through),
        )
        setattr(sys, name, guarded)


def lost_output() -> bool:
    """Flushes standard output; whether some of it was lost because a disk is full."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Descriptor) and raw.full


def say_alive() -> None:
    """Tells a person at a terminal that the command has started, unless it says more."""
    if not sys.stderr.isatty():
        return

    def say() -> None:
        if not _Descriptor.wrote:
            write("starting")

    timer = threading.Timer(_SILENT, say)
    timer.daemon = True
    timer.start()


def announce(line: str) -> None:
    """Tells a person at a terminal what takes a while now."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def progress(
    items: Iterable[T],
    what: str,
    total: int,
    *,
    done: int = 0,
    unit: str = "",
    show: bool = True,
) -> Generator[T]:
    """Yields the items and shows on standard error how many of them there were.

    A bar on a terminal; otherwise, for log files, a line after five seconds and then
    every minute.

    Args:
        items: yielded one by one.
        what: is being done.
        total: number of items and of those done before; 0 if it is not known.
        done: items done before.
        unit: of the items, in the plural.
        show: False: nothing is shown.
    """
    if show and sys.stderr.isatty():
        import tqdm  # not above: commands start faster without

        yield from tqdm.tqdm(
            items, what, total or None, initial=done, unit=f" {unit}", leave=False
        )
        return
    last, wait = time.monotonic(), min(_FIRST, _EVERY)
    for number, item in enumerate(items, done + 1):
        yield item
        if show and time.monotonic() - last > wait:
            of = f" of {total}" * bool(total)
            print(f"{what}: {number}{of} {unit}", file=sys.stderr, flush=True)
            last, wait = time.monotonic(), _EVERY
