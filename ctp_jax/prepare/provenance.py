"""Records how a data set was prepared, and detects that flags or inputs differ."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from ctp_jax.prepare import shards, workers
from ctp_jax.storage import files, remote
from ctp_jax.versions import installed

FILE = "preparation.json"
"""Beside the shards: the flags, the versions of packages, a checksum of every shard."""

PLACES = ("videos", "lists", "train_list", "test_list")
"""Flags that are paths."""

NOT_PART_OF_IT = ("dataset", "name", "data_dir", "workers", "max_bad", "overwrite")
NOT_PART_OF_IT += ("beam_runner", "beam_options", "min_found")
"""Flags that do not change the contents of a data set."""


def versions() -> dict[str, str]:
    """Versions of the packages that decode, scale and encode."""
    return installed(("av", "pillow"))


def flags(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that decide the contents of a data set, with absolute paths."""
    return {
        flag: remote.absolute(value) if value and flag in PLACES else value
        for flag, value in arguments.items()
        if flag not in NOT_PART_OF_IT
    }


def _published(value: Any) -> Any:
    """A flag for `FILE`, which others may read: of a path, its last part and a digest.

    The digest still tells two paths apart, and is too short to find the path by it.
    """
    shown = files.without_folders(value)
    if shown == value:
        return value
    return f"{shown} (digest {hashlib.sha256(str(value).encode()).hexdigest()[:6]})"


def fingerprint(
    about: Mapping[str, Any], dealt: Sequence[Sequence[workers.Item]]
) -> str:
    """A digest of everything that decides the contents of the shards.

    Args:
        about: of types that JSON has.
        dealt: the items of every shard; the contents of video files are not read.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for items in dealt:
        digest.update(f"\n{len(items)}".encode())
        for item in items:
            digest.update(repr((item.id, item.label, _call(item.encode))).encode())
    return digest.hexdigest()


def _call(function: Any) -> tuple:
    """Names a function and its arguments, equally in every process."""
    if isinstance(function, functools.partial):
        named = sorted(function.keywords.items())
        return (*_call(function.func), function.args, named)
    return (function.__module__, function.__qualname__)


def write(
    directory: str | os.PathLike,
    arguments: Mapping[str, Any],
    made: Sequence[shards.Shard],
    digest: str = "",
) -> None:
    """Writes `FILE`; `digest` is that of `base.Source`."""
    about = {
        "flags": {k: _published(value) for k, value in flags(arguments).items()},
        "versions": versions(),
        "sha256": {shard.name: shard.sha256 for shard in made},
        "boxes": digest,
        "visible_frames": sum(shard.visible_frames for shard in made),
        "causes": np.sum([shard.causes for shard in made], axis=0).tolist(),
    }
    path = epath.Path(directory) / FILE
    path.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def read(directory: str | os.PathLike) -> dict[str, Any]:
    """What `write` wrote; no flags if there is no file. Raises `UserError`."""
    path = epath.Path(directory) / FILE
    if not path.exists():
        return {"flags": {}}
    remedy = "delete the file; what the data set was prepared from is not known then"
    return remote.read_json(path, remedy, {"flags": dict})


def differences(directory: str | os.PathLike, arguments: Mapping[str, Any]) -> str:
    """Flags whose values differ from those that the data set was prepared with.

    Returns:
        `--flag=value (now value, or none), ...`; empty if none differ, or if the data set
        has no record of its flags.
    """
    then, now = read(directory)["flags"], flags(arguments)
    # Flags that only one version of this package has are ignored.
    return ", ".join(
        f"--{flag}={then[flag]} (now {'none' if now[flag] == '' else now[flag]})"
        for flag in sorted(then.keys() & now.keys())
        if then[flag] != _published(now[flag])
    )
