"""HMDB-51 from its videos and official lists."""

import os
import re

from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.prepare.builders import base, folders, lists


class Hmdb51(base.VideoBuilder):
    """HMDB-51: 6,766 videos of 51 actions, with its three official splits train01,
    test01, ..., test03. The videos may lie in class folders or in one folder."""

    CLASSES = 51
    DESCRIPTION = "HMDB-51 action recognition, every video once, all three splits."
    HOMEPAGE = "https://serre.lab.brown.edu/hmdb51.html"

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        values.string("videos", "", "The unpacked hmdb51_org.rar.")
        values.string("lists", "", "The unpacked test_train_splits.rar.")

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        splits = read_lists(arguments.lists)
        videos = folders.Folder(arguments.videos)
        return lists.source_from_lists(videos, splits, None, options)


def read_lists(folder: str) -> lists.Splits:
    """Reads `<class>_test_split<N>.txt`, lines `video.avi 0|1|2`.

    Returns:
        Entries of train01, test01, ..., and of `unused01`, ... if a split leaves videos
        out.

    Raises:
        UserError: no folder, no lists, or a list of another format.
    """
    folder = folders.check_folder("lists", folder, "testTrainMulti_7030_splits")
    splits: lists.Splits = {}
    for file in lists.list_files(folder):
        match = re.fullmatch(r"(.+)_test_split(\d)\.txt", file)
        if not match:
            continue
        class_name, number = match.groups()
        for where, line in lists.read_lines(os.path.join(folder, file)):
            fields = re.fullmatch(r"(.+?)\s+([012])", line)
            if not fields:
                raise UserError(f"{where}: needs `video.avi 0|1|2`, has `{line}`")
            if folders.is_hidden(fields[1]):
                continue
            use = ("unused", "train", "test")[int(fields[2])]
            entry = lists.Entry(f"{class_name}/{fields[1]}", class_name, where)
            splits.setdefault(f"{use}0{number}", []).append(entry)
    if not splits:
        raise lists.no_lists(folder, "brush_hair_test_split1.txt")
    return splits


Builder = Hmdb51
