"""Any folder of videos."""

import functools

from absl import flags

from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base, lists


class VideoFolder(base.VideoBuilder, skip_registration=True):
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
        text("train_list", "", "One list, split `train`.")
        text("test_list", "", "One list, split `test`.")
        flags.DEFINE_float(
            "test_share",
            0.1,
            "Of each class, without lists.",
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
        single = {split: path for split, path in single.items() if path}
        if arguments.lists and single:
            raise UserError(
                "--lists and --train_list or --test_list: needs one of them"
            )
        if arguments.lists:
            names, splits = lists.read_ucf_folder(arguments.lists)
            return lists.source_from_lists(folder, splits, names, options)
        if single:
            splits = {s: lists.read_ucf_list(p, None) for s, p in single.items()}
            return lists.source_from_lists(folder, splits, None, options)
        if arguments.test_share >= 1:
            raise UserError(f"--test_share={arguments.test_share}: must be below 1")
        paths = lists.find_videos(folder)
        class_names, labels = [], dict.fromkeys(paths, -1)
        if not arguments.unlabelled and any("/" in path for path in paths):
            astray = [path for path in paths if "/" not in path]
            if astray:
                raise UserError(
                    f"{folder}: {len(astray)} videos lie beside the class folders, the "
                    f"first is {astray[0]}: move them, or pass --unlabelled"
                )
            class_names = sorted({path.split("/")[0] for path in paths})
            numbers = {name: i for i, name in enumerate(class_names)}
            labels = {path: numbers[path.split("/")[0]] for path in paths}
        return base.Source(
            [lists.folder_item(folder, p, labels[p], options) for p in paths],
            lists.split_by_hash(labels, arguments.test_share),
            class_names,
        )


Builder = VideoFolder
