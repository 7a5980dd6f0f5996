"""Where a data set grows until it is whole: a folder beside its final place."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence

from etils import epath

from ctp_jax import files
from ctp_jax.data import storage
from ctp_jax.errors import UserError, causes, is_disk_full
from ctp_jax.prepare import shards


@dataclasses.dataclass(frozen=True)
class Staging:
    """The folders of a preparation.

    Attributes:
        folder: of all that is kept until the data set is whole.
        data: of the data set while it grows.
        receipts: of the shards (`shards.Order.receipt`).
        final: where the data set goes.
    """

    folder: str
    data: str
    receipts: str
    final: str

    def tidy(self, orders: Sequence[shards.Order]) -> None:
        """Removes what does not belong to this preparation, metadata first."""
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
        """Puts the whole data set into its final place, when it is on the disk."""
        if self.data != self.final:
            # Not shard by shard: the work would wait for the disk, and a shard that a
            # power cut has taken is noticed by its checksum.
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
    """The folders to prepare in, with what an earlier run has left in them.

    They are removed in the end if no receipt of a shard is left. On a file system the
    data set grows in a folder of its own, locked against other processes, and moves as a
    whole. In an object store to move is to copy, and there is no lock: there it grows in
    its final place, where it counts as a data set once it has a `dataset_info.json`, and
    which stays.

    Raises:
        UserError: another process is preparing the same data set, or the folder cannot
            be made.
    """
    if storage.is_remote(root):
        folder = f"{root}/.preparing_{name}"
        place = Staging(folder, final, f"{folder}/receipts", final)
        for path in (place.data, place.receipts):
            epath.Path(path).mkdir(parents=True, exist_ok=True)
        try:
            yield place
        finally:
            # What led here matters more than a store that cannot be reached now.
            with contextlib.suppress(Exception):
                _tidy_remote(place)
        return
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
                f"--data_dir {root}: no data set can be made there ({error.strerror})"
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
    """Leaves the receipts, or nothing; orders for Beam's workers are written anew."""
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


def disk_trouble(error: BaseException, folder: str, kept: str) -> UserError | None:
    """One line for a full disk or a folder that cannot be written, else None.

    Args:
        error: what was raised.
        folder: of the preparation.
        kept: what is left of it.
    """
    if is_disk_full(error):
        return UserError(
            f"{folder}: the disk or its quota is full; {kept}: free some space and run "
            "the same command again, or choose another --data_dir"
        )
    for cause in causes(error):
        if isinstance(cause, (PermissionError, NotADirectoryError)):
            return UserError(f"{cause.filename or folder}: {cause.strerror}")
    return None
