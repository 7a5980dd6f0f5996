"""Any folder of videos, or of folders of frames, with a file of boxes for each."""

import dataclasses
import functools
import os
import re
from typing import cast

from ctp_jax import formatting
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.prepare import box_files, boxes, frames, video
from ctp_jax.prepare.builders import base, folders, video_folder
from ctp_jax.storage import remote

INSIDE = ("gt/gt.txt", "groundtruth.txt", "groundtruth_rect.txt")
"""Files of boxes in the folder of a video, as of MOTChallenge, GOT-10k and OTB."""
IMAGES = ("img1", "img")
"""Folders of frames that are named after nothing, as of MOTChallenge and OTB."""


class Boxes(video_folder.VideoFolder):
    """Any folder of videos, or of folders of numbered frames, with boxes. Beside VIDEO.mp4
    is VIDEO.csv (or .txt); beside the folder of frames VIDEO/ is VIDEO.csv, or in it are
    gt/gt.txt and img1/ as of MOTChallenge, or groundtruth.txt as of GOT-10k and OTB.
    Splits and classes are those of video_folder."""

    DESCRIPTION = "A folder of videos with boxes."
    CONFIG = "configs/track_got10k.py:small"

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        super().define_flags(values)
        own = "-1: 0 for a CSV with a header, else 1."
        values.integer(
            "first_pixel", -1, f"Coordinate of the frame's upper left corner; {own}"
        )
        values.integer("first_frame", -1, f"Number of the first frame; {own}")
        values.integer(
            "max_objects", 16, "Of a video; later ones are left out.", lower_bound=1
        )
        values.choice(
            "box_format",
            "",
            ["", *boxes.FORMATS],
            "xyxy: the four numbers are x1,y1,x2,y2. Default: x,y,w,h, if plausible.",
        )
        values.number(
            "frame_rate",
            25.0,
            "Frames per second of folders of frames without a seqinfo.ini.",
            lower_bound=0.01,
        )

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        source = super().make_source(arguments, options)
        files: dict[str, boxes.File] = {
            item.id: cast(functools.partial, item.encode).keywords["annotate"]
            for item in source.items
        }
        count = max((file.objects for file in files.values()), default=1)
        return dataclasses.replace(
            source,
            annotations={"boxes": (count, 4), "visibility": (count,)},
            digest=boxes.digest(boxes.survey(files)),
        )

    @classmethod
    def find(cls, arguments) -> folders.Folder:
        return BoxedVideos(arguments)


class BoxedVideos(folders.Folder):
    """The videos and folders of frames below a folder that have a file of boxes."""

    def __init__(self, arguments):
        """Raises `UserError`: no such folder, no video, or none with boxes."""
        self._arguments, self._tables = arguments, {}
        super().__init__(arguments.videos)
        videos = list(self.paths)
        self.paths = {name: self.paths[name] for name in videos if self._table(name)}
        without = [name for name in videos if name not in self.paths]
        if without:
            about = (
                f"{len(without)} of {len(videos)} videos have no file of boxes, VIDEO.csv, "
                f"VIDEO.txt or VIDEO/{', VIDEO/'.join(INSIDE)}: {formatting.some(without)}"
            )
            if not self.paths:
                raise UserError(f"--videos={self.where}: {about}")
            self.notes.append(f"{self.where}: {about}, passed over")
        self._objects = self._count_objects()

    def _owner(self, name: str, path: str) -> tuple[str, str] | None:
        ending = os.path.splitext(name)[1].lower()
        if ending in (".csv", ".txt"):
            self._tables[name] = path
        if ending in (".csv", ".ini", ".label", ".txt"):
            return "", ""
        if ending not in frames.SUFFIXES:
            return super()._owner(name, path)
        name, path = os.path.dirname(name), os.path.dirname(path)
        if os.path.basename(name) in IMAGES:
            name = os.path.dirname(name)
        return name or ".", path  # the folder itself may be the only video

    def _table(self, name: str) -> str | None:
        """Relative path of the file of boxes of a video."""
        stem, ending = os.path.splitext(name)
        stem = stem if ending.lower() in video.SUFFIXES else name
        inside = [os.path.normpath(f"{name}/{file}") for file in INSIDE]
        found = [f"{stem}.csv", f"{stem}.txt", *inside]
        return next((self._tables[f] for f in found if f in self._tables), None)

    def _file(self, name: str, objects: int = 1) -> boxes.File:
        path = os.path.join(remote.absolute(self.where), self._table(name) or "")
        given = self._arguments
        return boxes.File(
            path, objects, given.first_pixel, given.first_frame, given.box_format
        )

    def _count_objects(self) -> int:
        """The largest number of objects of a video, at most --max_objects."""
        counts, limit = {}, self._arguments.max_objects
        for name in self.paths:
            try:
                rows = box_files.read_rows(self._file(name).path)
                counts[name] = int(rows.objects.max(initial=0)) + 1
            except video.VideoError:
                continue  # the worker says so
        many = [name for name, count in counts.items() if count > limit]
        if many:
            self.notes.append(
                f"{self.where}: {len(many)} videos have more than --max_objects={limit} "
                f"objects, of which the first are kept: {many[0]} has {counts[many[0]]}"
            )
        return min(max(counts.values(), default=1), limit)

    def item(self, name: str, label: int, options: base.Options) -> base.Item:
        """The item of one video or folder of frames."""
        path = os.path.join(remote.absolute(self.where), self.paths[name])
        encode = functools.partial(video.encode_video, path)
        if os.path.splitext(path)[1].lower() not in video.SUFFIXES:
            rate = _frame_rate(path) or self._arguments.frame_rate
            encode = functools.partial(frames.encode_frames, path, rate, first=None)
        encode = functools.partial(
            encode,
            short_side=options.short_side,
            quality=options.quality,
            annotate=self._file(name, self._objects),
        )
        return base.Item(name, label, encode)


def _frame_rate(folder: str) -> float:
    """`frameRate` of a seqinfo.ini beside a folder of frames; 0 without one."""
    try:
        with remote.opened(
            os.path.join(os.path.dirname(folder), "seqinfo.ini")
        ) as file:
            found = re.search(rb"(?im)^\s*framerate\s*=\s*(\d+(\.\d+)?)", file.read())
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0


Builder = Boxes
