"""Says when the input stalls, while the loop is blocked on it."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from ctp_jax.formatting import duration


class Watchdog:
    """A thread that looks at the clock while something is waited for.

    One for a whole run: to begin and to end a wait costs microseconds.
    """

    def __init__(self, seconds: float, say: Callable[[str], None]):
        """Starts to watch.

        Args:
            seconds: a wait that lasts longer is said, and again whenever it has become
                twice as long.
            say: takes a line and names the process; called from another thread.
        """
        self._seconds, self._say = seconds, say
        # Held while a line is said, so that the end of a wait is not said before it.
        self._lock = threading.Lock()
        self._waiting: tuple[str, float] | None = None
        self._next = seconds  # seconds of the current wait after which it is said
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """What happens inside is a wait for `what`. Waits do not nest."""
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
                    f"{duration(waited)}, since {began}: is the data's disk or "
                    "network slow or gone, config.data.workers too low?"
                )
