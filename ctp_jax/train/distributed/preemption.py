"""Preemption: a scheduler, a person or the end of a terminal stops a run.

Several processes get the signal at different moments, and some perhaps not at all, but
all must save the same step. So they vote before every step: a small program, queued just
before the step, finds out on the devices whether any process got a signal. The host reads
the answer while the step runs, so voting costs no waiting.

JAX's preemption service would also agree on a step, through the coordinator. But it
replaces the handlers here: it ignores Ctrl-C and never ends a process at once.
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

from ctp_jax import terminal
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train.distributed import coordination

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_SECOND = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_IGN,
}


class Preempted(Exception):
    """Raised in the middle of an evaluation, on every process at the same batch."""


class Preemption:
    """While entered, SIGTERM, SIGINT and SIGHUP request a stop after this step.

    SIGHUP is ignored if it was before, as under nohup.

    Attributes:
        name: the signal that this process got, or None.
        preempted: whether the run was stopped before its end.
        nothing_to_save: whether a signal ends the process at once: before the first
            step and after the last save.
        exit_code: of a process that ends at once.
    """

    def __init__(self, exit_code: int = 0):
        """Changes no signal handler before it is entered."""
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
            # Handlers run in the main thread, and not while that compiles. So signals
            # also wake a thread, which can end the process.
            self._wakeup = signal.set_wakeup_fd(
                self._pipe[1], warn_on_full_buffer=False
            )
            threading.Thread(
                target=self._listen, args=self._pipe[:1], daemon=True
            ).start()
            hangup_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            for number in _SIGNALS[: 2 if hangup_ignored else 3]:
                self._previous[number] = signal.signal(number, self._on_signal)
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
        """Starts a vote on whether to stop; does not wait for its result.

        Every process calls this at the same place between two programs of the run.

        Returns:
            A function that waits for the result, the same on all processes. Of several
            processes: whether any had got a signal by the time of the vote. Of one:
            whether it has got one by the time of the call.
        """
        if jax.process_count() == 1:
            return lambda: self.name is not None
        result = _any_of_all()(_ballot(self.name is not None))
        return lambda: bool(result)

    def _on_signal(self, number, frame):
        self.name = signal.Signals(number).name
        if not self.nothing_to_save:
            terminal.write(f"{self.name}: saving and stopping after this step")
        # A second signal has its usual effect: it ends the process without saving. But
        # a terminal that closes and its shell both send SIGHUP.
        signal.signal(number, _SECOND[number])

    def _listen(self, pipe: int) -> None:
        while received := os.read(pipe, 1):
            if self.nothing_to_save and received[0] in _SIGNALS:
                name = signal.Signals(received[0]).name
                coordination.end_all(
                    f"stopped by {name}: nothing to save", self.exit_code, False
                )
        os.close(pipe)


@functools.cache
def _ballot(stop: bool) -> jax.Array:
    """One element per device. Cached, so that no step sends it to the devices."""
    here = np.full(jax.local_device_count(), stop)
    return mesh_lib.put({"stop": here}, mesh_lib.make_mesh())["stop"]


@functools.cache
def _any_of_all() -> Callable[[jax.Array], jax.Array]:
    everywhere = mesh_lib.replicated(mesh_lib.make_mesh())
    program = jax.jit(jnp.any, out_shardings=everywhere)
    return coordination.compiled_together(program, "vote")
