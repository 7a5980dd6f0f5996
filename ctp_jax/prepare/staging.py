"""The folder in which a data set is written until it is complete."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence

from etils import epath

from ctp_jax.errors import UserError
from ctp_jax.prepare import shards
from ctp_jax.storage import files, remote


@dataclasses.dataclass(frozen=True)
class Staging:
    """The folders of a preparation.

    Attributes:
        folder: of everything that is temporary.
        data: the data set while it is incomplete.
        receipts: of the shards (`shards.Order.receipt`).
        final: the place of the complete data set.
    """

    folder: str
    data: str
    receipts: str
    final: str

    def tidy(self, orders: Sequence[shards.Order]) -> None:
        """Removes files that do not belong to this preparation, metadata first."""
        expected = {path for order in orders for path in (order.file, order.receipt)}
        for place in (self.data, self.receipts):
            there = sorted(
                epath.Path(place).iterdir(), key=lambda p: p.suffix != ".json"
            )
            for path in there:
                if os.fspath(path) not in expected:
                    path.unlink()

    def kept(self, orders: Sequence[shards.Order]) -> int:
        """How many shards have a receipt."""
        return sum(shards.read(order) is not None for order in orders)

    def finish(self) -> None:
        """Flushes the complete data set to the disk and moves it to its final place."""
        if self.data != self.final:
            # Not after each shard, which would wait for the disk: a shard that is lost
            # in a power cut is detected by its checksum.
            with os.scandir(self.data) as entries:
                for entry in entries:
                    with open(entry.path, "rb") as file:
                        os.fsync(file.fileno())
            os.makedirs(os.path.dirname(self.final), exist_ok=True)
            if os.path.exists(self.final):
                os.rename(self.final, os.path.join(self.folder, "old"))
            os.rename(self.data, self.final)
        epath.Path(self.receipts).rmtree()


@contextlib.contextmanager
def staging(root: str, name: str, final: str) -> Iterator[Staging]:
    """The folders of a preparation, with the files that an earlier run left in them.

    They are removed at the end unless receipts are left. On a file system, the data set
    is written in a temporary folder, which is locked against other processes, and then
    moved. Object stores have no locks and move files by copying them: there the data set
    is written in its final place, and is valid once it has a `dataset_info.json`.

    Raises:
        UserError: another process is preparing the same data set, or the folder cannot
            be made.
    """
    if remote.is_remote(root):
        folder = f"{root}/.preparing_{name}"
        place = Staging(folder, final, f"{folder}/receipts", final)
        for path in (place.data, place.receipts):
            epath.Path(path).mkdir(parents=True, exist_ok=True)
        try:
            yield place
        finally:
            # An unreachable store must not hide the error that led here.
            with contextlib.suppress(Exception):
                _tidy_remote(place)
        return
    above = os.path.dirname(final)
    if os.path.exists(above) and os.stat(above).st_dev != os.stat(root).st_dev:
        raise UserError(
            f"{above}: is on another disk than {root}, and a complete data set is moved "
            "there: name a folder of that disk with --data_dir"
        )
    folder = os.path.join(os.path.abspath(root), f".preparing_{name}")
    place = Staging(folder, f"{folder}/data", f"{folder}/receipts", final)
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            busy = f"another process is preparing {name!r}"
            lock = files.locked(os.path.join(folder, "lock"), busy, "wait for it")
            stack.enter_context(lock)
        except OSError as error:
            raise UserError(
                f"--data_dir {root}: no data set can be made there ({error.strerror}): "
                "choose a writable folder"
            ) from error
        _remove_all_but(folder, "data", "receipts", "lock")
        try:
            os.makedirs(place.data, exist_ok=True)
            os.makedirs(place.receipts, exist_ok=True)
            yield place
        finally:
            if not os.path.exists(place.receipts) or not os.listdir(place.receipts):
                _remove_all_but(folder, "lock")
                shutil.rmtree(folder, ignore_errors=True)


def _tidy_remote(place: Staging) -> None:
    """Removes everything but the receipts, or everything if there are none."""
    receipts = epath.Path(place.receipts)
    if not receipts.exists() or not any(receipts.iterdir()):
        epath.Path(place.folder).rmtree()
        return
    for entry in epath.Path(place.folder).iterdir():
        if entry.name != receipts.name:
            entry.rmtree()


def _remove_all_but(folder: str, *names: str) -> None:
    for entry in os.listdir(folder):
        if entry not in names:
            shutil.rmtree(os.path.join(folder, entry), ignore_errors=True)
