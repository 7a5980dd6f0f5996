"""The checkpoint layout in a bucket, where no folder can be renamed.

The folders and files are those of `layout`. Orbax writes a step to this machine, where its
files are hashed; then they are copied to the bucket, `files.json` last: a step without it
is a save in progress or interrupted, or is being deleted. Such are deleted when a run opens
the folder.
"""

import itertools
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from ctp_jax.storage import bucket_lock, buckets
from ctp_jax.train.checkpoints import manifest
from ctp_jax.train.checkpoints.layout import STEP, CheckpointLayout


def open_layout(workdir: pathlib.Path) -> CheckpointLayout:
    """The layout of a workdir, on a disk or in a bucket."""
    checkpoints = buckets.at(workdir / "checkpoints")
    if checkpoints is None:
        return CheckpointLayout(workdir)
    return _BucketLayout(workdir, checkpoints)


class _BucketLayout(CheckpointLayout):
    """As its base. A step has a folder on this machine after `fetch` only."""

    def __init__(self, workdir: pathlib.Path, checkpoints: buckets.Folder):
        super().__init__(workdir)
        self._workdir, self._bucket = workdir, checkpoints
        self.disk = buckets.disk()

    def open(self) -> None:
        super().open()
        names = self._bucket.names()
        complete = {str(step) for step in _complete(names)}
        steps = {name: name.partition("/")[0] for name in names if "/" in name}
        self._bucket.delete(
            name
            for name, step in steps.items()
            if STEP.fullmatch(step) and step not in complete
        )

    def steps(self) -> list[int]:
        return _complete(self._bucket.names())

    def fetch(self, step: int) -> pathlib.Path:
        self._make_room()
        return buckets.fetch(self.step(step))

    def _make_room(self) -> None:
        """Deletes the copies of steps: a few of them would fill a small disk."""
        for path in list(self.path.glob("*")):
            if STEP.fullmatch(path.name):
                shutil.rmtree(path)

    def complete(self, step: int, meta: Mapping[str, Any]) -> None:
        # A bucket has no folders, so that an empty one would count as lost.
        for path in sorted(self.writing(step).rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        super().complete(step, meta)

    def _commit(self, step: int) -> None:
        self._check_lock()
        if step in self.steps():  # put there since the run opened the folder
            self.set_aside(step)
        self._make_room()
        folder = self.writing(step).rename(self.step(step))
        buckets.replace(folder, last=manifest.NAME, before=self._before_commit)
        shutil.rmtree(folder)

    def _before_commit(self) -> None:
        self._check_lock()
        buckets.push(self._workdir)  # whoever resumes from here needs these metrics
        self._check_lock()

    def _check_lock(self) -> None:
        """Before anything is changed that may be another run's by now."""
        bucket_lock.check(self._workdir)

    def read_checked(self, step: int) -> dict[str, Any]:
        self.fetch(step)
        return super().read_checked(step)

    def _read_meta(self, step: int) -> bytes:
        name = f"{step}/meta/metadata"
        found, _ = self._bucket.read(name)
        if found is None:
            raise buckets.lost(self.path / name)
        return found

    def delete(self, step: int) -> None:
        self._check_lock()
        names, mark = self._bucket.names(f"{step}/"), f"{step}/{manifest.NAME}"
        self._bucket.delete([mark])
        self._bucket.delete(name for name in names if name != mark)

    def set_aside(self, step: int) -> pathlib.Path:
        self._check_lock()
        folder, damaged = self.fetch(step), buckets.at(self._damaged)
        there = damaged.names() if damaged is not None else []
        taken = {name.partition("/")[0] for name in there}
        numbered = (f"{step}.{number}" for number in itertools.count(1))
        names = itertools.chain([str(step)], numbered)
        place = self._damaged / next(name for name in names if name not in taken)
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
        buckets.replace(place, last=manifest.NAME)
        shutil.rmtree(place)
        self.delete(step)
        return place


def _complete(names: list[str]) -> list[int]:
    """The complete steps among the objects of `checkpoints/`, oldest first."""
    marks = (name.removesuffix(f"/{manifest.NAME}") for name in names)
    pairs = zip(names, marks, strict=True)
    return sorted(
        int(step) for name, step in pairs if step != name and STEP.fullmatch(step)
    )
