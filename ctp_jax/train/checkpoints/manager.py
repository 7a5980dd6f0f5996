"""The checkpoints of a run: saved in the background, checked when they are restored.

`pytrees` writes and reads the arrays; the folders and the other files of a step are
`layout`'s. A step is complete or not there, its files are compared with their list
before it is used, and what comes out of it with the digests of what went in.
"""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from ctp_jax.errors import UserError, is_disk_full
from ctp_jax.train.checkpoints import digests, pytrees
from ctp_jax.train.checkpoints.layout import CheckpointLayout
from ctp_jax.train.checkpoints.manifest import Damage
from ctp_jax.train.checkpoints.retention import Retention, RetentionPolicy
from ctp_jax.train.distributed import coordination
from ctp_jax.train.state import TrainState, describe


class Checkpoints:
    """The checkpoints of one run. Every process calls everything, in the same order."""

    def __init__(
        self,
        workdir: pathlib.Path,
        policy: RetentionPolicy,
        say: Callable[[str], None] = print,
    ):
        """Opens `<workdir>/checkpoints`, which need not exist.

        Args:
            workdir: an absolute path, the same on every process.
            policy: which steps stay.
            say: where to tell what a person should know.
        """
        self._layout, self._say = CheckpointLayout(workdir), say
        self._retention = Retention(policy, self._layout, say)
        self._first = jax.process_index() == 0
        self._thread: threading.Thread | None = None
        self._pending: int | None = None
        self._error: BaseException | None = None
        self._was_full = False  # at the save before, which was let pass
        with self._full_disk():
            if self._first:
                self._layout.open()
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
            meta: JSON; of the evaluation, what `note_evaluation` wants.

        Raises:
            UserError: the state is not finite, or not the same on all devices, and
                nothing was written; or the disk is full, now or for the two steps
                before.
        """
        self._wait_or_try_again(step)
        if self._latest is not None and step <= self._latest:
            return
        found = self._fit_to_save(step, state)
        self.note_evaluation(step, meta)
        meta = {**meta, "leaves": describe(state), "digests": found}
        with self._full_disk():
            if self._first:
                self._layout.begin(step)
            wait = pytrees.start_saving(self._layout.writing(step) / "state", state)
        self._pending = step
        self._thread = threading.Thread(target=self._complete, args=(wait, step, meta))
        self._thread.start()

    def note_evaluation(self, step: int, meta: Mapping[str, Any]) -> None:
        """Says how good a step is, of those that may stay for being the best.

        For a step that is saved already this lasts as long as the process: its meta
        stays as it is.

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
            self._say(f"note: a save failed, now step {step} is tried: {error}")

    def _fit_to_save(self, step: int, state: TrainState) -> dict[str, str]:
        """The digests of a state, or `UserError` if nobody should go on from it."""
        found = digests.examine(state)
        if paths := found.not_finite:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise UserError(
                f"{self._layout.path}: {paths[0]}{more} is not finite after step "
                f"{step}, which was not saved; {self.last_good()}: lower "
                "config.optimizer.learning_rate or clip_norm"
            )
        if odd := digests.disagreement(found):
            path, index = odd
            raise UserError(
                f"{self._layout.path}: the devices do not agree on {path} after step "
                f"{step} (process {index}), nothing saved; {self.last_good()}: run the "
                "same command again to go on from it, on other devices if it recurs"
            )
        return found.digests

    def _complete(
        self, wait: Callable[[], None], step: int, meta: Mapping[str, Any]
    ) -> None:
        """What happens in the background."""
        try:
            wait()
            if self._first:
                self._layout.complete(step, meta)
                self._retention.delete_surplus()
        except BaseException as error:  # noqa: BLE001 (raised where the run waits for it)
            self._error = error
            if self._first:
                self._layout.abandon(step)

    def wait(self) -> None:
        """Waits for the save in progress; raises `UserError` if it met a full disk."""
        self.close()
        if self._pending is not None:
            coordination.barrier("checkpoint written")
            self._latest, self._pending = self._pending, None

    def close(self) -> None:
        """As `wait`, but without meeting the others: they may end in another way."""
        with self._full_disk():
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
            self._set_aside(damaged, step)
            self._latest = step
            return state, meta
        if not damaged:
            return None
        step, reason = next(iter(damaged.items()))
        raise UserError(
            f"{self._layout.path}: none of {len(damaged)} checkpoints can be read (step "
            f"{step}: {reason}); move the folder away to start from step 0"
        )

    def _steps(self) -> list[int]:
        """As process 0 sees them, for all."""
        steps = self._layout.steps() if self._first else None
        return coordination.from_first("checkpoint steps", steps)

    def _read_meta(self, step: int) -> dict[str, Any]:
        """The meta of a step, if process 0 finds its files whole."""
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
        """The state of a step whose files are whole, if it is what was saved."""
        folder = self._layout.step(step)
        try:
            state = pytrees.restore(folder / "state", target)
        except Exception as error:
            # The files are those that were written.
            raise UserError(
                f"{folder}: cannot be read here, which is no damage: "
                f"{pytrees.reason(error)}; see to it that it can, and run the same "
                "command again"
            ) from error
        path = digests.difference(meta["digests"], state)
        problem = f"{path} is not what was saved" if path else ""
        problems = coordination.gather("checkpoint problem", problem)
        if all(problems):
            raise Damage(problems[0])
        for index, text in enumerate(problems):
            if text:
                raise UserError(
                    f"{folder}: process {index} cannot read it ({text}), and others can: "
                    "see to that machine's disks and memory"
                )
        return state

    def _set_aside(self, damaged: Mapping[int, str], good: int) -> None:
        """Moves damaged steps away, so that they can be written again."""
        for step, reason in damaged.items():
            place = self._layout.set_aside(step) if self._first else ""
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
                f"{self._layout.path}: the disk is full; {self.last_good()}: make room "
                "and run the same command again"
            ) from error

    def last_good(self) -> str:
        """Words for a message: which step is safe."""
        steps = self._layout.steps()
        if not steps:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is step {steps[-1]}"
