"""UCF-101 from its videos and official lists."""

import os
import re
from collections.abc import Sequence

from absl import flags

from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base, lists


class Ucf101(base.VideoBuilder):
    """UCF-101: 13,320 videos of 101 actions, with its three official splits train01,
    test01, ..., test03. The videos may lie in class folders or in one folder."""

    CLASSES = 101
    DESCRIPTION = "UCF-101 action recognition, every video once, all three splits."
    HOMEPAGE = "https://www.crcv.ucf.edu/data/UCF101.php"

    @classmethod
    def define_flags(cls, values: flags.FlagValues) -> None:
        archive = "UCF101TrainTestSplits-RecognitionTask.zip"
        flags.DEFINE_string("videos", "", "The unpacked UCF101.rar.", values)
        flags.DEFINE_string("lists", "", f"The unpacked {archive}.", values)

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        names, splits = read_lists(arguments.lists)
        if names is None:
            raise lists.no_lists(arguments.lists, "classInd.txt")
        return lists.source_from_lists(arguments.videos, splits, names, options)


def read_lists(folder: str) -> tuple[list[str] | None, lists.Splits]:
    """Class names and lists of a folder with `trainlist01.txt`, `testlist01.txt`, ...

    Returns:
        (names of `classInd.txt`, None without that file; entries of `train01`, ...).

    Raises:
        UserError: no folder, no lists, or a list of another format.
    """
    folder = lists.check_folder("lists", folder, "ucfTrainTestlist")
    path = os.path.join(folder, "classInd.txt")
    class_names = read_class_index(path) if os.path.exists(path) else None
    splits = {}
    for file in sorted(os.listdir(folder)):
        match = re.fullmatch(r"(train|test|val)list(\d*)\.txt", file)
        if match:
            path = os.path.join(folder, file)
            splits[match[1] + match[2]] = read_list(path, class_names)
    if not splits:
        raise lists.no_lists(folder, "trainlist01.txt", "testlist01.txt")
    return class_names, splits


def read_class_index(path: str) -> list[str]:
    """Class names of `classInd.txt`: lines `1 Name`, counted from 1.

    Raises:
        UserError: another format.
    """
    names = []
    for where, line in lists.read_lines(path):
        match = re.fullmatch(rf"{len(names) + 1}\s+(\S+)", line)
        if not match:
            raise UserError(
                f"{where}: needs `{len(names) + 1} ClassName`, has `{line}`"
            )
        names.append(match[1])
    if not names:
        raise UserError(f"{path}: is empty, needs lines `1 ClassName`")
    return names


def read_list(path: str, class_names: Sequence[str] | None) -> list[lists.Entry]:
    """A split list: lines `Class/video.avi` or `Class/video.avi 1`.

    Args:
        path: of the list.
        class_names: the classes of numbers 1, 2, ...; None: the names of the folders
            are the classes, and numbers are ignored.

    Raises:
        UserError: another format, an unknown class, or a number that is not the one of
            the class.
    """
    spelling = {name.casefold(): name for name in class_names or ()}
    entries = []
    for where, line in lists.read_lines(path):
        match = re.fullmatch(r"((?:\S*/)?([^\s/]*)/[^\s/]*)(?:\s+(\d+))?", line)
        if not match:
            raise UserError(
                f"{where}: needs `Class/video.avi` or `Class/video.avi 1`, has `{line}`"
            )
        name, class_name, number = match.groups()
        if class_names is not None:
            class_name = spelling.get(class_name.casefold(), class_name)
            lists.check_class(class_name, class_names, where, "classInd.txt")
            expected = class_names.index(class_name) + 1
            if number and int(number) != expected:
                raise UserError(
                    f"{where}: class {class_name!r} has number {expected} in "
                    f"classInd.txt, not {number}: correct one of them"
                )
        entries.append(lists.Entry(name, class_name, where))
    return entries


Builder = Ucf101
