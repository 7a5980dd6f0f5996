"""How a run is asked to stop: SIGTERM from a scheduler, Ctrl-C from a person.

Several processes are not asked at the same moment, some of them perhaps not at all, but
must save the same step. So they vote before every step: a program of its own, queued
just before the step, finds out whether any was asked, and the answer is read while the
step runs. It needs nothing from the host of another process, so it costs no waiting.

JAX's preemption service would agree on a step through the coordinator, but its listener
takes the place of the handlers here: no Ctrl-C, and nothing ends at once.
"""

import functools
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctp_jax.train import mesh as mesh_lib
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
            threading.Thread(
                target=self._listen, args=self._pipe[:1], daemon=True
            ).start()
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

    def vote(self) -> Callable[[], bool]:
        """Asks every process whether it is to stop; does not wait for the answer.

        Every process calls this at the same place between two programs of the run.

        Returns:
            A function that waits for the answer, which is the same on all processes: of
            one process, whether it has been asked by the time of that call; of several,
            whether any had been by the time of the vote.
        """
        if jax.process_count() == 1:
            return lambda: self.name is not None
        answer = _any_of_all()(_ballot(self.name is not None))
        return lambda: bool(answer)

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

    def _listen(self, pipe: int) -> None:
        while received := os.read(pipe, 1):
            if self.nothing_to_save and received[0] in _SIGNALS:
                name = signal.Signals(received[0]).name
                coordination.end_all(
                    f"stopped by {name}: nothing to save", self.exit_code, False
                )
        os.close(pipe)


@functools.cache
def _ballot(asked: bool) -> jax.Array:
    """One element a device: sent once for either answer, and not at every step."""
    here = np.full(jax.local_device_count(), asked)
    return mesh_lib.put({"asked": here}, mesh_lib.make_mesh())["asked"]


@functools.cache
def _any_of_all() -> Callable[[jax.Array], jax.Array]:
    everywhere = mesh_lib.replicated(mesh_lib.make_mesh())
    program = jax.jit(jnp.any, out_shardings=everywhere)
    return coordination.compiled_together(program, "vote")
