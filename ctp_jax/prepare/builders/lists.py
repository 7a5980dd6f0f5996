"""Folders of videos and the lists that split them. No TensorFlow."""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from ctp_jax.data.storage import absolute, is_remote, walk
from ctp_jax.errors import UserError
from ctp_jax.prepare import video
from ctp_jax.prepare.builders import base


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of a split list: which video, its class name, and `file:line`.

    Without a class name the video is unlabelled.
    """

    name: str
    class_name: str
    where: str


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
        where = pathlib.PurePath(os.path.relpath(parent, folder)).as_posix()
        where = "" if where == "." else f"{where}/"
        for file in files:
            if os.path.splitext(file)[1].lower() in video.SUFFIXES and file[0] != ".":
                found.append(where + file)
    if not found:
        raise UserError(
            f"--videos={folder}: no video in it (looked for "
            f"{', '.join(sorted(video.SUFFIXES))})"
        )
    return sorted(found)


def check_folder(flag: str, folder: str) -> None:
    """Raises `UserError` if the folder of `--videos` or `--lists` is not there."""
    if not folder:
        raise UserError(f"--{flag} is missing: the folder of the {flag}")
    if not os.path.isdir(folder):
        raise UserError(f"--{flag}={folder}: no such folder")


def read_text(path: str | os.PathLike) -> str:
    """The text of a list, without a byte order mark, with Unix line ends.

    Raises:
        UserError: a file that cannot be read as text.
    """
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{path}: {reason}") from error


def read_lines(path: str | os.PathLike) -> list[tuple[str, list[str]]]:
    """(`file:line`, words) of every line that is not empty; raises `UserError`."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(f"{path}:{i}", line.split()) for i, line in lines if line.strip()]


def read_class_index(path: str | os.PathLike) -> list[str]:
    """Class names of a UCF-101 `classInd.txt`: lines `1 Name`, counted from 1.

    Raises:
        UserError: another format.
    """
    names = []
    for where, words in read_lines(path):
        if len(words) != 2 or words[0] != str(len(names) + 1):
            raise UserError(
                f"{where}: needs `{len(names) + 1} ClassName`, has `{' '.join(words)}`"
            )
        names.append(words[1])
    if not names:
        raise UserError(f"{path}: is empty, needs lines `1 ClassName`")
    return names


def read_ucf_list(
    path: str | os.PathLike, class_names: Sequence[str] | None
) -> list[Entry]:
    """A UCF-101 split list: lines `Class/video.avi` or `Class/video.avi 1`.

    Args:
        path: of the list.
        class_names: the class of number 1, 2, ...; None: the folders say it all.

    Raises:
        UserError: another format, an unknown class, a number that contradicts the
            folder.
    """
    known = {name.casefold(): name for name in class_names or ()}
    entries = []
    for where, words in read_lines(path):
        *name, number = (
            words if words[-1].isdigit() and len(words) > 1 else [*words, ""]
        )
        folder, slash, _ = " ".join(name).rpartition("/")
        class_name = folder.split("/")[-1]
        if not slash or len(name) != 1:
            raise UserError(
                f"{where}: needs `Class/video.avi` or `Class/video.avi 1`, has "
                f"`{' '.join(words)}`"
            )
        if class_names is not None:
            class_name = known.get(class_name.casefold())
            if class_name is None:
                raise UserError(
                    f"{where}: class {folder!r} is not in classInd.txt, which has "
                    f"{', '.join(class_names[:5])}, ..."
                )
            if number and class_names.index(class_name) + 1 != int(number):
                raise UserError(
                    f"{where}: class {folder!r} has number "
                    f"{class_names.index(class_name) + 1} in classInd.txt, not {number}"
                )
        entries.append(Entry(name[0], class_name, where))
    return entries


def read_ucf_folder(folder: str) -> tuple[list[str] | None, dict[str, list[Entry]]]:
    """Class names and lists of a folder with `trainlist01.txt`, `testlist01.txt`, ...

    Returns:
        (names of `classInd.txt`, None without one; entries of `train01`, ...).

    Raises:
        UserError: no folder, no lists, or a list of another format.
    """
    if not os.path.isdir(folder):
        raise UserError(f"--lists={folder}: no such folder")
    nested = os.path.join(folder, "ucfTrainTestlist")
    folder = nested if os.path.isdir(nested) else folder
    path = os.path.join(folder, "classInd.txt")
    class_names = read_class_index(path) if os.path.exists(path) else None
    splits = {}
    for file in sorted(os.listdir(folder)):
        match = re.fullmatch(r"(train|test|val)list(\d*)\.txt", file)
        if match:
            path = os.path.join(folder, file)
            splits[match[1] + match[2]] = read_ucf_list(path, class_names)
    if not splits:
        raise UserError(
            f"--lists={folder}: no list in it, needs trainlist01.txt, testlist01.txt, ..."
        )
    return class_names, splits


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
        folder: where the videos are.
        splits: the entries of every split.
        class_names: in the order of the labels; None: those of the entries, sorted.
        options: how to prepare.
        locate: gives the path of an entry's name, None if it is not there; by default
            `Folder(folder).locate`.
        make_item: called as `folder_item`, which is the default.

    Raises:
        UserError: videos that are not there or are listed twice.
    """
    locate, make_item = locate or Folder(folder).locate, make_item or folder_item
    paths = {entry: locate(entry.name) for v in splits.values() for entry in v}
    missing = sorted({entry.name for entry, path in paths.items() if path is None})
    if missing:
        first = next(e for e, path in paths.items() if path is None)
        raise UserError(
            f"{first.where}: {len(missing)} of the {len({e.name for e in paths})} listed "
            f"videos are not in {folder}: {some(missing)}"
        )
    _check_twice(splits, paths)
    if class_names is None:
        class_names = sorted({entry.class_name for entry in paths} - {""})
    labels = {name: i for i, name in enumerate(class_names)} | {"": -1}
    classes = {}
    for entry, path in paths.items():
        if classes.setdefault(path, entry.class_name) != entry.class_name:
            raise UserError(
                f"{entry.where}: {entry.name} is {entry.class_name} here and "
                f"{classes[path]} in another list"
            )
    items = [
        make_item(folder, path, labels[classes[path]], options)
        for path in sorted(classes)
    ]
    named = {s: [paths[entry] for entry in entries] for s, entries in splits.items()}
    return base.Source(items, named, class_names)


def _check_twice(splits, paths) -> None:
    """Raises for a video twice in a list, or in both the train and test list."""
    seen: dict[tuple[str, str], Entry] = {}
    for split, entries in splits.items():
        round_ = re.sub(r"^\D+", "", split)
        for entry in entries:
            before = seen.setdefault((round_, paths[entry]), entry)
            if before is not entry:
                raise UserError(
                    f"{entry.where}: {entry.name} is listed already at {before.where}"
                )


def some(names: Sequence[str]) -> str:
    """The first three names."""
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def folder_item(folder: str, path: str, label: int, options: base.Options) -> base.Item:
    """The item of one video file."""
    encode = functools.partial(
        video.encode_video,
        os.path.join(absolute(folder), path),
        options.short_side,
        options.quality,
    )
    return base.Item(path, label, encode)


class Folder:
    """Finds listed videos on disk, however they were unpacked.

    A video is looked for by its path, then without regard to case and file name
    ending, then by its file name alone: the lists of UCF-101 spell HandStandPushups
    where the files spell HandstandPushups, and people re-encode.
    """

    def __init__(self, folder: str):
        """Raises `UserError`: no such folder, or no video in it."""
        self.paths = find_videos(folder)
        self._exact = set(self.paths)
        self._loose = self._by(lambda path: _key(path))
        self._names = self._by(lambda path: _key(path).rpartition("/")[2])

    def _by(self, key) -> dict[str, list[str]]:
        table = collections.defaultdict(list)
        for path in self.paths:
            table[key(path)].append(path)
        return table

    def locate(self, name: str) -> str | None:
        """Path of a listed video, None if it is not there or could be several."""
        if name in self._exact:
            return name
        key = _key(name)
        for table in (self._loose.get(key), self._names.get(key.rpartition("/")[2])):
            if table and len(table) == 1:
                return table[0]
        return None


def _key(path: str) -> str:
    stem, suffix = os.path.splitext(path)
    return (stem if suffix.lower() in video.SUFFIXES else path).casefold()


def split_by_hash(labels: Mapping[str, int], test_share: float) -> dict[str, list[str]]:
    """Deals videos into `train` and `test`, class by class, by the hash of their names.

    Args:
        labels: class of every video.
        test_share: in [0, 1): at least one video of every class that has two, unless
            it is 0.
    """
    classes = collections.defaultdict(list)
    for name, label in labels.items():
        classes[label].append(name)
    train, test = [], []
    for names in classes.values():
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        count = round(test_share * len(names))
        if test_share and len(names) > 1:
            count = min(max(count, 1), len(names) - 1)
        test += names[:count]
        train += names[count:]
    return {"train": sorted(train), "test": sorted(test)}
