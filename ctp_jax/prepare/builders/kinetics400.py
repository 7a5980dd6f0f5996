"""Kinetics from its official lists and those of its clips that are there."""

import collections
import csv
import dataclasses
import functools
import io
import os
import pathlib
import re
from collections.abc import Iterable

from ctp_jax import formatting
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.prepare.builders import base, folders, lists

COLUMNS = ("label", "youtube_id", "time_start", "time_end")


class Kinetics400(base.VideoBuilder):
    """Kinetics-400: 306,245 clips of 400 actions, or those of them that are there; and
    Kinetics-600 and -700 with --name kinetics600 or kinetics700. Clips are found by
    their file names anywhere below --videos: ID_000010_000020.mp4, or ID.mp4 if the
    clip is already cut out. Splits train, val and test; clips without a label in the
    list get -1."""

    CLASSES = 400
    DESCRIPTION = "Kinetics action recognition, every clip that is there once."
    HOMEPAGE = "https://github.com/cvdfoundation/kinetics-dataset"

    @property
    def expected_classes(self) -> int:
        match = re.search("kinetics_?([67]00)", self.name)
        return int(match[1]) if match else self.CLASSES

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        values.string(
            "videos", "", "Folder of the clips, searched with all its subfolders."
        )
        values.string("lists", "", "Folder with train.csv, val.csv, ...; or a file.")
        values.number(
            "min_found",
            0.5,
            "Share of the clips of every list that must be there.",
            lower_bound=0,
            upper_bound=1,
        )

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        names, listed = read_lists(arguments.lists)
        listed, notes = drop_repeated(listed)
        videos = folders.Folder(arguments.videos)
        notes = [*videos.notes, *notes]
        clips = Clips(videos.paths, listed)
        found = {s: [e for e in v if clips.locate(e.name)] for s, v in listed.items()}
        check_found(arguments, listed, found)
        missing = []
        for split, entries in listed.items():
            without = [e.name for e in entries if not clips.locate(e.name)]
            missing += [(split, name) for name in without]
            if without:
                notes.append(
                    f"{split}: {len(without)} of {len(entries)} listed clips "
                    f"({len(without) / len(entries):.1%}) are not in {arguments.videos}: "
                    f"{formatting.some(without)}"
                )
        found = {split: entries for split, entries in found.items() if entries}
        source = lists.source_from_lists(
            videos, found, names, options, locate=clips.locate
        )
        notes += lists.empty_classes(found, names)
        return dataclasses.replace(source, missing=missing, notes=notes)


def check_found(arguments, listed: lists.Splits, found: lists.Splits) -> None:
    """Raises `UserError` if too few of the listed clips are there.

    The test split may be missing as a whole: few people have it.
    """
    if not any(found.values()):
        first = next(entry for entries in listed.values() for entry in entries)
        raise UserError(
            f"{first.where}: none of the {sum(map(len, listed.values()))} listed clips is "
            f"anywhere below --videos={arguments.videos}: needs files such as "
            f"{first.name}.mp4"
        )
    for split, entries in listed.items():
        count, total = len(found[split]), len(entries)
        if count < arguments.min_found * total and (count or split != "test"):
            raise UserError(
                f"{split}: {count} of {total} listed clips are in {arguments.videos}, and "
                f"--min_found={arguments.min_found:g} needs {arguments.min_found:.0%}: "
                "check --videos, leave the list out, or lower --min_found"
            )


def drop_repeated(splits: lists.Splits) -> tuple[lists.Splits, list[str]]:
    """Keeps the first entry of every clip; a note if others differ in class or split."""
    first: dict[str, tuple[str, lists.Entry]] = {}
    kept: lists.Splits = {split: [] for split in splits}
    differing = []
    for split, entries in splits.items():
        for entry in entries:
            kept_split, before = first.setdefault(entry.name, (split, entry))
            if before is entry:
                kept[split].append(entry)
            elif (kept_split, before.class_name) != (split, entry.class_name):
                differing.append(f"{entry.where}, which repeats {before.where}")
    if not differing:
        return kept, []
    note = (
        f"{len(differing)} lines list a clip again with another class or split and are "
        f"left out, the first is {differing[0]}"
    )
    return kept, [note]


class Clips:
    """Finds the files of the listed clips, in any subfolders.

    A file `<youtube_id>.mp4` is used if the lists have a single clip of that video. Of
    several files of a clip, one in a folder `replacement...` is preferred: such folders
    hold the clips that replace damaged ones.
    """

    def __init__(self, videos: Iterable[str], splits: lists.Splits):
        """Matches the names of all videos with those of the clips."""
        stems: dict[str, list[str]] = collections.defaultdict(list)
        for path in videos:
            stems[os.path.splitext(path.rpartition("/")[2])[0]].append(path)
        names = [entry.name for entries in splits.values() for entry in entries]
        clips_of_video = collections.Counter(name.rsplit("_", 2)[0] for name in names)
        self._paths: dict[str, str] = {}
        for name in names:
            video, start, end = name.rsplit("_", 2)
            files = stems.get(name) or stems.get(f"{video}_{int(start)}_{int(end)}")
            if not files and clips_of_video[video] == 1:
                files = stems.get(video)
            if files:
                self._paths[name] = max(files, key=_is_replacement)

    def locate(self, name: str) -> str | None:
        """Path of the clip `<youtube_id>_<start>_<end>`, None if it is not there."""
        return self._paths.get(name)


def _is_replacement(path: str) -> bool:
    return "/replacement" in f"/{path.rpartition('/')[0]}"


def read_lists(place: str) -> tuple[list[str], lists.Splits]:
    """Reads official lists: a file, or those of a folder and its subfolders.

    Returns:
        (class names, sorted; entries of train, val, test). The class names are those
        of the first of these splits that has a list; other lists may not have more.

    Raises:
        UserError: no lists, two of one split, or a list of another format.
    """
    files: dict[str | None, str] = {}
    if os.path.isfile(place):
        files[_split_of(place)] = place
    else:
        folder = pathlib.Path(folders.check_folder("lists", place))
        for path in map(str, sorted([*folder.glob("*.csv"), *folder.glob("*/*.csv")])):
            inside = os.path.relpath(path, folder).split(os.sep)
            split = None if any(map(folders.is_hidden, inside)) else _split_of(path)
            if split and files.setdefault(split, path) != path:
                raise UserError(
                    f"--lists={place}: {files[split]} or {path}? needs one of them"
                )
        if not files:
            raise lists.no_lists(place, "train.csv", "val.csv")
    read: lists.Splits = {}
    for split, path in files.items():
        read |= read_csv(path, split)
    splits = {s: read[s] for s in ("train", "val", "test") if s in read}
    leading = next(iter(splits))
    names = dict.fromkeys(sorted({e.class_name for e in splits[leading]} - {""}))
    for entries in splits.values():
        for entry in entries:
            if entry.class_name:
                lists.check_class(
                    entry.class_name, names, entry.where, f"the {leading} list"
                )
    return list(names), splits


def _split_of(path: str) -> str | None:
    """The split of `val.csv`, `kinetics_val.csv`, `kinetics-400_val.csv`, ..."""
    return folders.SPLITS.get(re.split("[_-]", pathlib.Path(path).stem)[-1])


def read_csv(path: str, split: str | None) -> lists.Splits:
    """Reads a list with the header `label,youtube_id,time_start,time_end,split`.

    Args:
        path: of the file.
        split: of all its clips; None: the one in the column `split`. Only test clips
            may lack labels.

    Raises:
        UserError: another format.
    """
    reader = csv.DictReader(io.StringIO(lists.read_text(path), newline=""))
    header = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    needed = set(COLUMNS[split == "test" :]) | (set() if split else {"split"})
    if not needed <= set(header):
        raise UserError(
            f"{path}:1: needs the columns {', '.join((*COLUMNS, 'split'))}, has "
            f"`{','.join(header)}`"
        )
    splits: lists.Splits = {}
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            row = {key: (row[key] or "").strip() for key in header}
            into = split or folders.SPLITS.get(row["split"])
            start, end = _seconds(row["time_start"]), _seconds(row["time_end"])
            label, video = folders.class_name(row.get("label", "")), row["youtube_id"]
            unlabelled = not label and into != "test"
            if into is None or start is None or end is None or not video or unlabelled:
                has = " ".join(",".join(row.values()).split())[:100]
                raise UserError(
                    f"{where}: needs label,youtube_id,seconds,seconds,train|val|test, "
                    f"has `{has}`"
                )
            entry = lists.Entry(f"{video}_{start:06d}_{end:06d}", label, where)
            splits.setdefault(into, []).append(entry)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num + 1}: {error}") from error
    if not splits:
        raise UserError(f"{path}: is empty, needs a clip on every line")
    return splits


@functools.cache
def _seconds(text: str) -> int | None:
    return int(float(text)) if re.fullmatch(r"\d+(\.\d+)?", text) else None


Builder = Kinetics400
