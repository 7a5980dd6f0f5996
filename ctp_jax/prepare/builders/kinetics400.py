"""Kinetics from whatever of its videos there is, and its official lists."""

import collections
import csv
import dataclasses
import functools
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from absl import flags

from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base, classes, lists

COLUMNS = ("label", "youtube_id", "time_start", "time_end")

_SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val"}
_SPLITS |= {"test": "test"}

Splits = dict[str, list[lists.Entry]]


class Kinetics400(base.VideoBuilder, skip_registration=True):
    """Kinetics-400: 306,245 clips of 400 actions, as far as they are there; of
    Kinetics-600 and -700 with --name kinetics600 or kinetics700. Clips are found by
    their file names anywhere below --videos: ID_000010_000020.mp4, or ID.mp4, which
    must be cut out already. Splits train, val and test; clips that a list gives without
    a label get -1."""

    CLASSES = 400
    DESCRIPTION = "Kinetics action recognition, every clip that is there once."
    HOMEPAGE = "https://github.com/cvdfoundation/kinetics-dataset"

    @property
    def expected_classes(self) -> int:
        match = re.search("kinetics_?([67]00)", self.name)
        return int(match[1]) if match else self.CLASSES

    @classmethod
    def define_flags(cls, values: flags.FlagValues) -> None:
        flags.DEFINE_string(
            "videos", "", "The clips, with any folders in between.", values
        )
        flags.DEFINE_string(
            "lists", "", "Folder with train.csv, val.csv, ...; or a file.", values
        )
        flags.DEFINE_float(
            "min_found",
            0.5,
            "Share of the clips of every list that must be there.",
            flag_values=values,
            lower_bound=0,
            upper_bound=1,
        )

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        names, listed = read_lists(arguments.lists)
        listed, notes = drop_repeated(listed)
        paths = Clips(arguments.videos, listed)
        splits, missing = {}, []
        for split, entries in listed.items():
            splits[split] = [e for e in entries if paths.locate(e.name)]
            without = [e.name for e in entries if not paths.locate(e.name)]
            missing += [(split, name) for name in without]
            if without:
                notes.append(
                    f"{split}: {len(without)} of {len(entries)} listed clips "
                    f"({len(without) / len(entries):.1%}) are not in {arguments.videos}: "
                    f"{lists.some(without)}"
                )
        check_found(arguments, listed, splits)
        splits = {split: entries for split, entries in splits.items() if entries}
        source = lists.source_from_lists(
            arguments.videos, splits, names, options, locate=paths.locate
        )
        notes += classes.notes(splits, names)
        return dataclasses.replace(source, missing=missing, notes=notes)


def check_found(arguments, listed: Splits, found: Splits) -> None:
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


def drop_repeated(splits: Splits) -> tuple[Splits, list[str]]:
    """Leaves out what repeats a clip; a note where class or split differ."""
    first: dict[str, tuple[str, lists.Entry]] = {}
    kept: Splits = {split: [] for split in splits}
    contradictions = []
    for split, entries in splits.items():
        for entry in entries:
            before_split, before = first.setdefault(entry.name, (split, entry))
            if before is entry:
                kept[split].append(entry)
            elif (before_split, before.class_name) != (split, entry.class_name):
                contradictions.append((entry, before))
    if not contradictions:
        return kept, []
    entry, before = contradictions[0]
    note = (
        f"{len(contradictions)} lines list a clip again with another class or split and "
        f"are left out, the first is {entry.where}, which repeats {before.where}"
    )
    return kept, [note]


class Clips:
    """The listed clips among the files, however the folders were named.

    A file `<youtube_id>.mp4` is taken where the lists have a single clip of that
    video. Of several files of a clip the one below a folder `replacement...` counts:
    so are the clips called that come in place of damaged ones.
    """

    def __init__(self, folder: str, splits: Mapping[str, Sequence[lists.Entry]]):
        """Walks the folder once; raises `UserError` if no video is in it."""
        stems: dict[str, list[str]] = collections.defaultdict(list)
        for path in lists.find_videos(folder):
            stems[os.path.splitext(path.rpartition("/")[2])[0]].append(path)
        names = [entry.name for entries in splits.values() for entry in entries]
        clips_of_video = collections.Counter(_parts(name)[0] for name in names)
        self._paths: dict[str, str] = {}
        for name in names:
            video, start, end = _parts(name)
            files = stems.get(name) or stems.get(f"{video}_{int(start)}_{int(end)}")
            if not files and clips_of_video[video] == 1:
                files = stems.get(video)
            if files:
                self._paths[name] = max(files, key=_is_replacement)

    def locate(self, name: str) -> str | None:
        """Path of the clip `<youtube_id>_<start>_<end>`, None if it is not there."""
        return self._paths.get(name)


def _parts(name: str) -> list[str]:
    return name.rsplit("_", 2)


def _is_replacement(path: str) -> bool:
    return "/replacement" in f"/{path.rpartition('/')[0]}"


def read_lists(place: str) -> tuple[list[str], Splits]:
    """Reads official lists: a file, or those of a folder and the folders in it.

    Returns:
        (class names, sorted; entries of train, val, test). The class names are those
        of the first of these that is there; the others may not have more.

    Raises:
        UserError: no lists, two of one split, or a list of another format.
    """
    files: dict[str, str] = {}
    if os.path.isfile(place):
        return _with_classes(read_csv(place, _split_of(place)))
    lists.check_folder("lists", place)
    here = pathlib.Path(place)
    for path in map(str, sorted([*here.glob("*.csv"), *here.glob("*/*.csv")])):
        split = _split_of(path)
        if split and files.setdefault(split, path) != path:
            raise UserError(f"--lists={place}: {files[split]} or {path}? needs one")
    if not files:
        raise UserError(
            f"--lists={place}: no list in it, needs train.csv, val.csv, ..."
        )
    splits: Splits = {}
    for split, path in files.items():
        splits |= read_csv(path, split)
    return _with_classes(splits)


def _split_of(path: str) -> str | None:
    """What `val.csv`, `kinetics_val.csv`, `kinetics-400_val.csv`, ... is a list of."""
    return _SPLITS.get(re.split("[_-]", pathlib.Path(path).stem)[-1])


def _with_classes(splits: Splits) -> tuple[list[str], Splits]:
    splits = {s: splits[s] for s in ("train", "val", "test") if s in splits}
    leading = next(iter(splits))
    names = {entry.class_name: entry for entry in splits[leading]}
    names = dict.fromkeys(sorted(names.keys() - {""}))
    for split, entries in splits.items():
        for entry in entries:
            if split != leading and entry.class_name:
                classes.check(
                    entry.class_name, names, entry.where, f"the {leading} list"
                )
    return list(names), splits


def read_csv(path: str, split: str | None) -> Splits:
    """Reads a list with the header `label,youtube_id,time_start,time_end,split`.

    Args:
        path: of the file.
        split: of all its clips; None: the column `split` says it. Test clips may lack
            labels, others may not.

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
    splits: Splits = {}
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            row = {key: (row[key] or "").strip() for key in header}
            into = split or _SPLITS.get(row["split"])
            entry = _entry(row, where)
            if not (entry and into) or not (entry.class_name or into == "test"):
                has = " ".join(",".join(row.values()).split())[:100]
                raise UserError(
                    f"{where}: needs label,youtube_id,seconds,seconds,train|val|test, "
                    f"has `{has}`"
                )
            splits.setdefault(into, []).append(entry)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num + 1}: {error}") from error
    if not splits:
        raise UserError(f"{path}: has no clip in it")
    return splits


@functools.cache
def _seconds(text: str) -> int | None:
    return int(float(text)) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _entry(row: Mapping[str, str], where: str) -> lists.Entry | None:
    start, end = _seconds(row["time_start"]), _seconds(row["time_end"])
    if not row["youtube_id"] or start is None or end is None:
        return None
    name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
    return lists.Entry(name, row.get("label", ""), where)


Builder = Kinetics400
