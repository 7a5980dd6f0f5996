"""Reports a stalled input while the training loop is blocked on it."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from ctp_jax.formatting import duration


class Watchdog:
    """A thread that reports waits that last too long.

    One serves a whole run; starting and ending a wait costs microseconds.
    """

    def __init__(self, seconds: float, say: Callable[[str], None]):
        """Starts the thread.

        Args:
            seconds: a wait that lasts longer is reported, and reported again whenever
                it has become twice as long.
            say: prints a line with the name of the process; called from the thread.
        """
        self._seconds, self._say = seconds, say
        # Held while a line is printed, or the end of a wait might be printed before it.
        self._lock = threading.Lock()
        self._waiting: tuple[str, float] | None = None
        self._next = seconds  # seconds of the wait at the next report
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """The body is a wait for `what`. Waits must not nest."""
        began = time.monotonic()
        with self._lock:
            self._waiting, self._next = (what, began), self._seconds
        try:
            yield
        finally:
            with self._lock:
                self._waiting, reported = None, self._next > self._seconds
        if reported:
            self._say(f"input: {what} came after {duration(time.monotonic() - began)}")

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            with self._lock:
                if self._waiting is None:
                    continue
                what, since = self._waiting
                waited = time.monotonic() - since
                if waited < self._next:
                    continue
                self._next = 2 * waited
                began = time.strftime("%H:%M:%S", time.localtime(time.time() - waited))
                self._say(
                    f"input: waiting for {what} for "
                    f"{duration(waited)}, since {began}: check the disk or network that "
                    "holds the data, or raise config.data.workers"
                )
