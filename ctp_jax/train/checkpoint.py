"""Checkpoints. The only module that imports Orbax.

    <workdir>/checkpoints/<step>/state   TrainState, one array per leaf
    <workdir>/checkpoints/<step>/meta    JSON: leaves, config, versions, log window
    <workdir>/damaged/<step>             what could not be read, set aside

Orbax writes a step under a temporary name and renames it when it is complete, so a
step that was cut short is never seen.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError
from ctp_jax.train import files
from ctp_jax.train.state import TrainState, describe


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, workdir: pathlib.Path, keep: int):
        """Opens `<workdir>/checkpoints`, which need not exist.

        Args:
            workdir: an absolute path, the same on every process.
            keep: how many of the newest steps to keep.
        """
        self._workdir = workdir
        self._directory = workdir / "checkpoints"
        with self._full_disk():
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep, cleanup_tmp_directories=True
                ),
                item_names=("state", "meta"),
            )

    def latest(self) -> int | None:
        """The newest complete step."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Writes a step in the background, once the one before is written.

        Returns when the state has been copied off the devices, so that it may be
        donated. Raises `UserError` if the disk is full, now or for the step before.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            meta=ocp.args.JsonSave({**meta, "leaves": describe(state)}),
        )
        with self._full_disk():
            self._manager.save(step, args=items)

    def wait(self) -> None:
        """Waits for the save in progress; raises `UserError` if it met a full disk."""
        with self._full_disk():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Stops the threads; what is being written is finished first."""
        with self._full_disk():
            self._manager.close()

    def restore(
        self,
        target: TrainState,
        check: Callable[[int, Mapping[str, Any]], None],
        say: Callable[[str], None] = print,
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest step that can be read.

        Args:
            target: shapes, types and shardings to restore into.
            check: called with a step and its meta before the state is read; raises
                `UserError` for a checkpoint of another run.
            say: where to tell that a step was set aside.

        Returns:
            (state, meta), or None where there is no step at all.

        Raises:
            UserError: there are steps, and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged = {}
        for step in steps:
            try:
                meta = self._read_meta(step)
                check(step, meta)
                state = self._read_state(step, target)
            except (UserError, PermissionError):
                raise
            except Exception as error:  # noqa: BLE001 (Orbax has no class for injured files)
                damaged[step] = _first_line(error)
                continue
            self._set_aside(damaged, step, say)
            return state, meta
        if not damaged:
            return None
        step, reason = next(iter(damaged.items()))
        raise UserError(
            f"{self._directory}: none of {len(damaged)} checkpoints can be read (step "
            f"{step}: {reason}); delete the folder to start from step 0"
        )

    def _read_meta(self, step: int) -> dict[str, Any]:
        read = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return self._manager.restore(step, args=read)["meta"]

    def _read_state(self, step: int, target: TrainState) -> TrainState:
        read = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return self._manager.restore(step, args=read)["state"]

    def _set_aside(self, damaged: Mapping[int, str], good: int, say) -> None:
        """Moves damaged steps away: Orbax would not save them again in their place."""
        for step, reason in damaged.items():
            place = self._workdir / "damaged" / str(step)
            number = 0
            while place.exists():
                number += 1
                place = place.with_name(f"{step}.{number}")
            if jax.process_index() == 0:
                place.parent.mkdir(exist_ok=True)
                (self._directory / str(step)).rename(place)
            say(
                f"checkpoint of step {step} cannot be read ({reason}): moved to "
                f"{place}, going on from step {good}"
            )
        if damaged:
            self._manager.reload()

    @contextlib.contextmanager
    def _full_disk(self) -> Iterator[None]:
        """Turns a full disk, met here or in a thread of Orbax, into a `UserError`."""
        try:
            yield
        except Exception as error:
            if not files.is_disk_full(error):
                raise
            raise UserError(
                f"{self._directory}: the disk is full; {self.last_good()}: make room "
                "and run the same command again"
            ) from error

    def last_good(self) -> str:
        """Words for a message: which step is safe."""
        with contextlib.suppress(Exception):
            self._manager.reload()
            step = self._manager.latest_step()
            if step is not None:
                return f"the last good checkpoint is step {step}"
        return "there is no checkpoint yet"


def read_newest(workdir: pathlib.Path, target: TrainState) -> TrainState | None:
    """The newest complete step of a run, which may be writing the next one.

    Args:
        workdir: an absolute path; nothing in it is changed.
        target: shapes, types and shardings to restore into.

    Raises:
        UserError: the checkpoint cannot be read into the target.
    """
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        return None
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(
        directory, options=options, item_names=("state", "meta")
    ) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        read = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        try:
            return manager.restore(step, args=read)["state"]
        except Exception as error:
            raise UserError(
                f"{directory}: step {step} cannot be read into the network of this "
                f"config ({_first_line(error)})"
            ) from error


def read_arrays(
    workdir: pathlib.Path, step: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A step of a run as NumPy arrays, whatever its network, and its meta.

    Args:
        workdir: an absolute path; nothing in it is changed.
        step: None for the newest.

    Raises:
        UserError: there is no such step, or it cannot be read.
    """
    directory = workdir / "checkpoints"
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(
        directory, options=options, item_names=("state", "meta")
    ) as manager:
        steps = manager.all_steps()
        if not steps or step not in (None, *steps):
            if not steps:
                raise UserError(
                    f"{workdir}: no weights there, neither encoder/ nor a checkpoint; give "
                    "a run that has trained"
                )
            known = ", ".join(map(str, sorted(steps)))
            raise UserError(f"{directory}: no step {step}; there are: {known}")
        step = max(steps) if step is None else step
        try:
            read = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta = manager.restore(step, args=read)["meta"]
            return load_arrays(directory / str(step) / "state"), meta
        except Exception as error:
            raise UserError(
                f"{directory}: step {step} cannot be read ({_first_line(error)})"
            ) from error


def check_same_run(
    workdir: pathlib.Path,
    step: int,
    meta: Mapping[str, Any],
    target: TrainState,
    config: ConfigDict,
    say: Callable[[str], None] = print,
) -> None:
    """Raises `UserError` unless a checkpoint can be continued with this config."""
    changed, length = config_lib.sort_differences(
        config_lib.differences(meta["config"], config)
    )
    if "task" in changed:  # everything else differs, too
        changed = {"task": changed["task"]}
    fields = ", ".join(f"{name} {text}" for name, text in changed.items())
    stored, wanted = meta["leaves"], describe(target)
    for path in dict.fromkeys([*wanted, *stored]):
        there, here = stored.get(path, "absent"), wanted.get(path, "absent")
        if there != here:
            why = f"; the config differs in {fields}" if fields else ""
            raise UserError(
                f"{workdir}: the checkpoint of step {step} is of another architecture: "
                f"{path} is {there} there, {here} here{why}; use another --workdir"
            )
    if changed:
        raise UserError(
            f"{workdir}: the run there has another config: {fields}; set it back, or "
            "use another --workdir"
        )
    for name, text in length.items():
        say(f"config.{name}: {text}, from step {step} on")


def save_arrays(path: pathlib.Path, tree: Any) -> None:
    """Writes a tree of arrays and waits for it. `path` must not exist."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def load_arrays(path: pathlib.Path) -> Any:
    """Reads what `save_arrays` wrote, as NumPy arrays, wherever it was written."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        # NumPy targets, so that the devices it was saved from need not be here.
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
        return checkpointer.restore(path, empty)


def _first_line(error: Exception) -> str:
    """Why a step cannot be read, in a few words."""
    if "NOT_FOUND" in str(error) or isinstance(error, FileNotFoundError):
        return "files are missing"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 120 else lines[0][:117] + "..."
