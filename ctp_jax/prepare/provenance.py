"""What a data set was prepared from: to go on with the same, and to notice another."""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from ctp_jax.data import storage
from ctp_jax.prepare import shards, workers
from ctp_jax.versions import installed

FILE = "preparation.json"
"""Beside the shards: the flags, the versions of packages, a checksum of every shard."""

PLACES = ("videos", "lists", "train_list", "test_list")
"""Flags that are paths."""

NOT_PART_OF_IT = ("dataset", "name", "data_dir", "workers", "max_bad", "overwrite")
NOT_PART_OF_IT += ("beam_runner", "beam_options")
"""Flags that do not change what is made (or are the place where it is)."""


def versions() -> dict[str, str]:
    """Of the packages that decode, scale and encode."""
    return installed(("av", "pillow"))


def flags(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that say what is made, with absolute paths."""
    return {
        flag: storage.absolute(value) if value and flag in PLACES else value
        for flag, value in arguments.items()
        if flag not in NOT_PART_OF_IT
    }


def fingerprint(
    about: Mapping[str, Any], dealt: Sequence[Sequence[workers.Item]]
) -> str:
    """A digest of all that decides what the shards hold.

    Args:
        about: what can be written as JSON.
        dealt: the items of every shard. What a video's file holds is not looked at.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for items in dealt:
        digest.update(f"\n{len(items)}".encode())
        for item in items:
            digest.update(repr((item.id, item.label, _call(item.encode))).encode())
    return digest.hexdigest()


def _call(function: Any) -> tuple:
    """A function that is the same in every process, as far as it can be named."""
    if isinstance(function, functools.partial):
        named = sorted(function.keywords.items())
        return (*_call(function.func), function.args, named)
    return (function.__module__, function.__qualname__)


def write(
    directory: str | os.PathLike,
    arguments: Mapping[str, Any],
    made: Iterable[shards.Shard],
) -> None:
    """Writes `FILE`."""
    about = {
        "flags": flags(arguments),
        "versions": versions(),
        "sha256": {shard.name: shard.sha256 for shard in made},
    }
    path = epath.Path(directory) / FILE
    path.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def differences(directory: str | os.PathLike, arguments: Mapping[str, Any]) -> str:
    """How the flags differ from those that the data set was prepared with.

    Returns:
        `--flag=value (now value), ...`; empty if nothing does, or if it was prepared
        before flags were kept.
    """
    path = epath.Path(directory) / FILE
    if not path.exists():
        return ""
    then, now = json.loads(path.read_text())["flags"], flags(arguments)
    # A flag that only one version of this package knows is no difference.
    return ", ".join(
        f"--{flag}={then[flag]} (now {now[flag]})"
        for flag in sorted(then.keys() & now.keys())
        if then[flag] != now[flag]
    )
