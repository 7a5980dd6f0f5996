"""Checkpoints. The only module that imports Orbax.

Orbax writes and reads the arrays; the folders and the other files of a step are
`step_folders`'. A step is complete or not there, its files are compared with their
list before it is used, and what comes out of it with the digests of what went in.
"""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ctp_jax.errors import UserError, is_disk_full
from ctp_jax.train.checkpoints import digests
from ctp_jax.train.checkpoints.layout import CheckpointLayout
from ctp_jax.train.checkpoints.manifest import LOST, Damage
from ctp_jax.train.checkpoints.retention import Retention, RetentionPolicy
from ctp_jax.train.distributed import coordination
from ctp_jax.train.state import TrainState, describe

_TROUBLE_TEXTS = ("PERMISSION_DENIED", "UNAVAILABLE", "Too many open files")


class Checkpoints:
    """The checkpoints of one run. Every process calls everything, in the same order."""

    def __init__(
        self,
        workdir: pathlib.Path,
        keep: RetentionPolicy,
        say: Callable[[str], None] = print,
    ):
        """Opens `<workdir>/checkpoints`, which need not exist.

        Args:
            workdir: an absolute path, the same on every process.
            keep: which steps stay.
            say: where to tell what a person should know.
        """
        self._folders, self._say = CheckpointLayout(workdir), say
        self._keeper = Retention(keep, self._folders, say)
        self._first = jax.process_index() == 0
        self._thread: threading.Thread | None = None
        self._pending: int | None = None
        self._error: BaseException | None = None
        self._was_full = False  # at the save before, which was let pass
        with self._full_disk():
            if self._first:
                self._folders.open()
        self._latest = max(self._steps(), default=None)

    def latest(self) -> int | None:
        """The newest complete step."""
        return self._latest

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Writes a step in the background, once the one before is written.

        Returns when the state has been copied off the devices, so that it may be
        donated. A step that is not newer than the newest is not written again. If the
        one before met a full disk, that is said, and this one is tried: there may be
        room again. With several processes it is not: others may wait for its arrays.

        Args:
            step: steps done.
            state: all of it on every process.
            meta: JSON; `results` and `evaluated` as `RetentionPolicy.score` wants them.

        Raises:
            UserError: the state is not finite, or not the same on all devices, and
                nothing was written; or the disk is full, now or for the two steps
                before.
        """
        self._wait_or_try_again(step)
        if self._latest is not None and step <= self._latest:
            return
        found = self._fit_to_save(step, state)
        if self._first:
            self._keeper.look_at(meta)
        meta = {**meta, "leaves": describe(state), "digests": found}
        with self._full_disk():
            if self._first:
                self._folders.begin(step)
            # A new one each time: it would remember an error for ever.
            writer = ocp.StandardCheckpointer()
            writer.save(self._folders.writing(step) / "state", state)
        self._pending = step
        self._thread = threading.Thread(
            target=self._complete, args=(writer, step, meta)
        )
        self._thread.start()

    def _wait_or_try_again(self, step: int) -> None:
        try:
            self.wait()
            self._was_full = False
        except UserError as error:
            alone = jax.process_count() == 1
            if self._was_full or not (alone and is_disk_full(error)):
                raise
            self._was_full = True
            self._say(f"note: a save failed, now step {step} is tried: {error}")

    def _fit_to_save(self, step: int, state: TrainState) -> dict[str, str]:
        """The digests of a state, or `UserError` if nobody should go on from it."""
        found = digests.examine(state)
        if paths := found.not_finite:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise UserError(
                f"{self._folders.path}: {paths[0]}{more} is not finite after step "
                f"{step}, which was not saved; {self.last_good()}: lower "
                "config.optimizer.learning_rate or clip_norm"
            )
        if odd := digests.disagreement(found):
            path, index = odd
            raise UserError(
                f"{self._folders.path}: the devices do not agree on {path} after step "
                f"{step} (process {index}), nothing saved; {self.last_good()}: run the "
                "same command again to go on from it, on other devices if it recurs"
            )
        return found.digests

    def amend(self, step: int, changes: Mapping[str, Any]) -> None:
        """Changes the meta of a complete step; the arrays are not written again.

        A kill at any moment leaves the step whole, with the old meta or the new one.

        Args:
            step: complete.
            changes: JSON, in the place of what its meta holds by these names.

        Raises:
            UserError: its meta cannot be read, or the disk is full.
        """
        self.wait()
        if self._first:
            with self._full_disk():
                try:
                    meta = self._folders.amend(step, changes)
                except Damage as damage:
                    raise UserError(
                        f"{self._folders.step(step)}: {damage}, since it was "
                        "read: run the same command again"
                    ) from damage
            self._keeper.look_at(meta)
            self._keeper.forget(step)
            self._keeper.delete_surplus()
        coordination.barrier("checkpoint amended")

    def _complete(
        self, writer: ocp.StandardCheckpointer, step: int, meta: Mapping[str, Any]
    ) -> None:
        """What happens in the background."""
        try:
            with writer:
                writer.wait_until_finished()
            if self._first:
                self._folders.complete(step, meta)
                self._keeper.delete_surplus()
        except BaseException as error:  # noqa: BLE001 (raised where the run waits for it)
            self._error = error
            if self._first:
                self._folders.abandon(step)

    def wait(self) -> None:
        """Waits for the save in progress; raises `UserError` if it met a full disk."""
        with self._full_disk():
            self._join()
        if self._pending is not None:
            coordination.barrier("checkpoint written")
            self._latest, self._pending = self._pending, None

    def close(self) -> None:
        """As `wait`, but without meeting the others: they may end in another way."""
        with self._full_disk():
            self._join()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error, self._pending = self._error, None, None
            raise error

    def restore(
        self,
        target: TrainState,
        check: Callable[[int, Mapping[str, Any]], None],
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest step that is as it was saved.

        Damaged ones on the way to it are moved to `<workdir>/damaged`.

        Args:
            target: shapes, types and shardings to restore into.
            check: called with a step and its meta before the state is read; raises
                `UserError` for a checkpoint of another run.

        Returns:
            (state, meta), or None where there is no step at all.

        Raises:
            UserError: there are steps, and none can be read; or one cannot be read
                here, for a reason that is no damage to it.
        """
        damaged = {}
        for step in reversed(self._steps()):
            try:
                meta = self._read_meta(step)
                check(step, meta)
                state = self._read_state(step, target, meta)
            except Damage as damage:
                damaged[step] = str(damage)
                continue
            if "digests" not in meta:
                self._say(
                    f"note: the checkpoint of step {step} is of an older version, without "
                    "digests: it can be read, but not compared with what was saved"
                )
            self._set_aside(damaged, step)
            self._latest = step
            return state, meta
        if not damaged:
            return None
        step, reason = next(iter(damaged.items()))
        raise UserError(
            f"{self._folders.path}: none of {len(damaged)} checkpoints can be read (step "
            f"{step}: {reason}); move the folder away to start from step 0"
        )

    def _steps(self) -> list[int]:
        """As process 0 sees them, for all."""
        steps = self._folders.steps() if self._first else None
        return coordination.from_first("checkpoint steps", steps)

    def _read_meta(self, step: int) -> dict[str, Any]:
        """The meta of a step, if process 0 finds its files whole."""
        judged: dict[str, Any] = {}
        if self._first:
            try:
                judged["meta"] = self._folders.read_checked(step)
            except Damage as damage:
                judged["damage"] = str(damage)
        judged = coordination.from_first("checkpoint judged", judged)
        if "damage" in judged:
            raise Damage(judged["damage"])
        return judged["meta"]

    def _read_state(
        self, step: int, target: TrainState, meta: Mapping[str, Any]
    ) -> TrainState:
        folder, state, problem = self._folders.step(step), None, ""
        try:
            state = restore_arrays(folder / "state", target)
        except Exception as error:
            # Digests came with the list of files, and the files agree with it.
            if "digests" in meta or is_trouble_here(error):
                raise UserError(
                    f"{folder}: cannot be read here, which is no damage: "
                    f"{first_line(error)}; see to it that it can, and run the same "
                    "command again"
                ) from error
            problem = first_line(error)
        self._agree(step, problem)
        path = digests.difference(meta.get("digests", {}), state)
        self._agree(step, f"{path} is not what was saved" if path else "")
        return state

    def _agree(self, step: int, problem: str) -> None:
        """Raises `Damage` if every process has a problem with a step."""
        problems = coordination.gather("checkpoint problem", problem)
        if all(problems):
            raise Damage(problems[0])
        for index, text in enumerate(problems):
            if text:
                raise UserError(
                    f"{self._folders.step(step)}: process {index} cannot read it "
                    f"({text}), and others can: see to that machine's disks and memory"
                )

    def _set_aside(self, damaged: Mapping[int, str], good: int) -> None:
        """Moves damaged steps away, so that they can be written again."""
        for step, reason in damaged.items():
            place = self._folders.set_aside(step) if self._first else ""
            place = coordination.from_first("checkpoint aside", str(place))
            self._say(
                f"checkpoint of step {step} cannot be read ({reason}): moved to {place}, "
                f"going on from step {good}"
            )

    @contextlib.contextmanager
    def _full_disk(self) -> Iterator[None]:
        """Turns a full disk, met here or in a thread of Orbax, into a `UserError`."""
        try:
            yield
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise UserError(
                f"{self._folders.path}: the disk is full; {self.last_good()}: make room "
                "and run the same command again"
            ) from error

    def last_good(self) -> str:
        """Words for a message: which step is safe."""
        steps = self._folders.steps()
        if not steps:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is step {steps[-1]}"


def save_arrays(path: pathlib.Path, tree: Any) -> None:
    """Writes a tree of arrays and waits for it. `path` must not exist."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def load_arrays(path: pathlib.Path) -> Any:
    """Reads what was written there as NumPy arrays, whatever devices it came from."""
    with _reader() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        # NumPy targets, so that the devices it was saved from need not be here.
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
        return checkpointer.restore(path, empty)


def restore_arrays(path: pathlib.Path, target: Any) -> Any:
    """Reads what was written there into the shapes, types and shardings of `target`."""
    with _reader() as checkpointer:
        return checkpointer.restore(path, target)


def _reader() -> ocp.StandardCheckpointer:
    """One that waits for no other process: what fails here may not fail there."""
    index = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def is_trouble_here(error: Exception) -> bool:
    """Whether an error of Orbax says something of this machine, not of the files."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in LOST
    if isinstance(error, (MemoryError, jax.errors.JaxRuntimeError)):
        return True
    return any(text in str(error) for text in _TROUBLE_TEXTS)


def first_line(error: Exception) -> str:
    """Why a step cannot be read, in a few words."""
    if "NOT_FOUND" in str(error) or isinstance(error, FileNotFoundError):
        return "files are missing"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 120 else lines[0][:117] + "..."
