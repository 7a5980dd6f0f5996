"""Something-Something V1 from its folders of frames and official lists."""

import csv
import dataclasses
import functools
import os
import re

from absl import flags

from ctp_jax.errors import UserError
from ctp_jax.prepare import frames
from ctp_jax.prepare.builders import base, classes, lists

FPS = 12.0
"""At which the frames were extracted."""

PREFIX = "something-something-v1"
LISTS = {"train": "train", "val": "validation", "test": "test"}
"""Split: how its list is called."""


class SomethingSomethingV1(base.VideoBuilder, skip_registration=True):
    """Something-Something V1: 108,499 videos of 174 actions, as folders of JPEG files
    (12 frames per second, 100 pixels high). Files that are no larger than --short_side
    are stored as they are. Splits train, val and, where its list is there, test, which
    has no labels: its videos get -1."""

    CLASSES = 174
    DESCRIPTION = "Something-Something V1 action recognition, every video once."
    HOMEPAGE = "https://developer.qualcomm.com/software/ai-datasets/something-something"

    @classmethod
    def define_flags(cls, values: flags.FlagValues) -> None:
        flags.DEFINE_string(
            "videos", "", "The unpacked 20bn-something-something-v1.", values
        )
        flags.DEFINE_string(
            "lists", "", f"Folder with {PREFIX}-labels.csv, -train.csv, ...", values
        )

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        names, splits = read_lists(arguments.lists)
        lists.check_folder("videos", arguments.videos)
        nested = os.path.join(arguments.videos, f"20bn-{PREFIX}")
        folder = nested if os.path.isdir(nested) else arguments.videos
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries if entry.is_dir()}
        source = lists.source_from_lists(
            folder,
            splits,
            names,
            options,
            locate=lambda name: name if name in there else None,
            make_item=frames_item,
        )
        return dataclasses.replace(source, notes=classes.notes(splits, names))


def frames_item(folder: str, path: str, label: int, options: base.Options) -> base.Item:
    """The item of one folder of frames."""
    encode = functools.partial(
        frames.encode_frames,
        os.path.join(os.path.abspath(folder), path),
        FPS,
        options.short_side,
        options.quality,
    )
    return base.Item(path, label, encode)


def read_lists(folder: str) -> tuple[list[str], dict[str, list[lists.Entry]]]:
    """Reads the class names, one a line, and lists of lines `id;class name`.

    Returns:
        (class names in the order of their file, entries of `train`, `val`, `test`).

    Raises:
        UserError: no folder, missing lists, or a list of another format.
    """
    lists.check_folder("lists", folder)
    names: dict[str, str] = {}
    labels_file = os.path.join(folder, f"{PREFIX}-labels.csv")
    for where, fields in _read(labels_file):
        if len(fields) != 1 or fields[0] in names:
            reason = "is there already" if fields[0] in names else "needs `class name`"
            raise UserError(f"{where}: {reason}, has `{';'.join(fields)}`")
        names[fields[0]] = where
    if not names:
        raise UserError(f"{labels_file}: is empty, needs a class name on every line")
    splits = {}
    for split, file in LISTS.items():
        path = os.path.join(folder, f"{PREFIX}-{file}.csv")
        if os.path.exists(path):
            splits[split] = _read_list(path, split == "test", names)
    if not splits:
        raise UserError(
            f"--lists={folder}: no list in it, needs {PREFIX}-train.csv, ..."
        )
    return list(names), splits


def _read_list(path: str, is_test: bool, names: dict[str, str]) -> list[lists.Entry]:
    entries = []
    for where, fields in _read(path):
        labelled = len(fields) == 2 and fields[1] != ""
        unlabelled = is_test and fields[1:] in ([], [""])
        if not re.fullmatch(r"\w+", fields[0]) or not (labelled or unlabelled):
            wanted = "id" if is_test else "id;class name"
            raise UserError(f"{where}: needs `{wanted}`, has `{';'.join(fields)}`")
        if labelled:
            classes.check(fields[1], names, where, f"{PREFIX}-labels.csv")
        entries.append(lists.Entry(fields[0], fields[1] if labelled else "", where))
    if not entries:
        raise UserError(f"{path}: is empty")
    return entries


def _read(path: str) -> list[tuple[str, list[str]]]:
    """(`file:line`, fields) of every line that is not empty.

    The official files separate by semicolons and quote nothing: commas and apostrophes
    belong to the names. Spreadsheets put quotes around such names; they are removed.
    """
    lines = enumerate(lists.read_text(path).splitlines(), start=1)
    return [
        (f"{path}:{i}", [field.strip() for field in fields])
        for i, line in lines
        if line.strip()
        for fields in csv.reader([line.strip()], delimiter=";")
    ]


Builder = SomethingSomethingV1
