"""GOT-10k: its sequences, with the box of their object in every frame."""

import collections
import functools
import os
import pathlib

from absl import flags

from ctp_jax.errors import UserError
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

    @classmethod
    def define_flags(cls, values: flags.FlagValues) -> None:
        flags.DEFINE_string("videos", "", "The folder that has train and val.", values)

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        top = folders.check_folder("videos", arguments.videos)
        there, listed = find_sequences(os.path.abspath(top))
        splits, missing, notes = choose(there, listed, top)
        files = {
            f"{split}/{name}": boxes.File(os.path.join(there[split][name], BOXES))
            for split, names in splits.items()
            for name in names
        }
        seen = boxes.survey(files)
        chosen: dict[str, list[str]] = {}
        for split in splits:
            names = [name for name in files if name.startswith(f"{split}/")]
            if all(seen[name].lines < 2 for name in names):
                notes.append(
                    f"{split}: its {len(names)} sequences have a box for the first frame "
                    "only and are left out"
                )
            else:
                chosen[split] = names
        names = [name for split in chosen.values() for name in split]
        if bare := [name for name in names if not seen[name].labels]:
            notes.append(
                f"{len(bare)} of {len(names)} sequences lack {boxes.ABSENCE} or "
                f"{boxes.COVER}: what these say counts as visible, the first is {bare[0]}"
            )
        items = [
            base.Item(
                name,
                -1,
                functools.partial(
                    frames.encode_frames,
                    os.path.dirname(files[name].path),
                    FPS,
                    options.short_side,
                    options.quality,
                    annotate=files[name],
                ),
            )
            for name in names
        ]
        return base.Source(
            items,
            chosen,
            annotations={"boxes": (1, 4), "visibility": (1,)},
            missing=missing,
            notes=notes,
            digest=boxes.digest({name: seen[name] for name in names}),
        )


def choose(
    there: dict[str, dict[str, str]], listed: dict[str, list[str]], top: str
) -> tuple[dict[str, list[str]], list[tuple[str, str]], list[str]]:
    """The names of the sequences of every split, (split, name) of missing ones, notes."""
    splits, missing, notes = {}, [], []
    for split in ("train", "val", "test"):
        found = there.get(split, {})
        names = list(dict.fromkeys(listed.get(split, sorted(found))))
        if found and split not in listed:
            notes.append(
                f"{split}: has no list.txt, all {len(found)} sequences are taken"
            )
        absent = [name for name in names if name not in found]
        missing += [(split, name) for name in absent]
        if absent:
            notes.append(
                f"{split}: {len(absent)} of {len(names)} listed sequences are not in "
                f"{top}, or have no {BOXES}: {folders.some(absent)}"
            )
        if bad := [name for name in names if name in found and name in BAD]:
            notes.append(
                f"{split}: {len(bad)} sequences are known to have wrong boxes and are left "
                f"out: {folders.some(bad)}"
            )
        if kept := [name for name in names if name in found and name not in BAD]:
            splits[split] = kept
    if not splits:
        raise UserError(
            f"--videos={top}: needs folders train and val, with folders of a sequence in "
            f"them that have a {BOXES}"
        )
    return splits, missing, notes


def find_sequences(
    top: str,
) -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """The sequences below a folder, which are not searched themselves.

    The outermost folder below `top` that is named after a split says the split, as in
    `full_data/train_data/GOT-10k_Train_split_01/GOT-10k_Train_000001`; else `top` does.

    Returns:
        ({split: {name: path}}, {split: names in its list.txt}).
    """
    there: dict[str, dict[str, str]] = collections.defaultdict(dict)
    listed: dict[str, list[str]] = {}
    waiting, entered = [(top, "")], set()
    while waiting:
        folder, split = waiting.pop()
        if os.path.realpath(folder) in entered:
            continue  # a link
        entered.add(os.path.realpath(folder))
        path = pathlib.Path(folder)
        here = split or folders.split_of(path.name)[0]
        if here and (path / "list.txt").is_file():
            lines = lists.read_lines(path / "list.txt")
            listed.setdefault(here, []).extend(line for _, line in lines)
        try:
            inside = sorted(e.name for e in os.scandir(folder) if e.is_dir())
        except OSError:
            inside = []
        for name in inside:
            where = os.path.join(folder, name)
            if folders.is_hidden(name):
                continue
            if os.path.isfile(os.path.join(where, BOXES)):
                known = here or folders.split_of(name)[0]
                there[known].setdefault(name, where)
            else:
                waiting.append((where, split or folders.split_of(name)[0]))
    return there, listed


Builder = Got10k
