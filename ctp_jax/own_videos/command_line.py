"""What commands that read many videos share: their flags, their videos, the network."""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from absl.flags import FlagHolder
from ml_collections import ConfigDict

from ctp_jax.errors import UserError, placed
from ctp_jax.flags import Flags
from ctp_jax.prepare import frames as image_folders
from ctp_jax.prepare import video as videos
from ctp_jax.prepare.builders import folders

if TYPE_CHECKING:
    from ctp_jax import encoder as encoder_lib


class CommonFlags(NamedTuple):
    """Those of commands that read many videos."""

    init_from: FlagHolder[str]
    batch_size: FlagHolder[int]
    workers: FlagHolder[int]


def define_flags(flag_values: Flags) -> CommonFlags:
    """Defines them."""
    init_from = flag_values.string(
        "init_from",
        "",
        "The network: a workdir, a checkpoint, an encoder that was exported or "
        "converted, or hf://OWNER/NAME.",
    )
    batch_size = flag_values.integer(
        "batch_size",
        0,
        "Clips that are computed at once; 0: 8 on CPUs, 64 on accelerators.",
        lower_bound=0,
    )
    workers = flag_values.integer(
        "workers", 0, "Threads that decode; 0: one per core.", lower_bound=0
    )
    return CommonFlags(init_from, batch_size, workers)


def find_videos(arguments: Sequence[str]) -> list[pathlib.Path]:
    """The videos that a command was given: files, and all that lie in folders.

    A folder of numbered images without videos is a video itself.

    Raises:
        UserError: nothing was given, a path is not there, or a folder holds no videos.
    """
    if not arguments:
        raise UserError("no VIDEO is given: name files, or folders of them")
    found: list[pathlib.Path] = []
    for each in arguments:
        path = pathlib.Path(each).expanduser()
        if not path.exists():
            raise UserError(f"{each}: no such file or folder: check the path")
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = folders.Folder(os.fspath(path))
        except UserError as error:
            if _is_video(path):
                found.append(path)
                continue
            raise UserError(str(error).removeprefix("--videos=")) from error
        for note in inside.notes:
            print(f"note: {note}", file=sys.stderr)
        found += [path / name for name in inside.paths.values()]
    return list(dict.fromkeys(found))


def _is_video(folder: pathlib.Path) -> bool:
    try:
        return bool(image_folders.list_frames(folder, None))
    except videos.VideoError:
        return False


def load_encoder(init_from: str) -> "encoder_lib.Encoder":
    """The encoder that --init_from names; `UserError` for one of optical flow."""
    from ctp_jax import encoder as encoder_lib

    with placed("--init_from"):
        found = encoder_lib.load_encoder(init_from)
    check_rgb(found.config, init_from)
    return found


def check_rgb(config: ConfigDict, init_from: str) -> None:
    """Raises `UserError` for a network that was trained on optical flow."""
    if config.get("data", {}).get("stream", "rgb") == "flow":
        raise UserError(
            f"--init_from={init_from}: was trained on optical flow, which videos do not "
            "store: name a run on RGB"
        )


def say_bad(video: str, reason: str) -> None:
    """A line about a file that cannot be read."""
    print(f"bad: {video}: {reason}", file=sys.stderr, flush=True)
