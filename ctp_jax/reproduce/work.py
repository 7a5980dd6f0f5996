"""Makes runs, one after the other, each as a process of its own."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from ctp_jax import results, terminal
from ctp_jax.errors import TryLater, UserError
from ctp_jax.formatting import duration
from ctp_jax.reproduce import plan
from ctp_jax.reproduce.runs import Run
from ctp_jax.storage import files

_ROOM = 1 << 28  # bytes that must be free before a run starts
_POLL = 30  # seconds between two looks for runs of other processes
_STOPPED = 75
_GRACE = 600  # seconds that another worker has to try again what failed before


class Failed(UserError):
    """Some of the runs failed; the others are made."""

    exit_code = 1


@dataclasses.dataclass
class Worker:
    """Makes those of the runs that are its own.

    Attributes:
        root: the folder of all runs.
        everything: all runs in order, for their numbers.
        wait: wait for what other processes make; else say so and stop.
        failed: {name of a run: why it was not made}.
    """

    root: str
    everything: Sequence[Run]
    wait: bool = False
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    _process: subprocess.Popen | None = None
    _signal: signal.Signals | None = None
    _told: set[str] = dataclasses.field(default_factory=set)

    def make(self, own: Sequence[Run]) -> None:
        """Makes what is missing of these runs, in their order.

        A run that fails keeps those that need it from being made, and no others.

        Raises:
            Failed: some failed; the message names each, its log, and why.
            TryLater: a signal stopped a run, which is saved; or what is left needs runs
                that other processes make.
            UserError: the disk is full. Workers that wait for these runs give up, too.
        """
        left = [run for run in own if not plan.is_finished(run, self.root)]
        for run in left:
            pathlib.Path(self.root, run.name, plan.FAILED).unlink(missing_ok=True)
        began, told = time.time(), False
        with self._signals():
            while left:
                before = len(left)
                self._note_failures(left, own, began)
                try:
                    left = [run for run in left if not self._settled(run)]
                except UserError as error:
                    if not isinstance(error, TryLater):
                        for run in left:
                            self._give_up(run, str(error))
                    raise
                if left and len(left) == before:
                    wait = "run waits" if len(left) == 1 else "runs wait"
                    waits = f"{len(left)} {wait} for others: {self._reason(left[0])}"
                    if not self.wait:
                        break
                    if not told:
                        print(f"{waits}: waiting", flush=True)
                        told = True
                    time.sleep(_POLL)
                    self._check_signal()
        if self.failed:
            why = "; ".join(f"{name}: {reason}" for name, reason in self.failed.items())
            raise Failed(f"{len(self.failed)} of {len(own)} runs were not made: {why}")
        if left:
            raise TryLater(f"{waits}: the same command again, later, or --wait")

    def _note_failures(self, left, own, began: float) -> None:
        """Looks which of the needed runs other workers failed to make."""
        for needed in {n for run in left for n in self._missing(run)} - {*own}:
            mark = pathlib.Path(self.root, needed.name, plan.FAILED)
            with contextlib.suppress(OSError):
                if mark.stat().st_mtime > began or time.time() > began + _GRACE:
                    self.failed[needed.name] = mark.read_text()

    def _missing(self, run: Run) -> list[Run]:
        """What it needs and is not made yet."""
        return [n for n in run.needs if not plan.is_finished(n, self.root)]

    def _reason(self, run: Run) -> str:
        if missing := self._missing(run):
            return f"{run.name} needs {missing[0].name}, which is not made yet"
        return f"{run.name} is being made by another process"

    def _settled(self, run: Run) -> bool:
        """Makes a run if that is possible now; False if it has to wait."""
        if plan.is_finished(run, self.root):
            return True
        missing = self._missing(run)
        for needed in missing:
            if needed.name in self.failed:
                self._fail(run, f"needs {needed.name}")
                return True
        if missing:
            return False
        folder = pathlib.Path(self.root, run.name)
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < _ROOM:
            raise UserError(_full(folder))
        with contextlib.ExitStack() as stack:
            try:
                lock = files.locked(folder / ".reproduce.lock", "is being made", "", 0)
                stack.enter_context(lock)
            except TryLater:
                return False
            return plan.is_finished(run, self.root) or self._made(run, folder)

    def _made(self, run: Run, folder: pathlib.Path) -> bool:
        """Runs the process; False if another one already works on this run."""
        plan.note(folder, plan.mark_of(run))
        number = f"[{self.everything.index(run) + 1}/{len(self.everything)}] {run.name}"
        began = time.monotonic()
        with (folder / plan.LOG).open("ab") as log:
            before = log.tell()
            with terminal.held_back():  # until there is a process to pass them on to
                self._process = start(run.command(self.root), log)
            code = self._watch(folder / plan.LOG, number, before)
        self._process = None
        with contextlib.suppress(OSError):  # a full disk is told below
            plan.note(folder, {}, time.monotonic() - began)
        self._check_signal()
        last = _last_line(folder / plan.LOG, before).removeprefix("error: ")
        if code == 0 and plan.is_finished(run, self.root):
            # Another worker may have failed to make it meanwhile.
            (folder / plan.FAILED).unlink(missing_ok=True)
            plan.note(folder, {"clips": plan.clips(run)})
            took = duration(time.monotonic() - began)
            print(f"{number}: {_results(folder)} ({took})", flush=True)
            for line in _lines(folder / plan.LOG, before):
                if line.startswith("note: ") and line not in self._told:
                    self._told.add(line)
                    print(f"  {line}", flush=True)
            return True
        if code == _STOPPED and "another run uses this folder" in last:
            return False
        if code == _STOPPED:
            raise TryLater(f"{run.name}: was stopped, and is saved: {last}")
        if "disk is full" in last or "disk quota" in last:
            raise UserError(_full(folder))
        if code < 0:
            last = f"killed by {signal.Signals(-code).name} after: {last}"
        self._fail(run, f"{last or f'ended with {code}'} ({folder / plan.LOG})")
        print(f"{number}: failed: {last}", flush=True)
        return True

    def _fail(self, run: Run, reason: str) -> None:
        """Notes it here, and for other workers."""
        self.failed[run.name] = reason
        self._give_up(run, reason)

    def _give_up(self, run: Run, reason: str) -> None:
        folder = pathlib.Path(self.root, run.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / plan.FAILED).write_text(reason)

    def _watch(self, log: pathlib.Path, number: str, begin: int) -> int:
        """Waits for the process; shows its last line, after byte `begin`, on a terminal."""
        assert self._process is not None
        live = sys.stdout.isatty()
        if not live:
            # The name is in the path.
            print(f"{number.partition(' ')[0]} started, see {log}", flush=True)
        while True:
            try:
                code = self._process.wait(2 if live else None)
                break
            except subprocess.TimeoutExpired:
                width = shutil.get_terminal_size().columns - 1
                text = f"{number}: {_last_line(log, begin)}"
                if len(text) > width:  # the loss is missed more than the name
                    text = f"{number.partition(' ')[0]} {_last_line(log, begin)}"
                print(f"\r\x1b[K{text[:width]}", end="", flush=True)
        if live:
            print("\r\x1b[K", end="")
        return code

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Passes signals on to the run, so that it saves."""
        numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
        heard = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]
        before = {n: signal.signal(n, self._on_signal) for n in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number, frame) -> None:
        first, self._signal = self._signal is None, signal.Signals(number)
        if self._process is None:
            self._check_signal()
        # A second SIGTERM would end the run without saving, and not only a person who
        # insists sends one: a terminal that closes and its shell both send SIGHUP, and
        # schedulers signal every process of a job. A second SIGHUP never does that.
        elif first or number == signal.SIGINT:
            ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            gently = first and not ignored
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP if gently else signal.SIGTERM)

    def _check_signal(self) -> None:
        """Raises what ends the command after a signal."""
        if self._signal is not None:
            what = "what is made so far is saved: the same command goes on"
            if self._signal == signal.SIGINT:
                raise KeyboardInterrupt(what)
            raise TryLater(f"stopped by {self._signal.name}; {what}")


def start(command: Sequence[str], log) -> subprocess.Popen:
    """Starts `python` with a command line whose output goes to a file.

    In a session of its own: a terminal's Ctrl-C would reach it beside our signal, and a
    second one ends a run without saving. With large pages of memory, which glibc asks
    for only if it is told before a process starts (docs/performance.md).
    """
    return subprocess.Popen(
        [sys.executable, *command],
        env={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _lines(path: pathlib.Path, begin: int = 0) -> list[str]:
    """The lines of a log, from a byte on, each with what was wrapped of it."""
    with path.open("rb") as file:
        file.seek(begin)
        text = file.read().decode(errors="replace").replace("\r", "\n")
    found: list[str] = []
    for line in filter(str.strip, text.split("\n")):
        if found and line[0].isspace():
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return found


def _last_line(path: pathlib.Path, begin: int = 0) -> str:
    """The last of `_lines`; ''. It looks at the end alone: logs of long runs are long."""
    return next(reversed(_lines(path, max(begin, path.stat().st_size - 4096))), "")


def _full(folder: pathlib.Path) -> str:
    return (
        f"{folder}: the disk is full: free some space and run the same command again, "
        "which goes on where it was"
    )


def _results(folder: pathlib.Path) -> str:
    from ctp_jax.report import read  # not above: Matplotlib takes a while

    found = read.read(folder).results()
    return ", ".join(
        f"{results.label(name)} {results.show(name, found[name])}"
        for name in results.main_metrics(list(found))
    )
