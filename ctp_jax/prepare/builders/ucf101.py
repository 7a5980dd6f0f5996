"""UCF-101 from its videos and official lists."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.formatting import one_line
from ctp_jax.prepare import video
from ctp_jax.prepare.builders import base, folders, lists


class Ucf101(base.VideoBuilder):
    """UCF-101: 13,320 videos of 101 actions, with its three official splits train01,
    test01, ..., test03. The videos may lie in class folders or in one folder."""

    CLASSES = 101
    DESCRIPTION = "UCF-101 action recognition, every video once, all three splits."
    HOMEPAGE = "https://www.crcv.ucf.edu/data/UCF101.php"

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        archive = "UCF101TrainTestSplits-RecognitionTask.zip"
        values.string("videos", "", "The unpacked UCF101.rar.")
        values.string("lists", "", f"The unpacked {archive}.")

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        files, names = find_lists(arguments.lists)
        if names is None:
            raise lists.no_lists(arguments.lists, "classInd.txt")
        videos = folders.Folder(arguments.videos)
        splits = read_splits(files, names, videos.locate)
        return lists.source_from_lists(videos, splits, names, options)


def find_lists(folder: str) -> tuple[dict[str, str], list[str] | None]:
    """The lists of a folder with `trainlist01.txt`, `testlist01.txt`, ...

    Returns:
        (path of the list of `train01`, ...; names of `classInd.txt`, None without it).

    Raises:
        UserError: no folder, no lists, or a `classInd.txt` of another format.
    """
    folder = folders.check_folder("lists", folder, "ucfTrainTestlist")
    path = os.path.join(folder, "classInd.txt")
    class_names = read_class_index(path) if os.path.exists(path) else None
    files = {}
    for file in lists.list_files(folder):
        match = re.fullmatch(r"(train|test|val)list(\d*)\.txt", file)
        if match:
            files[match[1] + match[2]] = os.path.join(folder, file)
    if not files:
        raise lists.no_lists(folder, "trainlist01.txt", "testlist01.txt")
    return files, class_names


def read_class_index(path: str) -> list[str]:
    """Class names of `classInd.txt`: lines `1 Name`, counted from 1.

    Raises:
        UserError: another format.
    """
    names = []
    for where, line in lists.read_lines(path):
        if line.startswith("#"):
            continue
        match = re.fullmatch(rf"{len(names) + 1}\s+(.+)", line)
        if not match:
            raise UserError(
                f"{where}: needs `{len(names) + 1} ClassName`, has `{line}`"
            )
        names.append(folders.class_name(match[1]))
    if not names:
        raise UserError(f"{path}: is empty, needs lines `1 ClassName`")
    return names


class Line(NamedTuple):
    """A line of a split list.

    Attributes:
        name: of the video, with `/`.
        number: of its class, None if there is none.
        where: `file:line`.
    """

    name: str
    number: int | None
    where: str

    @property
    def folders(self) -> list[str]:
        """Names of the folders of the video, the innermost first."""
        return self.name.split("/")[-2::-1]


def read_splits(
    files: Mapping[str, str],
    class_names: Sequence[str] | None,
    locate: Callable[[str], str | None],
) -> lists.Splits:
    """The entries of lists with lines such as `Class/video.avi 1`, see `read_list`.

    Args:
        files: split: path of its list.
        class_names: the classes of numbers 1, 2, ..., or of 0, 1, ... if there is a
            number 0. A video whose folder has the name of a class belongs to it, others
            belong to the class of their number. None: the classes are called as the
            folders, or as the numbers if these are no names of the folders.
        locate: see `folders.Folder`.

    Raises:
        UserError: another format, an unknown class, or a number that is not the one of
            the class.
    """
    read = {split: read_list(path, locate) for split, path in files.items()}
    lines = [line for split in read.values() for line in split]
    if class_names is None:
        classify = _classes_of_folders(lines)
    else:
        classify = _classes_of_index(lines, class_names)
    return {
        split: [lists.Entry(line.name, classify(line), line.where) for line in lines]
        for split, lines in read.items()
    }


def read_list(path: str, locate: Callable[[str], str | None]) -> list[Line]:
    """Reads a list with lines `video`, `video class` or `video number_of_frames class`.

    Names may contain spaces and end with a number, so a line is read as the one of these
    that names a video. Windows' paths, comments (`# ...`) and hidden files are allowed.
    """
    lines = []
    for where, text in lists.read_lines(path):
        match = re.fullmatch(r"(.+?)((?:[\s,;]{1,20}\d{1,9}){0,2})", text)
        assert match
        numbers, digits = (re.findall(p, match[2]) for p in (r"[\s,;]+\d+", r"\d+"))
        ways = [text[: len(text) - len("".join(numbers[i:]))] for i in range(3)]
        ways = [re.sub(r"\\(?!x[89a-f][0-9a-f])", "/", way.strip('"')) for way in ways]
        ways = list(map(one_line, ways))
        usual = ways[max(0, len(numbers) - 1)]
        name = next(filter(locate, (usual, *ways)), ways[0])
        ending = os.path.splitext(name)[1].lower()
        if text[0] == "#" and ending not in video.SUFFIXES and not locate(name):
            continue
        number = int(digits[-1]) if name in ways[: len(numbers)] else None
        if not folders.is_hidden(name.rpartition("/")[2]):
            lines.append(Line(name, number, where))
    return lines


def _classes_of_index(
    lines: Sequence[Line], class_names: Sequence[str]
) -> Callable[[Line], str]:
    """A function that gives the class of a line; see `read_splits`."""
    spelling = {folders.fold(name): name for name in class_names}
    first = 0 if any(line.number == 0 for line in lines) else 1
    of_number = dict(enumerate(class_names, first))

    def classify(line: Line) -> str:
        keys = filter(spelling.get, map(folders.fold, line.folders))
        name = spelling.get(next(keys, ""))
        numbered = None if line.number is None else of_number.get(line.number)
        if name is None and numbered is None:
            if line.folders and line.number is None:
                lists.check_class(
                    line.folders[0], class_names, line.where, "classInd.txt"
                )
            raise UserError(
                f"{line.where}: needs `Class/video.avi` or `video.avi 1`, with a class of "
                f"classInd.txt, has `{line.name}`"
                + (f" and {line.number}" if line.number is not None else "")
            )
        if name and line.number is not None and numbered != name:
            raise UserError(
                f"{line.where}: class {name!r} has number "
                f"{class_names.index(name) + first} in classInd.txt, not {line.number}: "
                "correct one of them"
            )
        return name or numbered or ""

    return classify


def _classes_of_folders(lines: Sequence[Line]) -> Callable[[Line], str]:
    """A function that gives the class of a line; see `read_splits`."""

    def folder(line: Line) -> str:
        name = folders.class_name(line.folders[0]) if line.folders else ""
        return "" if folders.is_split(name) else name

    pairs = {(folder(line), line.number) for line in lines}
    names = {name for name, _ in pairs}
    numbers = [number for _, number in pairs if number is not None]
    agree = "" not in names and len(names) == len(set(numbers)) == len(pairs)
    if agree or len(numbers) < len(pairs):
        return folder
    digits = len(str(max(numbers)))
    return lambda line: f"{line.number:0{digits}d}"


Builder = Ucf101
