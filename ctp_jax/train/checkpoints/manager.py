"""The checkpoints of a run: saved in the background, verified when restored.

`pytrees` writes and reads the arrays, `layout` the folders and the other files of a step.
A step is either complete or absent. Before it is used, its files are compared with the
manifest, and the restored arrays with the digests taken before saving.
"""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ctp_jax.errors import UserError, is_disk_full, refusals
from ctp_jax.train.checkpoints import digests, pytrees
from ctp_jax.train.checkpoints.bucket_layout import open_layout
from ctp_jax.train.checkpoints.manifest import Damage
from ctp_jax.train.checkpoints.retention import Retention, RetentionPolicy
from ctp_jax.train.distributed import coordination
from ctp_jax.train.state import TrainState, describe


class Checkpoints:
    """The checkpoints of one run. All processes make the same calls in the same order."""

    def __init__(
        self,
        workdir: pathlib.Path,
        policy: RetentionPolicy,
        say: Callable[[str], None] = print,
    ):
        """Opens `<workdir>/checkpoints`, which need not exist.

        Args:
            workdir: an absolute path, the same on every process.
            policy: which steps are kept.
            say: prints a line for the user.
        """
        self._layout, self._say = open_layout(workdir), say
        self._retention = Retention(policy, self._layout, say)
        self._first = jax.process_index() == 0
        self._thread: threading.Thread | None = None
        self._pending: int | None = None
        self._error: BaseException | None = None
        self._was_full = False  # whether the save before met a full disk
        with self._refusals():
            if self._first:
                self._layout.open()
        self._latest = max(self._steps(), default=None)

    def latest(self) -> int | None:
        """The newest complete step."""
        return self._latest

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Waits for the previous save, then writes a step in the background.

        Returns once the state has been copied off the devices, so that it may be
        donated. A step that is not newer than the newest is not written again. If the
        previous save of a run of one process met a full disk, this prints a note and
        tries again. Several processes end instead: one that did not fail might wait for
        the others.

        Args:
            step: steps done.
            state: replicated on every process.
            meta: JSON; of the evaluation, what `Retention.note_evaluation` wants.

        Raises:
            UserError: the state is not finite, or differs between devices, and nothing
                was written; or the disk is full, now or at the two previous saves.
        """
        self._wait_or_try_again(step)
        if self._latest is not None and step <= self._latest:
            return
        found = self._fit_to_save(step, state)
        self.note_evaluation(step, meta)
        meta = {**meta, "leaves": describe(state), "digests": found}
        with self._refusals():
            if self._first:
                self._layout.begin(step)
            wait = pytrees.start_saving(self._layout.writing(step) / "state", state)
        self._pending = step
        self._thread = threading.Thread(target=self._complete, args=(wait, step, meta))
        self._thread.start()

    def note_evaluation(self, step: int, meta: Mapping[str, Any]) -> None:
        """Sets the score of a step, for the choice of the best steps.

        If the step is already saved, its meta is not changed: the next process does not
        know this score.

        Args:
            step: steps done.
            meta: see `Retention.note_evaluation`.
        """
        if self._first:
            self._retention.note_evaluation(step, meta)

    def _wait_or_try_again(self, step: int) -> None:
        try:
            self.wait()
            self._was_full = False
        except UserError as error:
            alone = jax.process_count() == 1
            if self._was_full or not (alone and is_disk_full(error)):
                raise
            self._was_full = True
            self._say(f"note: a save failed, trying step {step} now: {error}")

    def _fit_to_save(self, step: int, state: TrainState) -> dict[str, str]:
        """The digests of a state; `UserError` if a run must not resume from it."""
        found = digests.measure(state)
        if paths := found.not_finite:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise UserError(
                f"{self._layout.path}: step {step} was not saved, {paths[0]}{more} is "
                f"not finite; {self.last_good()}: lower config.optimizer.learning_rate "
                "or clip_norm, in another --workdir"
            )
        if disagreement := digests.disagreement(found):
            path, index = disagreement
            raise UserError(
                f"{self._layout.path}: step {step} was not saved, the devices disagree "
                f"on {path} (process {index}); {self.last_good()}: run the same command "
                "again to resume, on other devices if this recurs"
            )
        return found.digests

    def _complete(
        self, wait: Callable[[], None], step: int, meta: Mapping[str, Any]
    ) -> None:
        """Runs in the background: finishes the step, then deletes what is not kept."""
        try:
            wait()
            if self._first:
                self._layout.complete(step, meta)
                self._retention.delete_surplus(step)
        except BaseException as error:  # noqa: BLE001 (raised by the next `wait`)
            self._error = error
            if self._first:
                self._layout.abandon(step)

    def wait(self) -> None:
        """Waits for the save in progress; `UserError` if it met a full disk."""
        self.close()
        if self._pending is not None:
            coordination.barrier("checkpoint written")
            self._latest, self._pending = self._pending, None

    def close(self) -> None:
        """As `wait`, but without a barrier: the other processes may fail before one."""
        with self._refusals():
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
        """Restores the newest intact step; moves damaged newer ones to `damaged/`.

        Args:
            target: shapes, types and shardings to restore into.
            check: called with a step and its meta before the state is read; raises
                `UserError` for a checkpoint of another run.

        Returns:
            (state, meta), or None if there is no step at all.

        Raises:
            UserError: all steps are damaged; or one cannot be read here although its
                files are intact.
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
            self._set_aside(damaged, step)
            self._latest = step
            return state, meta
        if not damaged:
            return None
        step, reason = next(iter(damaged.items()))
        raise UserError(
            f"{self._layout.path}: all {len(damaged)} checkpoints are damaged (step "
            f"{step}: {reason}): move the folder away to start from step 0"
        )

    def _steps(self) -> list[int]:
        """The complete steps that process 0 sees, on every process."""
        steps = self._layout.steps() if self._first else None
        return coordination.from_first("checkpoint steps", steps)

    def _read_meta(self, step: int) -> dict[str, Any]:
        """The meta of a step; `Damage` if process 0 finds its files changed."""
        judged: dict[str, Any] = {}
        if self._first:
            try:
                judged["meta"] = self._layout.read_checked(step)
            except Damage as damage:
                judged["damage"] = str(damage)
        judged = coordination.from_first("checkpoint judged", judged)
        if "damage" in judged:
            raise Damage(judged["damage"])
        return judged["meta"]

    def _read_state(
        self, step: int, target: TrainState, meta: Mapping[str, Any]
    ) -> TrainState:
        """The state of a step with intact files; `Damage` if its digests differ."""
        # Process 0 has fetched it to verify its files.
        folder = (self._layout.step if self._first else self._layout.fetch)(step)
        try:
            state = pytrees.restore(folder / "state", target)
        except Exception as error:
            raise UserError(
                f"{folder}: cannot be read ({pytrees.reason(error)}), its files are "
                "intact: fix the cause and run the same command again"
            ) from error
        path = digests.difference(meta["digests"], state)
        problem = f"{path} differs from what was saved" if path else ""
        if not path and int(state.step) != step:
            problem = f"it is step {int(state.step)}, copied or renamed"
        problems = coordination.gather("checkpoint problem", problem)
        if all(problems):
            raise Damage(problems[0])
        for index, text in enumerate(problems):
            if text:
                raise UserError(
                    f"{folder}: only process {index} cannot read it ({text}): check the "
                    "disk and memory of its machine"
                )
        return state

    def _set_aside(self, damaged: Mapping[int, str], good: int) -> None:
        """Moves damaged steps to `damaged/`, so that they can be written again."""
        for step, reason in damaged.items():
            place = self._layout.set_aside(step) if self._first else ""
            place = coordination.from_first("checkpoint aside", str(place))
            self._say(
                f"the checkpoint of step {step} is damaged ({reason}): moved to {place}, "
                f"resuming from step {good}"
            )

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        """Turns a full disk, seen here or in a thread of Orbax, into a `UserError`."""
        return refusals(self._layout.disk, self.last_good)

    def last_good(self) -> str:
        """For messages: the newest complete step."""
        newest = self._layout.newest()
        if newest is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is step {newest}"
