"""HMDB-51 from its videos and official lists."""

import os
import re

from absl import flags

from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base, lists


class Hmdb51(base.VideoBuilder, skip_registration=True):
    """HMDB-51: 6,766 videos of 51 actions, with its three official splits train01,
    test01, ..., test03. The videos may lie in class folders or in one folder."""

    CLASSES = 51
    DESCRIPTION = "HMDB-51 action recognition, every video once, all three splits."
    HOMEPAGE = "https://serre.lab.brown.edu/hmdb51.html"

    @classmethod
    def define_flags(cls, values: flags.FlagValues) -> None:
        flags.DEFINE_string(
            "videos", "", "The unpacked hmdb51_org.rar.", flag_values=values
        )
        flags.DEFINE_string(
            "lists", "", "The unpacked test_train_splits.rar.", flag_values=values
        )

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        splits = read_lists(arguments.lists)
        return lists.source_from_lists(arguments.videos, splits, None, options)


def read_lists(folder: str) -> dict[str, list[lists.Entry]]:
    """Reads `<class>_test_split<N>.txt`, lines `video.avi 0|1|2`.

    Returns:
        Entries of train01, test01, ..., and of `unused01`, ... for what a split leaves
        out, where it does.

    Raises:
        UserError: no folder, no lists, or a list of another format.
    """
    if not folder:
        raise UserError("--lists is missing: the folder of the split files")
    if not os.path.isdir(folder):
        raise UserError(f"--lists={folder}: no such folder")
    nested = os.path.join(folder, "testTrainMulti_7030_splits")
    folder = nested if os.path.isdir(nested) else folder
    splits: dict[str, list[lists.Entry]] = {}
    for file in sorted(os.listdir(folder)):
        match = re.fullmatch(r"(.+)_test_split(\d)\.txt", file)
        if not match:
            continue
        class_name, number = match[1], f"0{match[2]}"
        for where, words in lists.read_lines(os.path.join(folder, file)):
            if len(words) != 2 or words[1] not in ("0", "1", "2"):
                raise UserError(
                    f"{where}: needs `video.avi 0|1|2`, has `{' '.join(words)}`"
                )
            use = {"0": "unused", "1": "train", "2": "test"}[words[1]]
            entry = lists.Entry(f"{class_name}/{words[0]}", class_name, where)
            splits.setdefault(use + number, []).append(entry)
    if not splits:
        raise UserError(
            f"--lists={folder}: no list in it, needs brush_hair_test_split1.txt, ..."
        )
    return splits


Builder = Hmdb51
