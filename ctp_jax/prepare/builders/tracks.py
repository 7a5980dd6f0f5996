"""A copy of a prepared data set with tracks. See `ctp_jax.prepare.tracks`."""

import dataclasses
import types

from ctp_jax import trackers
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.prepare import track_statistics, tracks
from ctp_jax.prepare.builders import base, derived


class Tracks(derived.Derived):
    """The videos of a prepared data set, --from, with boxes that a tracker of OpenCV
    follows: the teacher of the paper's Table 1. Frames, labels and splits stay as they
    are."""

    DESCRIPTION = "Videos of another data set with boxes that a tracker followed."
    NAME = "{from}_tracks"
    CONFIG = "configs/small.py:truth=teacher"
    UNUSED = ("short_side", "quality")
    encode = staticmethod(tracks.encode_tracks)
    write_statistics = staticmethod(track_statistics.write)

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        super().define_flags(values)
        about = "kcf: the paper's, boxes keep their size; csrt, median_flow adapt it."
        values.choice("tracker", "kcf", trackers.TRACKERS, about)
        values.integer("tracks", 20, "Per video.", lower_bound=1, upper_bound=1000)
        values.integer("length", 80, "Frames of a track.", lower_bound=2)
        values.integer(
            "min_valid", 16, "Frames in which it must be known.", lower_bound=1
        )
        about = "Standard deviation of the grey levels in a box that is followed."
        values.number("min_std", 8.0, about, lower_bound=0, upper_bound=127)
        about = "Overlap of a track's first box and where it ends when followed back."
        values.number("min_iou", 0.5, about, lower_bound=0, upper_bound=1)
        values.integer("seed", 0, "Another follows other boxes.", lower_bound=0)

    @classmethod
    def read_options(cls, arguments: types.SimpleNamespace) -> tracks.Options:
        opencv = trackers.require(arguments.tracker).__version__
        named = {field.name for field in dataclasses.fields(tracks.Options)}
        values = {name: getattr(arguments, name) for name in named - {"opencv"}}
        return tracks.Options(**values, opencv=opencv)

    @classmethod
    def add(
        cls, source: base.Source, options: tracks.Options, name: str
    ) -> base.Source:
        if tracks.TRACKS in source.annotations:
            raise UserError(
                f"--from={name}: has tracks already: name the data set it was made from"
            )
        more = {
            tracks.TRACKS: (options.tracks, 4),
            tracks.VISIBILITY: (options.tracks,),
        }
        return dataclasses.replace(source, annotations={**source.annotations, **more})


Builder = Tracks
