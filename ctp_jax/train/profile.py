"""A trace of a few steps by JAX's profiler: `config.profile`."""

import pathlib
from typing import Any

import jax

from ctp_jax.train import console

FOLDER = "profile"
"""In the workdir; TensorBoard's profile plugin and Perfetto read what lies in it."""


class Profile:
    """Traces the steps START to START + STEPS - 1 of `config.profile = "START:STEPS"`."""

    def __init__(self, steps: str, workdir: pathlib.Path):
        """Nothing is traced if `steps` is empty."""
        first, _, count = steps.partition(":")
        self._first = int(first or 0)
        self._last = self._first + int(count or 1) - 1
        self._folder, self._running = workdir / FOLDER, False

    def before(self, step: int) -> None:
        """Starts the trace before the first of its steps."""
        if step == self._first:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, values: Any) -> None:
        """Writes the trace after the last of its steps, as soon as `values` are there."""
        if self._running and step >= self._last:
            jax.block_until_ready(values)
            self.close()

    def close(self) -> None:
        """Writes what is traced so far."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            console.say(f"profile of steps from {self._first} on: {self._folder}")
