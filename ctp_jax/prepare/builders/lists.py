"""Reads split lists and assigns their entries to the videos that are there.

The formats of the lists are read by the builders. Imports no TensorFlow.
"""

import codecs
import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence

from ctp_jax import config, formatting
from ctp_jax.errors import UserError
from ctp_jax.prepare import repeated
from ctp_jax.prepare.builders import base, folders


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


def no_lists(folder: str, *needed: str) -> UserError:
    """The error for a folder without lists; `needed` are examples of file names."""
    return UserError(f"--lists={folder}: no list in it, needs {', '.join(needed)}, ...")


def list_files(folder: str) -> list[str]:
    """Names of the files in a folder of lists, sorted, without hidden ones."""
    try:
        return sorted(
            name for name in os.listdir(folder) if not folders.is_hidden(name)
        )
    except OSError as error:
        raise UserError(
            f"--lists={folder}: {error.strerror}: make it readable"
        ) from error


def read_text(path: str | os.PathLike) -> str:
    r"""The text of a list, without byte order mark, with Unix line ends.

    Bytes that are no UTF-8 become `\xe9`, as in the names of `folders.Folder`.

    Raises:
        UserError: a file that cannot be read as text.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{path}: not a file; needs a text file")  # a pipe may hang
        data = pathlib.Path(path).read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig", "backslashreplace")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{path}: {reason}; needs a readable text file") from error
    if "\0" in text:
        raise UserError(f"{path}: not a text file; needs one, in UTF-8")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | os.PathLike) -> list[tuple[str, str]]:
    """(`file:line`, text) of every line that is not blank; raises `UserError`."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(f"{path}:{i}", line.strip()) for i, line in lines if line.strip()]


def source_from_lists(
    videos: folders.Folder,
    splits: Mapping[str, Sequence[Entry]],
    class_names: Sequence[str] | None,
    options: base.Options,
    locate: Callable[[str], str | None] | None = None,
) -> base.Source:
    """The videos that the lists name, with their splits.

    Args:
        videos: those that are there.
        splits: the entries of every split.
        class_names: in the order of the labels; None: those of the entries, sorted.
        options: how to prepare.
        locate: by default `videos.locate`.

    Raises:
        UserError: videos that are not there or are listed twice.
    """
    locate = locate or videos.locate
    located = {entry: locate(entry.name) for v in splits.values() for entry in v}
    paths = {entry: path for entry, path in located.items() if path is not None}
    missing = [entry for entry in located if entry not in paths]
    if missing:
        names = sorted({entry.name for entry in missing})
        raise UserError(
            f"{missing[0].where}: {len(names)} of the {len({e.name for e in located})} "
            f"listed videos are not in {videos.where}: {formatting.some(names)}"
        )
    if class_names is None:
        class_names = sorted({entry.class_name for entry in paths} - {""})
    labels = {name: i for i, name in enumerate(class_names)} | {"": -1}
    seen: dict[tuple[str, str], Entry] = {}
    of_path: dict[str, Entry] = {}
    for split, entries in splits.items():
        number = repeated.numbering(split)
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
        videos.item(path, labels[of_path[path].class_name], options)
        for path in sorted(of_path)
    ]
    named = {s: [paths[entry] for entry in entries] for s, entries in splits.items()}
    return base.Source(items, named, class_names, notes=videos.notes)


def check_class(
    name: str, class_names: Collection[str], where: str, source: str
) -> None:
    """Raises `UserError` if the class read at `where` is not one of those of `source`."""
    if name not in class_names:
        raise UserError(
            f"{where}: class {name!r} is not in {source}, which has {len(class_names)}"
            + config.did_you_mean(name, class_names)
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
                f"{formatting.some(without)}"
            )
    return notes
