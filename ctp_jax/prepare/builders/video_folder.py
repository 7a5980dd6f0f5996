"""Any folder of videos."""

import collections
import hashlib
import types
import unicodedata
from collections.abc import Mapping

from ctp_jax import formatting
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.prepare.builders import base, folders, lists, ucf101

TEST_SHARE = 0.1


class VideoFolder(base.VideoBuilder):
    """Any folder of videos: DIR/CLASS/VIDEO with the folders as classes, or DIR/VIDEO
    without labels. It is split by lists in the format of UCF-101; or as its folders say,
    DIR/train/CLASS/VIDEO or DIR/CLASS/train/VIDEO; or else by a hash of the file names
    into `train` and `test`."""

    DESCRIPTION = "A folder of videos."
    MAX_BAD = 0.5
    CONFIG = "configs/small.py"

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        values.string("videos", "", "The folder.")
        values.string(
            "lists",
            "",
            "Folder with trainlist01.txt, testlist01.txt, ... and classInd.txt; the "
            "splits are called train01, test01, ...; unlisted videos are left out.",
        )
        values.string("train_list", "", "A single list, for the split `train`.")
        values.string("test_list", "", "A single list, for the split `test`.")
        values.number(
            "test_share",
            TEST_SHARE,
            "Share of each class for `test`, below 1; if there are no lists.",
            lower_bound=0,
        )
        values.boolean("unlabelled", False, "The folders are not classes.")

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        single = {"train": arguments.train_list, "test": arguments.test_list}
        files, class_names = {s: path for s, path in single.items() if path}, None
        if arguments.lists and files:
            raise UserError(
                f"--lists={arguments.lists} and --train_list or --test_list: needs one "
                "of them"
            )
        if arguments.unlabelled and (arguments.lists or files):
            raise UserError(
                "--unlabelled: is for folders, lists say the classes: leave one out"
            )
        if arguments.test_share != TEST_SHARE and (arguments.lists or files):
            raise UserError(
                f"--test_share={arguments.test_share}: is for folders, lists say what is "
                "for testing: leave one out"
            )
        if arguments.lists:
            files, class_names = ucf101.find_lists(arguments.lists)
        videos = cls.find(arguments)
        if not files:
            return source_from_folders(videos, arguments, options)
        splits = ucf101.read_splits(files, class_names, videos.locate)
        return lists.source_from_lists(videos, splits, class_names, options)

    @classmethod
    def find(cls, arguments: types.SimpleNamespace) -> folders.Folder:
        """The videos that are there."""
        return folders.Folder(arguments.videos)


def source_from_folders(
    videos: folders.Folder, arguments: types.SimpleNamespace, options: base.Options
) -> base.Source:
    """The videos, with splits and classes by their folders. Raises as `read_folders`."""
    if arguments.test_share >= 1:
        raise UserError(f"--test_share={arguments.test_share}: must be below 1")
    found = read_folders(videos, arguments.unlabelled)
    class_names = sorted({class_name for _, class_name in found.values()} - {""})
    numbers = {name: i for i, name in enumerate(class_names)} | {"": -1}
    labels = {name: numbers[class_name] for name, (_, class_name) in found.items()}
    splits = collections.defaultdict(list)
    for name, (split, _) in found.items():
        splits[split].append(name)
    notes = list(videos.notes)
    outside = [name for name, label in labels.items() if label < 0]
    if outside and class_names:
        notes.append(
            f"{videos.where}: beside the class folders, without a label, "
            f"{formatting.count(len(outside), 'video')}, the first is {outside[0]}: "
            "pretraining uses them; to finetune, "
            "move them into class folders, or pass --unlabelled to ignore all classes"
        )
    if "" in splits:
        splits = split_by_hash(labels, arguments.test_share)
        if arguments.test_share == TEST_SHARE:  # perhaps nobody chose it
            notes.append(
                f"{videos.where}: its folders name no splits, so {TEST_SHARE:.0%} of the "
                "videos, chosen by their names, are held out as `test` (--test_share)"
            )
    elif "test" not in splits:
        notes.append(
            f"{videos.where}: its folders have no split `test`, on which configs evaluate "
            f"by default: name one of {', '.join(sorted(splits))}, as test=..., or write "
            "test= to evaluate on no videos"
        )
    items = [videos.item(name, label, options) for name, label in labels.items()]
    return base.Source(items, splits, class_names, notes=notes)


def read_folders(
    videos: folders.Folder, unlabelled: bool
) -> dict[str, tuple[str, str]]:
    """The split and the class of every video by its folders, empty if there is none.

    Splits are read from the outermost or the second folders, if all of these are named
    after splits. The class is the first of the other folders.

    Args:
        videos: see `folders.Folder`.
        unlabelled: the folders are not classes.

    Raises:
        UserError: some of the class folders are named after splits, others are not.
    """
    inside = {name: name.split("/")[:-1] for name in videos.paths}
    splits = dict.fromkeys(inside, "")
    for level in (0, 1):
        at = {name: (*path, "", "")[level] for name, path in inside.items()}
        found = {folder: folders.split_of(folder) for folder in at.values()}
        called, rest = ({pair[i] for pair in found.values()} for i in (0, 1))
        # videos_train and videos_val; but not training_dog and test_drive.
        if all(called) and len(rest) == 1 and (len(called) > 1 or rest == {""}):
            splits = {name: found[folder][0] for name, folder in at.items()}
            inside = {name: p[:level] + p[level + 1 :] for name, p in inside.items()}
            break
        named = {folder for folder in found if folders.is_split(folder)}
        if len({found[folder] for folder in named}) > level and not unlabelled:
            others = sorted(folder or "no folder" for folder in found.keys() - named)
            raise UserError(
                f"{videos.where}: videos lie in {formatting.some(sorted(named))}, which would "
                f"be splits, and in {formatting.some(others)}, which would not: move these "
                "into splits, name them otherwise, or pass --train_list and --test_list, "
                "or --unlabelled"
            )
    outermost = {path[0] if path else "" for path in inside.values()}
    if any(splits.values()) and level and len(outermost) == 1:
        # DIR/NAME_OF_THE_SET/train/CLASS/VIDEO
        deeper = {name: path[1:] for name, path in inside.items()}
        inside = deeper if any(deeper.values()) else inside
    return {
        name: (
            splits[name],
            folders.class_name(path[0]) if path and not unlabelled else "",
        )
        for name, path in inside.items()
    }


def split_by_hash(labels: Mapping[str, int], test_share: float) -> dict[str, list[str]]:
    """Splits each class into `train` and `test` by the hashes of the videos' names.

    Args:
        labels: class of every video.
        test_share: in [0, 1); unless 0, `test` has at least one video of every class
            that has two, and one if none has.
    """
    classes = collections.defaultdict(list)
    for name, label in labels.items():
        classes[label].append(name)
    train, test = [], []
    for names in classes.values():
        names.sort(key=_digest)
        count = round(test_share * len(names))
        if test_share and len(names) > 1:
            count = min(max(count, 1), len(names) - 1)
        test += names[:count]
        train += names[count:]
    if test_share and not test and len(train) > 1:
        test = [train.pop(train.index(min(train, key=_digest)))]
    return {"train": sorted(train), "test": sorted(test)}


def _digest(name: str) -> bytes:
    # Composed: macOS spells accents otherwise, and the split is the same there.
    return hashlib.sha256(unicodedata.normalize("NFC", name).encode()).digest()


Builder = VideoFolder
