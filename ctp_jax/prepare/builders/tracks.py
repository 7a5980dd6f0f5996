"""A copy of a prepared data set with tracks. See `ctp_jax.prepare.tracks`."""

import contextlib
import dataclasses
import functools
import sys
import time
import types
from collections.abc import Sequence

import numpy as np
from absl import flags
from etils import epath

from ctp_jax import trackers
from ctp_jax.data import index, records
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
        share = functools.partial(flags.DEFINE_float, flag_values=values)
        flags.DEFINE_string(
            "from", "", "Name of the prepared data set.", flag_values=values
        )
        flags.DEFINE_list(
            "split",
            [],
            "Only the videos of these splits, e.g. train01,test01; default: all.",
            flag_values=values,
        )
        flags.DEFINE_enum(
            "tracker",
            "kcf",
            trackers.TRACKERS,
            "kcf: the paper's, boxes keep their size; csrt and median_flow adapt it.",
            flag_values=values,
        )
        number("tracks", 20, "Tracks per video.", lower_bound=1, upper_bound=1000)
        number("length", 80, "Frames of a track.", lower_bound=2)
        number("min_valid", 16, "Frames in which a track must be known.", lower_bound=1)
        share(
            "min_std",
            8.0,
            "Standard deviation of the grey levels in a box that is followed.",
            lower_bound=0,
            upper_bound=127.5,
        )
        share(
            "min_iou",
            0.5,
            "Overlap of a track's first box with where it ends when followed back.",
            lower_bound=0,
            upper_bound=1,
        )
        number("seed", 0, "Another follows other boxes.", lower_bound=0)

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        name, data_dir = getattr(arguments, "from"), getattr(arguments, "data_dir", "")
        if not name:
            raise UserError("--from: needs the name of a prepared data set")
        if name == getattr(arguments, "name", ""):
            raise UserError(f"--name={name}: is the data set of --from: choose another")
        directory, found = records.open_index(name, data_dir)
        if tracks.TRACKS in found.features.annotations:
            raise UserError(
                f"--from={name}: has tracks already: name the data set it was made from"
            )
        how = read_options(arguments)
        splits = {s: n for s, n in found.splits.items() if s != "all"}
        for split in arguments.split:
            if split not in splits:
                raise UserError(
                    f"--split={split}: data set {name!r} has {', '.join(sorted(splits))}"
                )
        chosen = {s: n for s, n in splits.items() if s in (arguments.split or splits)}
        names = [each.decode(errors="backslashreplace") for each in found.id_bytes]
        wanted = set(range(len(names)))
        if arguments.split:
            wanted = {int(n) for numbers in chosen.values() for n in numbers}
        places = _places(directory, found)
        items = [
            base.Item(
                id=names[n],
                label=int(found.label[n]),
                encode=functools.partial(
                    tracks.encode_tracks, places[n], names[n], how
                ),
            )
            for n in sorted(wanted)
        ]
        more = {tracks.TRACKS: (how.tracks, 4), tracks.VISIBILITY: (how.tracks,)}
        return base.Source(
            items,
            {s: [names[n] for n in numbers] for s, numbers in chosen.items()},
            found.class_names,
            annotations={
                name: tuple(shape) for name, shape in found.features.annotations.items()
            }
            | more,
        )

    def orders(self, folder: str, receipts: str) -> list[shards.Order]:
        """As `base.VideoBuilder.orders`; says how long it will take."""
        orders = super().orders(folder, receipts)
        _announce(self.source.items, self.options.workers or workers.available_cores())
        return orders

    def assemble(self, folder: str, made: Sequence[shards.Shard]) -> None:
        """As `base.VideoBuilder.assemble`, with statistics and pictures of the tracks."""
        stored: dict[str, tracks.Stored] = {}
        for shard in made:
            rows = [(row.offset, row.length, row.fps) for row in shard.rows]
            path, names = epath.Path(folder, shard.name), self.schema.names()
            found = tracks.stored_records(path, rows, names)
            ids = (row.id.decode() for row in shard.rows)
            stored.update(zip(ids, found, strict=True))
        if stored:
            options = read_options(self.arguments)
            lines = track_statistics.write(folder, stored, options)
            epath.Path(folder, base.SUMMARY_FILE).write_text("\n".join(lines) + "\n")
        super().assemble(folder, made)


def read_options(arguments: types.SimpleNamespace) -> tracks.Options:
    """The options of the flags. Raises `UserError` without a tracker."""
    opencv = trackers.require(arguments.tracker).__version__
    named = {field.name for field in dataclasses.fields(tracks.Options)} - {"opencv"}
    values = {name: getattr(arguments, name) for name in named}
    return tracks.Options(**values, opencv=opencv)


def _places(directory: epath.Path, found: index.Index) -> list[tracks.Stored]:
    """The records of a data set."""
    places: list[tracks.Stored | None] = [None] * len(found.offset)
    for number, file in enumerate(found.files):
        here = np.flatnonzero(found.file_index == number).tolist()
        rows = [
            (int(found.offset[n]), int(found.length[n]), float(found.fps[n]))
            for n in here
        ]
        stored = tracks.stored_records(directory / file, rows, found.features)
        for n, place in zip(here, stored, strict=True):
            places[n] = place
    return [place for place in places if place is not None]


def _announce(items: Sequence[workers.Item], cores: int) -> None:
    """Says how long it will take, after trying a few videos."""
    if len(items) < _ESTIMATED_FROM:
        return
    start = time.perf_counter()
    for item in items[:: len(items) // 2]:
        with contextlib.suppress(video.VideoError):
            item.encode()
    each = (time.perf_counter() - start) / len(items[:: len(items) // 2])
    print(
        f"note: {each:.1f} s per video of those tried: about "
        f"{duration(each * len(items) / cores)} for {len(items)} videos on {cores} cores",
        file=sys.stderr,
    )


_ESTIMATED_FROM = 50

Builder = Tracks
