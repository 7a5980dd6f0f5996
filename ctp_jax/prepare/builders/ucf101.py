"""UCF-101 from its videos and official lists."""

from absl import flags

from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base, lists


class Ucf101(base.VideoBuilder, skip_registration=True):
    """UCF-101: 13,320 videos of 101 actions, with its three official splits train01,
    test01, ..., test03. The videos may lie in class folders or in one folder."""

    CLASSES = 101
    DESCRIPTION = "UCF-101 action recognition, every video once, all three splits."
    HOMEPAGE = "https://www.crcv.ucf.edu/data/UCF101.php"

    @classmethod
    def define_flags(cls, values: flags.FlagValues) -> None:
        flags.DEFINE_string(
            "videos", "", "The unpacked UCF101.rar.", flag_values=values
        )
        flags.DEFINE_string(
            "lists",
            "",
            "The unpacked UCF101TrainTestSplits-RecognitionTask.zip.",
            flag_values=values,
        )

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        if not arguments.lists:
            raise UserError("--lists is missing: the folder ucfTrainTestlist")
        names, splits = lists.read_ucf_folder(arguments.lists)
        if names is None:
            raise UserError(f"--lists={arguments.lists}: no classInd.txt in it")
        return lists.source_from_lists(arguments.videos, splits, names, options)


Builder = Ucf101
