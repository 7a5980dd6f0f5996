"""What the time from the command to the first step is made of."""

import os
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax

_TRACING = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration")
_COMPILING = ("backend_compile_duration",)  # or loading from the cache
_HIT, _MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"

_began_before = False


class StartUp:
    """A clock that says in one line where the start of a run went.

    The first one of a process counts from the start of the process. It listens to what
    JAX reports of tracing and compiling until the line is said.
    """

    def __init__(self) -> None:
        """Starts the clock."""
        global _began_before
        now = time.perf_counter()
        self._began = now if _began_before else now - _age_of_process()
        _began_before = True
        self._last = self._began
        self._phases: dict[str, float] = {}
        self._spans: dict[str, list[tuple[float, float]]] = {"trace": [], "compile": []}
        self._counts = {_HIT: 0, _MISS: 0}
        self._listens = True
        jax.monitoring.register_event_duration_secs_listener(self._add_span)
        jax.monitoring.register_event_listener(self._count)

    def mark(self, phase: str) -> None:
        """The time since the last mark was spent on this."""
        now = time.perf_counter()
        self._phases[phase] = self._phases.get(phase, 0.0) + now - self._last
        self._last = now

    def finish(self, say: Callable[[str], None]) -> None:
        """The first step is done: says the line."""
        self.mark("first step")
        self.close()
        say(self.line())

    def line(self) -> str:
        """`start-up 9.3 s: imports 3.1, ...; of this tracing 0.8, compiling ...`."""
        tracing = covered(self._spans["trace"])
        compiling = covered(self._spans["compile"])
        phases = ", ".join(
            f"{name} {value:.1f}" for name, value in self._phases.items()
        )
        return (
            f"start-up {self._last - self._began:.1f} s: {phases}; of this tracing "
            f"{tracing:.1f}, compiling {compiling:.1f} ({self._counts[_MISS]} programs, "
            f"{self._counts[_HIT]} from the cache)"
        )

    def close(self) -> None:
        """Listens no longer."""
        if self._listens:
            jax.monitoring.unregister_event_duration_listener(self._add_span)
            jax.monitoring.unregister_event_listener(self._count)
        self._listens = False

    def _add_span(self, event: str, seconds: float, **_: Any) -> None:
        name, now = event.rpartition("/")[2], time.perf_counter()
        for kind, names in (("trace", _TRACING), ("compile", _COMPILING)):
            if name in names:
                self._spans[kind].append((now - seconds, now))

    def _count(self, event: str, **_: Any) -> None:
        if event in self._counts:
            self._counts[event] += 1


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: what JAX reports is nested, or side by side."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _age_of_process() -> float:
    """Seconds since this process was started; 0 where that cannot be known."""
    try:
        fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
