"""Finds the videos below a folder, and among them those that a list names.

The *name* of a video is its path below the folder as text of one line: bytes that are no
UTF-8 and control characters are written `\\xe9`. So a name can be printed, hashed and
stored everywhere; only `Folder.paths` knows how the file system spells it.

Imports no TensorFlow.
"""

import collections
import functools
import os
import re
import unicodedata
from collections.abc import Mapping

from ctp_jax import formatting
from ctp_jax.errors import UserError
from ctp_jax.formatting import one_line
from ctp_jax.prepare import video
from ctp_jax.prepare.workers import Item, Options
from ctp_jax.storage.remote import absolute, is_remote, walk_store

_NOT_OF_THE_USER = frozenset(["__MACOSX", "@eaDir", "$RECYCLE.BIN"])
"""Folders that systems make for themselves; copies of files lie in them."""

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("val", "valid", "validate", "validation"), "val")
"""What folders and lists are called: the split."""


def split_of(folder: str) -> tuple[str, str]:
    """The split that a folder is named after, and the other words in its name.

    `Training`, `test01`, `val_256` and `trainset` have no other words, `videos_train` has
    `videos`. The split is empty if there is none.
    """
    words = [w.removesuffix("set") for w in re.findall(r"[^\W\d_]+", folder.casefold())]
    named = [word for word in words if word in SPLITS]
    others = " ".join(word for word in words if word not in named[-1:])
    return (SPLITS[named[-1]] if named else ""), others.strip()


def is_split(folder: str) -> bool:
    """Whether a folder is named after a split and nothing else."""
    split, others = split_of(folder)
    return bool(split) and not others


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or one that the system made for itself."""
    return name.startswith(".") or name in _NOT_OF_THE_USER


def fold(name: str) -> str:
    """Equal for two spellings of a name.

    They may differ in case, in how accents are composed (NFC on Linux, NFD on macOS), in
    how they are encoded (UTF-8 or Latin-1), and in the slash.
    """
    slashed = class_name(name).replace("\\", "/")
    return class_name(unicodedata.normalize("NFD", slashed).casefold())


def class_name(folder: str) -> str:
    """The class of a folder of this name: with composed accents, as Latin-1 if need be."""
    name = re.sub(r"\\x([a-f][0-9a-f])", lambda byte: chr(int(byte[1], 16)), folder)
    return unicodedata.normalize("NFC", name)


class Folder:
    """The videos below a folder; links to folders are followed, see `_search`.

    Attributes:
        where: the folder.
        paths: name of every video, sorted, and its path relative to the folder.
        notes: lines that say what was passed over.
    """

    def __init__(self, where: str):
        """Raises `UserError`: no such folder, or no video in it."""
        self.where = where
        if is_remote(where):
            files, left_out = _search_store(where), {}
        else:
            files, left_out = _search(check_folder("videos", where))
        self.notes = [
            f"{where}: passed over, {what} ({len(paths)}): {formatting.some(sorted(paths))}"
            for what, paths in left_out.items()
        ]
        self.paths: dict[str, str] = {}
        endings: collections.Counter[str] = collections.Counter()
        for name, path in sorted(files.items()):
            owner = self._owner(name, path)
            if owner and owner[0]:
                self.paths[owner[0]] = owner[1]
            elif not owner:
                ending = os.path.splitext(name)[1].lower()
                endings[ending or "without an ending"] += 1
        if endings:
            shown = [f"{number} {ending}" for ending, number in endings.most_common()]
            self.notes.append(
                f"{where}: passed over, without the ending of a video "
                f"({endings.total()}): {formatting.some(shown, 8)}"
            )
        if not self.paths:
            about = "".join(
                f"; {note.removeprefix(f'{where}: ')}" for note in self.notes
            )
            raise UserError(
                f"--videos={where}: needs videos in it{about}; endings of videos are "
                f"{', '.join(sorted(video.SUFFIXES))}"
            )

    def _owner(self, name: str, path: str) -> tuple[str, str] | None:
        """Name and relative path of the video that a file belongs to.

        Empty ones for a file that is no video but of use; None for any other.
        """
        is_video = os.path.splitext(name)[1].lower() in video.SUFFIXES
        return (name, path) if is_video else None

    def item(self, name: str, label: int, options: Options) -> Item:
        """The item of one video."""
        path = os.path.join(absolute(self.where), self.paths[name])
        encode = functools.partial(
            video.encode_video, path, options.short_side, options.quality
        )
        return Item(name, label, encode)

    def locate(self, name: str) -> str | None:
        """Name of a listed video; None if no file or more than one could be meant.

        A video is looked up by its name, then by the last parts of its path, as many as
        agree, without case and file name ending: the lists of UCF-101 write
        HandStandPushups where the files are called HandstandPushups, lists of other
        machines have other folders before it, and videos may be transcoded.
        """
        if name in self.paths:
            return name
        key = _key(name)
        while key:
            if found := self._by_ending.get(key):
                whole = [other for other in found if other.count("/") == key.count("/")]
                found = found if len(found) == 1 else whole
                return found[0] if len(found) == 1 else None
            key = key.partition("/")[2]
        return None

    @functools.cached_property
    def _by_ending(self) -> Mapping[str, list[str]]:
        """The videos whose key ends with these parts."""
        found = collections.defaultdict(list)
        for name in self.paths:
            key = _key(name)
            while key:
                found[key].append(name)
                key = key.partition("/")[2]
        return found


def _key(name: str) -> str:
    stem, suffix = os.path.splitext(fold(name))
    return stem if suffix in video.SUFFIXES else stem + suffix


def _search(top: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Searches a folder of a file system.

    A folder is entered once, however many links lead to it, and under its own path if
    it has one below `top`. Links to a folder around their own are not followed: they
    would lead to everything beside it.

    Returns:
        (name and relative path of every file that is not hidden, names of what else was
        passed over, by what it is).
    """
    files: dict[str, str] = {}
    left_out: dict[str, list[str]] = collections.defaultdict(list)
    real_top = os.path.realpath(top)
    folders, links, entered = [("", real_top)], [], set()
    while folders or links:
        where, real = folders.pop() if folders else links.pop(0)
        if real in entered:
            left_out["links to folders that are searched anyway"].append(text(where))
            continue
        entered.add(real)
        try:
            with os.scandir(os.path.join(top, where)) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            what = f"folders that cannot be read ({error.strerror})"
            left_out[what].append(text(where) or top)
            continue
        for entry in entries:
            if is_hidden(entry.name):
                continue
            path, kind = os.path.join(where, entry.name), _kind(entry)
            if kind == "file":
                files[_free(text(path), files)] = path
            elif kind != "folder":
                left_out[kind].append(text(path))
            elif not entry.is_symlink():
                folders.append((path, os.path.join(real, entry.name)))
            else:
                to = os.path.realpath(entry.path)
                around = any(_contains(to, folder) for folder in (real, real_top))
                links.append((path, real_top if around else to))
    return files, left_out


def _contains(outer: str, inner: str) -> bool:
    return f"{inner}/".startswith(f"{outer.rstrip('/')}/")


def _kind(entry: os.DirEntry) -> str:
    """'file', 'folder', or what else it is, in the plural."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        # A pipe or a socket would keep its reader waiting.
        there = os.path.exists(entry.path)
        return "neither files nor folders" if there else "broken links"
    except OSError as error:
        return f"links that cannot be followed ({error.strerror})"


def text(path: str) -> str:
    """The name of a path, see the top of this file."""
    return one_line(os.fsencode(path).decode("utf-8", "backslashreplace"))


def _free(name: str, taken: Mapping[str, str]) -> str:
    while name in taken:  # one file is called `\xe9`, the other has that byte
        name = f"_{name}"
    return name


def _search_store(top: str) -> dict[str, str]:
    """Name and path, relative to `top`, of every file of an object store."""
    paths = (
        f"{folder.removeprefix(top.rstrip('/'))}/{file}"[1:]
        for folder, files in walk_store(top)
        for file in files
    )
    return {one_line(p): p for p in paths if not any(map(is_hidden, p.split("/")))}


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
        what = "is a file" if os.path.exists(folder) else "no such folder"
        raise UserError(f"--{flag}={folder}: {what}: needs the folder of the {flag}")
    inner = os.path.join(folder, nested)
    return inner if nested and os.path.isdir(inner) else folder
