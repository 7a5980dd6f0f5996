"""Finds videos in folders and assigns them to the entries of split lists.

The formats of the lists are read by the builders. Imports no TensorFlow.
"""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence

from ctp_jax import config
from ctp_jax.data.storage import absolute, is_remote, walk
from ctp_jax.errors import UserError
from ctp_jax.prepare import video
from ctp_jax.prepare.builders import base


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of a split list.

    Attributes:
        name: of the video.
        class_name: empty if the video is unlabelled.
        where: `file:line`.
    """

    name: str
    class_name: str
    where: str


Splits = dict[str, list[Entry]]


def find_videos(folder: str) -> list[str]:
    """Paths of the videos below a folder, relative to it, with `/`, sorted.

    Raises:
        UserError: no such folder, or no video in it.
    """
    if not is_remote(folder):
        check_folder("videos", folder)
    found = []
    for parent, folders, files in walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        where = pathlib.PurePath(os.path.relpath(parent, folder))
        for file in files:
            if os.path.splitext(file)[1].lower() in video.SUFFIXES and file[0] != ".":
                found.append((where / file).as_posix())
    if not found:
        raise UserError(
            f"--videos={folder}: needs videos in it, with one of the file name endings "
            + ", ".join(sorted(video.SUFFIXES))
        )
    return sorted(found)


def check_folder(flag: str, folder: str, nested: str = "") -> str:
    """The folder of `--videos` or `--lists`, or the one in it that archives unpack to.

    Args:
        flag: its name, for the messages.
        folder: its value.
        nested: name of the folder in an archive.

    Raises:
        UserError: no such folder.
    """
    if not folder:
        raise UserError(f"--{flag} is missing: needs the folder of the {flag}")
    if not os.path.isdir(folder):
        raise UserError(f"--{flag}={folder}: no such folder: needs that of the {flag}")
    inner = os.path.join(folder, nested)
    return inner if nested and os.path.isdir(inner) else folder


def no_lists(folder: str, *needed: str) -> UserError:
    """The error for a folder without lists; `needed` are examples of file names."""
    return UserError(f"--lists={folder}: no list in it, needs {', '.join(needed)}, ...")


def read_text(path: str | os.PathLike) -> str:
    """The text of a list, without byte order mark, with Unix line ends.

    Raises:
        UserError: a file that cannot be read as text.
    """
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(
            f"{path}: {reason}; needs a readable UTF-8 text file"
        ) from error


def read_lines(path: str | os.PathLike) -> list[tuple[str, str]]:
    """(`file:line`, text) of every line that is not blank; raises `UserError`."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(f"{path}:{i}", line.strip()) for i, line in lines if line.strip()]


def source_from_lists(
    folder: str,
    splits: Mapping[str, Sequence[Entry]],
    class_names: Sequence[str] | None,
    options: base.Options,
    locate: Callable[[str], str | None] | None = None,
    make_item: Callable[..., base.Item] | None = None,
) -> base.Source:
    """The videos that the lists name, with their splits.

    Args:
        folder: of the videos.
        splits: the entries of every split.
        class_names: in the order of the labels; None: those of the entries, sorted.
        options: how to prepare.
        locate: returns the path of a listed name, None if there is no such file; by
            default `Folder(folder).locate`.
        make_item: by default `folder_item`; called with the same arguments.

    Raises:
        UserError: videos that are not there or are listed twice.
    """
    locate, make_item = locate or Folder(folder).locate, make_item or folder_item
    located = {entry: locate(entry.name) for v in splits.values() for entry in v}
    paths = {entry: path for entry, path in located.items() if path is not None}
    missing = [entry for entry in located if entry not in paths]
    if missing:
        names = sorted({entry.name for entry in missing})
        raise UserError(
            f"{missing[0].where}: {len(names)} of the {len({e.name for e in located})} "
            f"listed videos are not in {folder}: {some(names)}"
        )
    if class_names is None:
        class_names = sorted({entry.class_name for entry in paths} - {""})
    labels = {name: i for i, name in enumerate(class_names)} | {"": -1}
    seen: dict[tuple[str, str], Entry] = {}
    of_path: dict[str, Entry] = {}
    for split, entries in splits.items():
        # train01 and test01 must differ; train01 and train02 may share videos.
        number = split.lstrip("abcdefghijklmnopqrstuvwxyz")
        for entry in entries:
            path = paths[entry]
            before = seen.setdefault((number, path), entry)
            if before is not entry:
                raise UserError(
                    f"{entry.where}: {entry.name} is listed already at {before.where}: "
                    "remove one of the lines"
                )
            first = of_path.setdefault(path, entry)
            if first.class_name != entry.class_name:
                raise UserError(
                    f"{entry.where}: class of {entry.name} is {entry.class_name!r} here "
                    f"and {first.class_name!r} at {first.where}: correct one of them"
                )
    items = [
        make_item(folder, path, labels[of_path[path].class_name], options)
        for path in sorted(of_path)
    ]
    named = {s: [paths[entry] for entry in entries] for s, entries in splits.items()}
    return base.Source(items, named, class_names)


def some(names: Sequence[str]) -> str:
    """The first three names."""
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def folder_item(folder: str, path: str, label: int, options: base.Options) -> base.Item:
    """The item of one video file below the folder."""
    encode = functools.partial(
        video.encode_video,
        os.path.join(absolute(folder), path),
        options.short_side,
        options.quality,
    )
    return base.Item(path, label, encode)


class Folder:
    """Finds listed videos in a folder, however they were unpacked.

    A video is looked up by its path, then by its path without case and file name
    ending, then by its file name alone: the lists of UCF-101 write HandStandPushups
    where the files are called HandstandPushups, and videos may be transcoded.
    """

    def __init__(self, folder: str):
        """Raises `UserError`: no such folder, or no video in it."""
        self._exact = set(find_videos(folder))
        self._loose: dict[str, list[str]] = collections.defaultdict(list)
        self._names: dict[str, list[str]] = collections.defaultdict(list)
        for path in self._exact:
            self._loose[_key(path)].append(path)
            self._names[_key(path).rpartition("/")[2]].append(path)

    def locate(self, name: str) -> str | None:
        """Path of a listed video; None if no file or more than one could be meant."""
        if name in self._exact:
            return name
        key = _key(name)
        for found in (self._loose.get(key), self._names.get(key.rpartition("/")[2])):
            if found and len(found) == 1:
                return found[0]
        return None


def _key(path: str) -> str:
    stem, suffix = os.path.splitext(path)
    return (stem if suffix.lower() in video.SUFFIXES else path).casefold()


def check_class(
    name: str, class_names: Collection[str], where: str, source: str
) -> None:
    """Raises `UserError` if the class read at `where` is not one of those of `source`."""
    if name not in class_names:
        like = config.closest(name, class_names)
        raise UserError(
            f"{where}: class {name!r} is not in {source}, which has {len(class_names)}"
            + (f"; did you mean {like!r}?" if like else "")
        )


def empty_classes(splits: Splits, class_names: Sequence[str]) -> list[str]:
    """A note for `train` and for `val` if some classes have no video in it."""
    notes = []
    for split in ("train", "val"):
        used = {entry.class_name for entry in splits.get(split, ())}
        without = [name for name in class_names if name not in used]
        if split in splits and without:
            notes.append(
                f"{split}: {len(without)} of {len(class_names)} classes have no video: "
                f"{some(without)}"
            )
    return notes
