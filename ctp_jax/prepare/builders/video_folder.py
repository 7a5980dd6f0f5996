"""Any folder of videos."""

import collections
import functools
import hashlib
from collections.abc import Mapping

from absl import flags

from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base, lists, ucf101


class VideoFolder(base.VideoBuilder):
    """Any folder of videos: DIR/CLASS/VIDEO with the folders as classes, or DIR/VIDEO
    without labels. It is split by lists in the format of UCF-101, or else by a hash
    of the file names into `train` and `test`."""

    DESCRIPTION = "A folder of videos."

    @classmethod
    def define_flags(cls, values: flags.FlagValues) -> None:
        text = functools.partial(flags.DEFINE_string, flag_values=values)
        text("videos", "", "The folder.")
        text(
            "lists",
            "",
            "Folder with trainlist01.txt, testlist01.txt, ... and classInd.txt; the "
            "splits are called train01, test01, ...; unlisted videos are left out.",
        )
        text("train_list", "", "A single list, for the split `train`.")
        text("test_list", "", "A single list, for the split `test`.")
        flags.DEFINE_float(
            "test_share",
            0.1,
            "Share of each class for `test`, below 1; if there are no lists.",
            flag_values=values,
            lower_bound=0,
        )
        flags.DEFINE_boolean(
            "unlabelled", False, "The folders are not classes.", flag_values=values
        )

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        folder = arguments.videos
        single = {"train": arguments.train_list, "test": arguments.test_list}
        splits = {s: ucf101.read_list(p, None) for s, p in single.items() if p}
        if arguments.lists and splits:
            raise UserError(
                f"--lists={arguments.lists} and --train_list or --test_list: needs one "
                "of them"
            )
        names = None
        if arguments.lists:
            names, splits = ucf101.read_lists(arguments.lists)
        if splits:
            return lists.source_from_lists(folder, splits, names, options)
        if arguments.test_share >= 1:
            raise UserError(f"--test_share={arguments.test_share}: must be below 1")
        paths = lists.find_videos(folder)
        class_names, labels = [], dict.fromkeys(paths, -1)
        if not arguments.unlabelled and any("/" in path for path in paths):
            outside = [path for path in paths if "/" not in path]
            if outside:
                raise UserError(
                    f"{folder}: {len(outside)} videos lie beside the class folders, the "
                    f"first is {outside[0]}: move them, or pass --unlabelled"
                )
            class_names = sorted({path.split("/")[0] for path in paths})
            numbers = {name: i for i, name in enumerate(class_names)}
            labels = {path: numbers[path.split("/")[0]] for path in paths}
        return base.Source(
            [lists.folder_item(folder, p, labels[p], options) for p in paths],
            split_by_hash(labels, arguments.test_share),
            class_names,
        )


def split_by_hash(labels: Mapping[str, int], test_share: float) -> dict[str, list[str]]:
    """Splits each class into `train` and `test` by the hashes of the videos' names.

    Args:
        labels: class of every video.
        test_share: in [0, 1); unless 0, `test` has at least one video of every class
            that has two.
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


Builder = VideoFolder
