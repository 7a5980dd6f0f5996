"""A copy of a prepared data set with tracks. See `ctp_jax.prepare.tracks`."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import sys
import time
import types
from collections.abc import Sequence

import numpy as np
from absl import flags
from etils import epath

from ctp_jax import trackers
from ctp_jax.data import index, records, tfrecord
from ctp_jax.errors import UserError
from ctp_jax.formatting import duration
from ctp_jax.prepare import shards, track_statistics, tracks, video, workers
from ctp_jax.prepare.builders import base


class Tracks(base.VideoBuilder):
    """The videos of a prepared data set, --from, with boxes that a tracker of OpenCV
    follows: the teacher of the paper's Table 1. Frames, labels and splits stay as they
    are."""

    DESCRIPTION = "Videos of another data set with boxes that a tracker followed."
    NAME = "{from}_tracks"

    @classmethod
    def define_flags(cls, values: flags.FlagValues) -> None:
        number = functools.partial(flags.DEFINE_integer, flag_values=values)
        real = functools.partial(flags.DEFINE_float, flag_values=values, lower_bound=0)
        several = functools.partial(flags.DEFINE_list, flag_values=values)
        choice = functools.partial(flags.DEFINE_enum, flag_values=values)
        text = functools.partial(flags.DEFINE_string, flag_values=values)
        text("from", "", "Name of the prepared data set.")
        several("split", [], "Only these splits, as train01,test01; default: all.")
        about = "kcf: the paper's, boxes keep their size; csrt, median_flow adapt it."
        choice("tracker", "kcf", trackers.TRACKERS, about)
        number("tracks", 20, "Per video.", lower_bound=1, upper_bound=1000)
        number("length", 80, "Frames of a track.", lower_bound=2)
        number("min_valid", 16, "Frames in which it must be known.", lower_bound=1)
        about = "Standard deviation of the grey levels in a box that is followed."
        real("min_std", 8.0, about, upper_bound=127)
        about = "Overlap of a track's first box and where it ends when followed back."
        real("min_iou", 0.5, about, upper_bound=1)
        number("seed", 0, "Another follows other boxes.", lower_bound=0)

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        name, data_dir = getattr(arguments, "from"), getattr(arguments, "data_dir", "")
        if not name:
            raise UserError("--from: needs the name of a prepared data set")
        directory, found = records.open_index(name, data_dir)
        if tracks.TRACKS in found.features.annotations:
            raise UserError(
                f"--from={name}: has tracks already: name the data set it was made from"
            )
        splits = {s: n.tolist() for s, n in found.splits.items() if s != "all"}
        for split in arguments.split:
            if split not in splits:
                raise UserError(
                    f"--split={split}: data set {name!r} has {', '.join(sorted(splits))}"
                )
        wanted: set[int] = set(range(len(found.offset)))
        if arguments.split:
            splits = {split: splits[split] for split in arguments.split}
            wanted = set().union(*splits.values())
        how, stored = read_options(arguments), stored_records(directory, found)
        names = [each.decode(errors="backslashreplace") for each in found.id_bytes]
        items = [
            base.Item(
                id=names[n],
                label=int(found.label[n]),
                encode=functools.partial(
                    tracks.encode_tracks, stored[n], names[n], how
                ),
            )
            for n in sorted(wanted)
        ]
        own = {n: tuple(shape) for n, shape in found.features.annotations.items()}
        more = {tracks.TRACKS: (how.tracks, 4), tracks.VISIBILITY: (how.tracks,)}
        checksums = [stored[n].checksum for n in sorted(wanted)]
        content = repr((found.features.digest, how, checksums))
        return base.Source(
            items,
            {split: [names[n] for n in numbers] for split, numbers in splits.items()},
            found.class_names,
            annotations=own | more,
            digest=hashlib.sha256(content.encode()).hexdigest(),
        )

    def orders(self, folder: str, receipts: str) -> list[shards.Order]:
        """As `base.VideoBuilder.orders`; says how long it will take."""
        orders = super().orders(folder, receipts)
        _announce(self.source.items, self.options.workers or workers.available_cores())
        return orders

    def assemble(self, folder: str, made: Sequence[shards.Shard]) -> None:
        """As `base.VideoBuilder.assemble`, with statistics and pictures of the tracks."""
        super().assemble(folder, made)
        found = index.read(folder)
        assert found
        names = [each.decode() for each in found.id_bytes]
        stored = stored_records(epath.Path(folder), found)
        lines = track_statistics.write(
            folder, dict(zip(names, stored, strict=True)), read_options(self.arguments)
        )
        epath.Path(folder, base.SUMMARY_FILE).write_text("\n".join(lines) + "\n")


def read_options(arguments: types.SimpleNamespace) -> tracks.Options:
    """The options of the flags. Raises `UserError` without a tracker."""
    opencv = trackers.require(arguments.tracker).__version__
    named = {field.name for field in dataclasses.fields(tracks.Options)} - {"opencv"}
    values = {name: getattr(arguments, name) for name in named}
    return tracks.Options(**values, opencv=opencv)


def stored_records(directory: epath.Path, found: index.Index) -> list[tracks.Stored]:
    """The records of a data set, with their checksums as they are in the files."""
    checksums = [b""] * len(found.offset)
    for number, file in enumerate(found.files):
        with (directory / file).open("rb") as opened:
            for n in np.flatnonzero(found.file_index == number):
                opened.seek(int(found.offset[n] + found.length[n]))
                checksums[n] = opened.read(tfrecord.FOOTER)
    return [
        tracks.Stored(
            path=os.fspath(directory / found.files[found.file_index[n]]),
            offset=int(found.offset[n]),
            length=int(found.length[n]),
            checksum=checksum,
            fps=float(found.fps[n]),
            features=found.features,
        )
        for n, checksum in enumerate(checksums)
    ]


def _announce(items: Sequence[workers.Item], cores: int) -> None:
    """Says how long it will take, after trying a few videos."""
    if len(items) < _ESTIMATED_FROM:
        return
    tried, start = items[:: len(items) // 2], time.perf_counter()
    for item in tried:
        with contextlib.suppress(video.VideoError):
            item.encode()
    each = (time.perf_counter() - start) / len(tried)
    print(
        f"note: {each:.1f} s per video of those tried: about "
        f"{duration(each * len(items) / cores)} for {len(items)} videos on {cores} cores",
        file=sys.stderr,
    )


_ESTIMATED_FROM = 50
"""Videos; of fewer, the progress bar soon says it."""

Builder = Tracks
