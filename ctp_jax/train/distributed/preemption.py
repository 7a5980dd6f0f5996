"""How a run is asked to stop: SIGTERM from a scheduler, Ctrl-C from a person.

Several processes are not asked at the same moment, some of them perhaps not at all, but
must save the same step. So what each was asked travels with its share of every batch,
and all read the same answer out of the same step.
"""

import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ctp_jax.train.distributed import coordination

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(Exception):
    """Raised in the middle of an evaluation, on every process at the same batch."""


class Preemption:
    """While entered, SIGTERM and SIGINT ask for a stop after the current step.

    Attributes:
        name: the signal that came to this process, or None.
        preempted: whether the run was stopped before it was finished.
        nothing_to_save: whether a signal may end the process at once: before the
            first step, and after the last save.
        exit_code: of a process that ends at once.
    """

    def __init__(self, exit_code: int = 0):
        """Is not entered yet."""
        self.name: str | None = None
        self.preempted = False
        self.nothing_to_save = True
        self.exit_code = exit_code
        self._previous: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, end == self._pipe[0])
            # While the main thread compiles, no Python runs in it, handlers included.
            # This wakes a thread that can end the process.
            self._wakeup = signal.set_wakeup_fd(
                self._pipe[1], warn_on_full_buffer=False
            )
            threading.Thread(target=self._listen, daemon=True).start()
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._pipe[1])  # which ends the thread
            self._pipe = None

    def with_vote(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch, and `stop`: whether this process was asked, in every row."""
        rows = len(batch["mask"])
        return {**batch, "stop": np.full(rows, self.name is not None, np.float32)}

    def agreed(self, metrics: Mapping[str, Any] | None) -> bool:
        """Whether to stop: the same on every process.

        Args:
            metrics: of a step that has been done, the same on every process; None
                before there is one.
        """
        if jax.process_count() == 1:
            return self.name is not None  # a step earlier than by the vote
        return metrics is not None and bool(metrics["stop"])

    def _asked(self, number, frame):
        self.name = signal.Signals(number).name
        if not self.nothing_to_save:
            # Not print, which a signal may not interrupt itself in.
            text = f"{self.name}: stopping after this step, and saving\n"
            os.write(2, text.encode())
        # A second one, from somebody who will not wait, has its usual effect.
        usual = (
            signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler
        )
        signal.signal(number, usual)

    def _listen(self):
        pipe = self._pipe[0]
        while received := os.read(pipe, 1):
            if self.nothing_to_save and received[0] in _SIGNALS:
                name = signal.Signals(received[0]).name
                coordination.end_all(
                    f"stopped by {name}: nothing to save", self.exit_code, False
                )
        os.close(pipe)
