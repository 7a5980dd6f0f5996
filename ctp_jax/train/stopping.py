"""How a run is asked to stop: SIGTERM from a scheduler, Ctrl-C from a person."""

import os
import signal
import threading
from typing import Any


class Stopping:
    """While entered, SIGTERM and SIGINT ask for a stop after the current step.

    Attributes:
        name: the signal that came, or None.
    """

    def __init__(self):
        self.name: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _asked(self, number, frame):
        self.name = signal.Signals(number).name
        # Not print, which a signal may not interrupt itself in.
        text = f"{self.name}: stopping after this step, and saving\n"
        os.write(2, text.encode())
        # A second one, from somebody who will not wait, has its usual effect.
        signal.signal(number, self._previous[number])
