"""Exported encoders, from which other runs start.

<workdir>/encoder/arrays         {'params': ..., 'batch_stats': ...[, 'head': ...]}
<workdir>/encoder/encoder.json   format, architecture, head_task, digests, provenance,
                                 and sha256, a digest of all that

Encoders are published, so of paths in the provenance only the last part is written.

The head is the rest of the task's network. Other tasks do not use it, but it is needed to
evaluate or convert the finished network.
"""

import dataclasses
import datetime
import functools
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax

from ctp_jax.errors import UserError, shown
from ctp_jax.storage import buckets, files, untrusted
from ctp_jax.tasks.base import Task
from ctp_jax.train import workdir as workdir_lib
from ctp_jax.train.checkpoints import digests, pytrees
from ctp_jax.train.checkpoints.manifest import Damage
from ctp_jax.train.distributed import coordination

FORMAT = 2
_SHAPE = {
    "format": int,
    "architecture": {"name": str},
    "head_task": str,
    "digests": {str: str},
    "provenance": dict,
    "sha256": str,
}
_PROVENANCE = {"config": dict, "steps": int, "metrics": dict}
_PROVENANCE |= {"class_names": [str], "head_classes": [str]}


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An exported encoder, on the host.

    Attributes:
        params: NumPy arrays by name.
        batch_stats: NumPy arrays by name; may be empty.
        architecture: builds the network (see `Task.encoder`).
        head: parameters of the task's head, or None.
        head_task: name of the task of the head, '' without a head.
        provenance: its origin: task, data, config, steps, versions, metrics.
        path: the folder it was read from.
    """

    params: Any
    batch_stats: Any
    architecture: dict[str, Any]
    head: Any
    head_task: str
    provenance: dict[str, Any]
    path: str

    def without_head(self) -> "Encoder":
        """The encoder alone."""
        return dataclasses.replace(self, head=None, head_task="")


def export_encoder(
    workdir: pathlib.Path, task: Task, state: Any, provenance: Mapping[str, Any]
) -> pathlib.Path:
    """Replaces `<workdir>/encoder` atomically; returns its path.

    Every process calls this, with the same shared workdir.
    """
    params, batch_stats, architecture = task.encoder(state.variables)
    place = workdir / "encoder"
    write_encoder(
        place,
        Encoder(
            params=params,
            batch_stats=batch_stats,
            architecture=architecture,
            head=task.head(state.variables),
            head_task=str(task.config.task),
            provenance=dict(provenance),
            path=str(place),
        ),
    )
    return place


def write_encoder(place: pathlib.Path, encoder: Encoder) -> None:
    """Writes an encoder to the folder `place`, replacing what is there atomically.

    Every process calls this. `encoder.path` is ignored.
    """
    new, old = (place.with_name(f".{place.name}.{n}") for n in ("new", "old"))
    first = jax.process_index() == 0
    if first:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
    coordination.barrier("export begins")
    arrays = {"params": encoder.params, "batch_stats": encoder.batch_stats}
    if encoder.head is not None:
        arrays["head"] = encoder.head
    found = digests.measure(arrays).digests
    pytrees.save(new / "arrays", arrays)
    if first:
        now = datetime.datetime.now(datetime.UTC)
        about = {
            "format": FORMAT,
            "architecture": encoder.architecture,
            "head_task": encoder.head_task if encoder.head is not None else "",
            "digests": found,
            "provenance": {
                "date": now.isoformat(timespec="seconds"),
                **{
                    name: value
                    if name in ("class_names", "head_classes")
                    else files.without_folders(value)
                    for name, value in encoder.provenance.items()
                },
            },
        }
        about["sha256"] = untrusted.json_digest(about)
        workdir_lib.write_json(new / "encoder.json", about)
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        # A run with an encoder is finished: its last metrics are there before.
        push = functools.partial(buckets.push, place.parent)
        buckets.replace(place, last="encoder.json", before=push)
    coordination.barrier("export ends")


def load_encoder(path: str | pathlib.Path) -> Encoder:
    """Reads an exported encoder, given its folder or the workdir that holds it.

    Raises:
        UserError: there is none, or it is damaged.
    """
    given = buckets.opened(path)
    if not given.exists():
        raise UserError(
            f"{path}: no such folder: name a workdir, a checkpoint or an exported encoder"
        )
    place = given if (given / "encoder.json").exists() else given / "encoder"
    if not (place / "encoder.json").exists():
        raise UserError(
            f"{path}: neither an exported encoder nor a workdir with one (no encoder.json): "
            "let its run finish, which exports one, or correct the path"
        )
    about = read_about(place)
    try:
        arrays = pytrees.load(buckets.fetch(place / "arrays"))
        params, batch_stats = arrays["params"], arrays["batch_stats"]
        untrusted.check_shape(arrays, {str: dict})
        if path := digests.difference(about["digests"], arrays):
            raise Damage(path)
    except UserError:
        raise
    except Exception as error:  # Orbax raises many kinds for damaged files
        raise UserError(
            f"{place}: the arrays of the encoder are missing or damaged: delete the "
            "folder and run the command of its run again to export it anew"
        ) from error
    return Encoder(
        params=params,
        batch_stats=batch_stats,
        architecture=about["architecture"],
        head=arrays.get("head"),
        head_task=about["head_task"],
        provenance=about["provenance"],
        path=shown(place),
    )


def read_about(place: pathlib.Path) -> dict[str, Any]:
    """The contents of `encoder.json` in the folder of an encoder.

    Raises:
        UserError: it is missing, damaged, or of another version of this package.
    """
    path = place / "encoder.json"
    again = "delete the folder and export or convert it again"
    about = untrusted.read_json(path, f"damaged: {again}", {"format": int})
    if about["format"] != FORMAT:
        raise UserError(
            f"{path}: has format {about['format']}, this version of ctp_jax reads format "
            f"{FORMAT}: {again}, or use the version that wrote it"
        )
    try:
        untrusted.check_shape(about, _SHAPE)
        for name in _PROVENANCE.keys() & about["provenance"].keys():
            untrusted.check_shape(about["provenance"][name], _PROVENANCE[name], name)
        if about["sha256"] != untrusted.json_digest(about):
            raise ValueError("it is not as it was written")
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}): {again}") from error
    return about
