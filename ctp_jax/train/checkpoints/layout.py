"""The folders of a run's checkpoints: whole or not there, and looked over before use.

    <workdir>/checkpoints/<step>/state           arrays
    <workdir>/checkpoints/<step>/meta/metadata   JSON: leaves, digests, config, ...
    <workdir>/checkpoints/<step>/files.json      size and SHA-256 of every file
    <workdir>/checkpoints/<step>.writing         a save in progress, or one cut short
    <workdir>/checkpoints/<step>.deleting        a step that is being removed
    <workdir>/damaged/<step>                     what is not as it was saved, set aside

A step gets its name when everything in it is on the disk, and loses it before the first
file of it is deleted. What a killed process leaves half done goes when a run is opened.
"""

import hashlib
import json
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

from ctp_jax.errors import UserError
from ctp_jax.train.checkpoints import manifest
from ctp_jax.train.checkpoints.manifest import Damage

_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(r"[0-9]+\.(writing|deleting)")


class CheckpointLayout:
    """The checkpoints of one run as files. Only process 0 may change anything."""

    def __init__(self, workdir: pathlib.Path):
        self.path = workdir / "checkpoints"
        self._damaged = workdir / "damaged"

    def open(self) -> None:
        """Makes the folder and removes what a killed process has left half done."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(
                f"{self.path}: must be a folder, and is a file: move it away, or use "
                "another --workdir"
            ) from error
        for path in list(self.path.iterdir()):
            if _LEFTOVER.fullmatch(path.name):
                _remove(path)

    def steps(self) -> list[int]:
        """Complete steps, damaged or not, from the oldest to the newest."""
        if not self.path.is_dir():
            return []
        names = (path.name for path in self.path.iterdir())
        return sorted(int(name) for name in names if _STEP.fullmatch(name))

    def step(self, step: int) -> pathlib.Path:
        """The folder of a step."""
        return self.path / str(step)

    def writing(self, step: int) -> pathlib.Path:
        """The folder of a step as long as it is incomplete."""
        return self.path / f"{step}.writing"

    def begin(self, step: int) -> None:
        """An empty folder to write a step into."""
        _remove(self.writing(step))
        self.writing(step).mkdir()

    def complete(self, step: int, meta: Mapping[str, Any]) -> None:
        """Adds the meta and the list of files, and gives the step its name."""
        folder = self.writing(step)
        (folder / "meta").mkdir()
        text = json.dumps({**meta, "sha256": _sha256(meta)})
        (folder / "meta/metadata").write_text(text)
        manifest.write(folder)
        folder.rename(self.step(step))
        manifest.sync_folder(self.path)

    def abandon(self, step: int) -> None:
        """Removes an incomplete step: its room may be wanted."""
        shutil.rmtree(self.writing(step), ignore_errors=True)

    def read_meta(self, step: int) -> dict[str, Any]:
        """The meta of a step, unchecked but for itself.

        Raises:
            Damage: it is not what was written.
            UserError: it may not be read here.
        """
        with manifest.reading(self.step(step)):
            text = (self.step(step) / "meta/metadata").read_bytes()
        try:
            meta = dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise Damage("meta/metadata has changed") from error
        if meta.pop("sha256", "") != _sha256(meta):
            raise Damage("meta/metadata has changed")
        return meta

    def read_checked(self, step: int) -> dict[str, Any]:
        """The meta of a step whose files are all as they were written.

        Raises:
            Damage: a file has changed, is missing, or was not there.
            UserError: a file may not be read here.
        """
        manifest.check(self.step(step))
        return self.read_meta(step)

    def delete(self, step: int) -> None:
        """Removes a step; half removed it is none any more."""
        # What a reader on a network file system holds open goes at the next start.
        doomed = self.path / f"{step}.deleting"
        _remove(doomed)
        self.step(step).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def set_aside(self, step: int) -> pathlib.Path:
        """Moves a damaged step away; returns where it is then."""
        place, number = self._damaged / str(step), 0
        try:
            self._damaged.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise UserError(
                f"{self._damaged}: must be a folder, for damaged checkpoints, and is a "
                "file: move it away"
            ) from error
        while place.exists():
            number += 1
            place = self._damaged / f"{step}.{number}"
        self.step(step).rename(place)
        return place


def _sha256(meta: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in meta.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
