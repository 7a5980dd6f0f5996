"""Something-Something V1 from its folders of frames and official lists."""

import csv
import dataclasses
import functools
import os
import re

from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.prepare import frames
from ctp_jax.prepare.builders import base, folders, lists

FPS = 12.0
"""Rate at which the frames were extracted."""

PREFIX = "something-something-v1"
LISTS = {"train": "train", "val": "validation", "test": "test"}
"""Split: how its list is called."""


class SomethingSomethingV1(base.VideoBuilder):
    """Something-Something V1: 108,499 videos of 174 actions, as folders of JPEG files
    (12 frames per second, 100 pixels high). Files that are no larger than --short_side
    are stored as they are. Splits train, val and, if there is a list of it, test, whose
    videos have no labels (-1)."""

    CLASSES = 174
    DESCRIPTION = "Something-Something V1 action recognition, every video once."
    HOMEPAGE = "https://developer.qualcomm.com/software/ai-datasets/something-something"

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        values.string("videos", "", f"The unpacked 20bn-{PREFIX}.")
        values.string("lists", "", f"Folder with {PREFIX}-labels.csv, -train.csv, ...")

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        names, splits = read_lists(arguments.lists)
        folder = folders.check_folder("videos", arguments.videos, f"20bn-{PREFIX}")
        source = lists.source_from_lists(FrameFolders(folder), splits, names, options)
        return dataclasses.replace(source, notes=lists.empty_classes(splits, names))


class FrameFolders(folders.Folder):
    """The videos of a folder that has a folder of frames for each."""

    def __init__(self, where: str):
        """Lists the folders without reading them."""
        self.where, self.notes = where, []
        try:
            with os.scandir(where) as entries:
                self.paths = {e.name: e.name for e in entries if e.is_dir()}
        except OSError as error:
            raise UserError(
                f"--videos={where}: {error.strerror}: make it readable"
            ) from error

    def locate(self, name: str) -> str | None:
        """The name itself, None if there is no such folder."""
        return name if name in self.paths else None

    def item(self, name: str, label: int, options: base.Options) -> base.Item:
        """The item of one folder of frames."""
        encode = functools.partial(
            frames.encode_frames,
            os.path.join(os.path.abspath(self.where), name),
            FPS,
            options.short_side,
            options.quality,
        )
        return base.Item(name, label, encode)


def read_lists(folder: str) -> tuple[list[str], lists.Splits]:
    """Reads the class names, one per line, and lists of lines `id;class name`.

    Returns:
        (class names in the order of their file, entries of `train`, `val`, `test`).

    Raises:
        UserError: no folder, missing lists, or a list of another format.
    """
    folders.check_folder("lists", folder)
    names: list[str] = []
    labels_file = os.path.join(folder, f"{PREFIX}-labels.csv")
    for where, fields in _read(labels_file):
        if len(fields) != 1 or fields[0] in names:
            raise UserError(
                f"{where}: needs `class name`, each once, has `{';'.join(fields)}`"
            )
        names.append(fields[0])
    if not names:
        raise UserError(f"{labels_file}: is empty, needs a class name on every line")
    paths = {s: os.path.join(folder, f"{PREFIX}-{f}.csv") for s, f in LISTS.items()}
    splits = {
        split: _read_list(path, split == "test", names)
        for split, path in paths.items()
        if os.path.exists(path)
    }
    if not splits:
        raise lists.no_lists(folder, f"{PREFIX}-train.csv")
    return names, splits


def _read_list(path: str, is_test: bool, names: list[str]) -> list[lists.Entry]:
    entries = []
    for where, (name, *fields) in _read(path):
        labelled = len(fields) == 1 and fields[0] != ""
        unlabelled = is_test and fields in ([], [""])
        if not re.fullmatch(r"\w+", name) or not (labelled or unlabelled):
            wanted = "id" if is_test else "id;class name"
            raise UserError(
                f"{where}: needs `{wanted}`, has `{';'.join([name, *fields])}`"
            )
        if labelled:
            lists.check_class(fields[0], names, where, f"{PREFIX}-labels.csv")
        entries.append(lists.Entry(name, fields[0] if labelled else "", where))
    if not entries:
        raise UserError(f"{path}: is empty, needs a video on every line")
    return entries


def _read(path: str) -> list[tuple[str, list[str]]]:
    """(`file:line`, fields) of every line that is not blank.

    The official files have semicolons between fields and no quotes: commas and
    apostrophes are part of the class names. Quotes that spreadsheets add are removed.
    """
    return [
        (where, [folders.class_name(field.strip()) for field in fields])
        for where, line in lists.read_lines(path)
        for fields in csv.reader([line], delimiter=";")
    ]


Builder = SomethingSomethingV1
