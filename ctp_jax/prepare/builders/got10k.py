"""GOT-10k: its sequences, with the box of their object in every frame."""

import collections
import functools
import os
from typing import NamedTuple

from ctp_jax import formatting
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.prepare import boxes, frames
from ctp_jax.prepare.builders import base, folders, lists

FPS = 10.0
"""Rate of the annotated frames."""
BOXES = "groundtruth.txt"
BAD = {f"GOT-10k_Train_{n:06d}" for n in (*range(8623, 8638), 9058, 9059)}
"""Sequences whose boxes are those of other frames (issue 10 of the authors' toolkit)."""


class Got10k(base.VideoBuilder):
    """GOT-10k: 9,335 sequences for training and 180 for validation, or those of them that
    are there, and any data set of its layout, {train,val}/SEQUENCE/00000001.jpg with
    groundtruth.txt, and list.txt beside the sequences. They may lie some folders
    deeper, as its archives unpack. Boxes count pixels from 1. The official test split has
    a box for the first frame only: it is left out."""

    DESCRIPTION = "GOT-10k: generic objects, each with a box in every frame."
    HOMEPAGE = "http://got-10k.aitestunion.com"
    CONFIG = "configs/track_got10k.py:small"

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        values.string("videos", "", "The folder that has train and val.")
        values.choice(
            "box_format",
            "xywh",
            [*boxes.FORMATS],
            "xyxy: the four numbers are x1,y1,x2,y2, in another data set of the layout.",
        )

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        top = folders.check_folder("videos", arguments.videos)
        found = find_sequences(os.path.abspath(top))
        splits, missing, notes = choose(found, top, arguments.box_format)
        seen = boxes.survey(
            {n: f for files in splits.values() for n, f in files.items()}
        )
        for split in list(splits):
            if all(seen[name].lines < 2 for name in splits[split]):
                notes.append(
                    f"{split}: left out, with a box for the first frame only: "
                    f"{formatting.count(len(splits[split]), 'sequence')}"
                )
                del splits[split]
        files = {name: file for each in splits.values() for name, file in each.items()}
        if bare := [name for name in files if not seen[name].labels]:
            notes.append(
                f"{len(bare)} of {len(files)} sequences lack {boxes.ABSENCE} or "
                f"{boxes.COVER}: what these say counts as visible, the first is {bare[0]}"
            )
        return base.Source(
            [item(name, file, options) for name, file in files.items()],
            {split: list(each) for split, each in splits.items()},
            annotations={"boxes": (1, 4), "visibility": (1,), "cut": (1,)},
            missing=missing,
            notes=notes,
            digest=boxes.digest({name: seen[name] for name in files}),
        )


def item(name: str, file: boxes.File, options: base.Options) -> base.Item:
    """The item of one sequence, whose frames lie beside its file of boxes."""
    encode = functools.partial(
        frames.encode_frames,
        os.path.dirname(file.path),
        FPS,
        options.short_side,
        options.quality,
        annotate=file,
    )
    return base.Item(name, -1, encode)


class Found(NamedTuple):
    """What lies below a folder, by split.

    Attributes:
        there: {name: path} of the sequences.
        listed: names in list.txt.
        boxless: folders that have frames and no boxes, as paths from that folder.
    """

    there: dict[str, dict[str, str]]
    listed: dict[str, list[str]]
    boxless: dict[str, list[str]]


def choose(
    found: Found, top: str, box_format: str
) -> tuple[dict[str, dict[str, boxes.File]], list[tuple[str, str]], list[str]]:
    """The sequences to take.

    Returns:
        ({split: {name: file of boxes}}, (split, name) of missing ones, notes).
    """
    splits, missing, notes = {}, [], []
    for split in ("train", "val", "test"):
        there = found.there.get(split, {})
        names = list(dict.fromkeys(found.listed.get(split, sorted(there))))
        absent = [name for name in names if name not in there]
        bad = [name for name in names if name in there and name in BAD]
        boxless = [
            each
            for each in found.boxless.get(split, ())
            if os.path.basename(each) not in names
        ]
        missing += [(split, name) for name in absent]
        if absent:
            notes.append(
                f"{split}: {len(absent)} of {len(names)} listed sequences are not in "
                f"{top}, or have no {BOXES}: {formatting.some(absent)}"
            )
        if boxless:
            notes.append(
                f"{split}: left out, without {BOXES}: "
                f"{formatting.count(len(boxless), 'folder')} of frames: "
                f"{formatting.some(boxless)}"
            )
        if bad:
            notes.append(
                f"{split}: left out, known to have wrong boxes: "
                f"{formatting.count(len(bad), 'sequence')}: {', '.join(bad)}"
            )
        if unlisted := [name for name in there if name not in names]:
            notes.append(
                f"{split}: left out, not in list.txt: "
                f"{formatting.count(len(unlisted), 'sequence')}: "
                f"{formatting.some(unlisted)}"
            )
        kept = [name for name in names if name in there and name not in BAD]
        if kept:
            splits[split] = {
                f"{split}/{name}": boxes.File(
                    os.path.join(there[name], BOXES), box_format=box_format, cut=True
                )
                for name in kept
            }
    if not splits:
        raise UserError(
            f"--videos={top}: needs folders train and val, with folders of a sequence in "
            f"them that have a {BOXES}"
        )
    return splits, missing, notes


def find_sequences(top: str) -> Found:
    """The sequences below a folder, which are not searched themselves.

    The split is that of the outermost folder below `top` that is named after one, as in
    `full_data/train_data/GOT-10k_Train_split_01/GOT-10k_Train_000001`; else the one that
    the sequence or `top` is named after.
    """
    there: dict[str, dict[str, str]] = collections.defaultdict(dict)
    listed: dict[str, list[str]] = collections.defaultdict(list)
    boxless: dict[str, list[str]] = collections.defaultdict(list)
    whole = folders.split_of(os.path.basename(top))[0]
    waiting, entered = [(top, "")], set()
    while waiting:
        folder, split = waiting.pop()
        if os.path.realpath(folder) in entered:
            continue  # a link
        entered.add(os.path.realpath(folder))
        list_file = os.path.join(folder, "list.txt")
        if (split or whole) and os.path.isfile(list_file):
            lines = lists.read_lines(list_file)
            listed[split or whole].extend(line for _, line in lines)
        try:
            names = [n for n in sorted(os.listdir(folder)) if not folders.is_hidden(n)]
        except OSError:
            names = []
        inside = [n for n in names if os.path.isdir(os.path.join(folder, n))]
        ends = {os.path.splitext(name)[1].lower() for name in names}
        if not inside and ends & frames.SUFFIXES:
            boxless[split or whole].append(folders.text(os.path.relpath(folder, top)))
        for name in inside:
            where = os.path.join(folder, name)
            own = split or folders.split_of(name)[0]
            if os.path.isfile(os.path.join(where, BOXES)):
                there[own or whole].setdefault(folders.text(name), where)
            else:
                waiting.append((where, own))
    return Found(there, listed, boxless)


Builder = Got10k
