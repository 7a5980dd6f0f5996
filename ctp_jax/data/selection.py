"""Which videos of a split a run uses. Imports no TensorFlow."""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax import formatting
from ctp_jax.data.records import Records, select
from ctp_jax.errors import UserError

_NAMED = 3
"""Videos that a message names, the shortest first."""


def choose(
    opened: Records, data: ConfigDict, seed: int, needed: int
) -> tuple[Records, Records, int]:
    """The videos of a split that a run uses.

    Args:
        opened: the whole split.
        data: `config.data`; its `fraction` is of the split that is trained on.
        seed: of the run.
        needed: frames, `ClipSpec.min_frames` of the task.

    Returns:
        Those that `data` leaves, those of them that are long enough for the task, and
        how many were left out because they are too short.

    Raises:
        UserError: see `long_enough`.
    """
    if opened.split == data.split:
        # Also as the gallery of nearest neighbours: that is what was trained on.
        opened = take_fraction(opened, data.fraction, seed)
    skip = data.get("skip_short", False)
    chosen = long_enough(opened, data.min_frames, skip)
    used = long_enough(chosen, needed, skip, task=True)
    return chosen, used, len(opened) - len(used)


def take_fraction(opened: Records, fraction: float, seed: int) -> Records:
    """A random fraction of the videos of every class (paper, Fig. 4).

    The choice is a function of the seed and the names of the videos. A smaller fraction
    is a subset of a larger one.

    Args:
        opened: a split.
        fraction: in (0, 1]; rounded to whole videos, class by class.
        seed: of the random choice.

    Raises:
        UserError: the fraction leaves a class empty.
    """
    if fraction == 1:
        return opened
    keys = [hashlib.sha256(b"%d/%s" % (seed, id_)).digest() for id_ in opened.id_bytes]
    order = np.array(sorted(range(len(opened)), key=keys.__getitem__), np.int64)
    labels, counts = np.unique(opened.label, return_counts=True)
    kept = []
    for label in labels:
        rows = order[opened.label[order] == label]
        count = int(fraction * len(rows) + 0.5 + 1e-9)  # half of a video counts as one
        if count == 0:
            name = opened.class_names[label] if label >= 0 else "unlabelled"
            raise UserError(
                f"config.data.fraction = {fraction} leaves class {name!r} of split "
                f"{opened.split!r} empty: it has {formatting.count(len(rows), 'video')}; "
                f"with {math.ceil(5000 / counts.min()) / 10000} or more every class "
                "keeps one"
            )
        kept.append(rows[:count])
    return select(opened, np.sort(np.concatenate(kept)))


def long_enough(
    opened: Records, min_frames: int, skip: bool, task: bool = False
) -> Records:
    """The split, if its videos have enough frames; or those of its videos that have.

    Args:
        opened: the split.
        min_frames: `config.data.min_frames`, or that of a `ClipSpec`.
        skip: leave the others out.
        task: the number comes from the task, for the message.

    Raises:
        UserError: there is no video, or without `skip` any with too few frames.
    """
    if not len(opened):
        raise UserError(
            f"{opened.name}: split {opened.split!r} has no videos: choose another split"
        )
    enough = opened.num_frames >= min_frames
    if enough.all() or (skip and enough.any()):
        return opened if enough.all() else select(opened, np.flatnonzero(enough))
    about, remedy = "config.data.min_frames", "lower min_frames"
    if task:
        about, remedy = "what this task needs", "use smaller strides or fewer frames"
    if not skip:
        remedy = f"leave them out (config.data.skip_short = True), or {remedy}"
    shortest = np.argsort(opened.num_frames, kind="stable")[:_NAMED]
    named = [f"{opened.id_of(i)}: {opened.num_frames[i]}" for i in shortest.tolist()]
    count = len(opened) - int(enough.sum())
    raise UserError(
        f"{opened.name}: {count} of {formatting.count(len(opened), 'video')} of split "
        f"{opened.split!r} have fewer than {formatting.count(min_frames, 'frame')}, "
        f"{about} ({', '.join(named[:count])}"
        + ", ..." * (count > _NAMED)
        + f"): {remedy}"
    )


def check_labels(opened: Any, what: str, learn: bool) -> None:
    """Raises `UserError` for a split without the labels that something needs.

    Args:
        opened: the split, `Records`.
        what: needs them, in words.
        learn: something is learnt from them, so one class is not enough.
    """
    unlabelled = int((opened.label < 0).sum())
    if unlabelled or not len(opened.class_names):
        raise UserError(
            f"{opened.name}: {unlabelled or len(opened)} of "
            f"{formatting.count(len(opened), 'video')} of split {opened.split!r} have no "
            f"label, which {what} needs: put them into class folders, and prepare again"
        )
    classes = np.unique(opened.label)
    if learn and len(classes) == 1:
        raise UserError(
            f"{opened.name}: all {formatting.count(len(opened), 'video')} of split "
            f"{opened.split!r} are of class {opened.class_names[classes[0]]!r}, but "
            f"{what} needs two classes or "
            "more: choose another split, or prepare the videos of every class in a "
            "folder of its own"
        )


def overlaps(trained: Records, held_out: Iterable[Records]) -> list[str]:
    """A line for every held-out split that has videos in common with the training.

    Videos are the same if they are stored in the same place.
    """
    places = set(zip(trained.file_index.tolist(), trained.offset.tolist(), strict=True))
    lines = []
    for each in {each.split: each for each in held_out}.values():
        both = places.intersection(
            zip(each.file_index.tolist(), each.offset.tolist(), strict=True)
        )
        if both and each.directory == trained.directory:
            lines.append(
                f"note: {len(both)} of the {formatting.count(len(each), 'video')} of "
                f"split {each.split!r}, to evaluate on, are also in split "
                f"{trained.split!r}, to train on"
            )
    return lines
