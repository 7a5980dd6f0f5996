"""The checkpoint layout: folders that are complete or absent.

    <workdir>/checkpoints/<step>/state           arrays
    <workdir>/checkpoints/<step>/meta/metadata   JSON: step, leaves, digests, config, ...
    <workdir>/checkpoints/<step>/files.json      size and SHA-256 of every file
    <workdir>/checkpoints/<step>.writing         a save in progress or interrupted
    <workdir>/checkpoints/<step>.deleting        a step that is being deleted
    <workdir>/damaged/<step>                     a step that differs from what was saved

A step is committed by renaming `<step>.writing` once everything in it is on the disk. It is
renamed to `<step>.deleting` before its first file is deleted. Leftovers of a killed process
are deleted when a run opens the folder. `bucket_layout` has the same in a bucket.
"""

import json
import pathlib
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from ctp_jax.errors import UserError, shown
from ctp_jax.storage import untrusted
from ctp_jax.train.checkpoints import manifest
from ctp_jax.train.checkpoints.manifest import Damage

STEP = re.compile(r"0|[1-9][0-9]{0,8}")  # the state has 32 bits for it
_LEFTOVER = re.compile(r"[0-9]+\.(writing|deleting)")
_META = {"step": int, "sha256": str, "leaves": {str: str}, "digests": {str: str}}


class OtherStep(Damage):
    """A step that was copied or renamed: its folder has another number than its meta."""


class CheckpointLayout:
    """The checkpoint folders of one run. Only process 0 may change them.

    Attributes:
        path: of the folder.
        disk: for messages: where a full disk is full.
    """

    def __init__(self, workdir: pathlib.Path):
        self.path = workdir / "checkpoints"
        self._damaged = workdir / "damaged"
        self.disk: object = self.path

    def open(self) -> None:
        """Creates the folder and deletes leftovers of a killed process."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(
                f"{self.path}: is a file, must be a folder: move it away or use another "
                "--workdir"
            ) from error
        for path in list(self.path.iterdir()):
            if _LEFTOVER.fullmatch(path.name):
                _remove(path)

    def steps(self) -> list[int]:
        """Complete steps, damaged or not, oldest first."""
        if not self.path.is_dir():
            return []
        names = (path.name for path in self.path.iterdir())
        return sorted(int(name) for name in names if STEP.fullmatch(name))

    def newest(self) -> int | None:
        """The newest step; prints a line for each that was copied or renamed."""
        for step in reversed(self.steps()):
            try:
                self.read_meta(step)
            except OtherStep as other:
                line = shown(f"note: {self.step(step)}: {other}: ignored")
                print(line, file=sys.stderr)
                continue
            except (Damage, UserError):
                pass  # whoever reads it says so
            return step
        return None

    def step(self, step: int) -> pathlib.Path:
        """The folder of a step."""
        return self.path / str(step)

    def fetch(self, step: int) -> pathlib.Path:
        """The folder of a step, with its files on this machine."""
        return self.step(step)

    def writing(self, step: int) -> pathlib.Path:
        """The folder of a step until it is committed."""
        return self.path / f"{step}.writing"

    def begin(self, step: int) -> None:
        """Makes an empty folder to write a step into."""
        _remove(self.writing(step))
        self.writing(step).mkdir()

    def complete(self, step: int, meta: Mapping[str, Any]) -> None:
        """Adds meta and manifest, and commits the step."""
        folder = self.writing(step)
        (folder / "meta").mkdir()
        meta = {**meta, "step": step}
        text = json.dumps({**meta, "sha256": untrusted.json_digest(meta)})
        (folder / "meta/metadata").write_text(text)
        manifest.write(folder)
        self._commit(step)

    def _commit(self, step: int) -> None:
        if self.step(step).exists():  # put there since the run opened the folder
            self.set_aside(step)
        self.writing(step).rename(self.step(step))
        manifest.sync_folder(self.path)

    def abandon(self, step: int) -> None:
        """Deletes an uncommitted step, which may free space on a full disk."""
        shutil.rmtree(self.writing(step), ignore_errors=True)

    def read_meta(self, step: int) -> dict[str, Any]:
        """The meta of a step; verifies only the meta itself.

        Raises:
            OtherStep: it was written for another step.
            Damage: it differs from what was written.
            UserError: it cannot be read here, and is intact.
        """
        with manifest.reading(self.step(step)):
            text = self._read_meta(step)
        try:
            meta = untrusted.parse_json(text, _META)
        except ValueError as error:
            raise Damage("meta/metadata has changed") from error
        if meta["sha256"] != untrusted.json_digest(meta):
            raise Damage("meta/metadata has changed")
        if meta["step"] != step:
            raise OtherStep(f"it is step {meta['step']}, copied or renamed")
        return meta

    def _read_meta(self, step: int) -> bytes:
        return untrusted.read_bytes(self.step(step) / "meta/metadata")

    def read_checked(self, step: int) -> dict[str, Any]:
        """The meta of a step, after all its files have been fetched and verified.

        Raises:
            Damage: a file is changed, missing or additional.
            UserError: a file cannot be read here, and is intact.
        """
        manifest.check(self.step(step))
        return self.read_meta(step)

    def delete(self, step: int) -> None:
        """Deletes a step; if interrupted, `<step>.deleting` is left and no step."""
        # Files that a reader on a network file system holds open stay: the next start
        # deletes them.
        doomed = self.path / f"{step}.deleting"
        _remove(doomed)
        self.step(step).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def set_aside(self, step: int) -> pathlib.Path:
        """Moves a damaged step to `damaged/`; returns its new path."""
        place, number = self._damaged / str(step), 0
        try:
            self._damaged.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise UserError(
                f"{self._damaged}: is a file, must be a folder (for damaged "
                "checkpoints): move it away"
            ) from error
        while place.exists():
            number += 1
            place = self._damaged / f"{step}.{number}"
        self.step(step).rename(place)
        return place


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
