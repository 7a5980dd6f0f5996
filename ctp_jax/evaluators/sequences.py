"""How well objects are followed through whole videos (paper Fig. 3, GOT-10k).

Symbols: t frames of a window, f frames of a video, n objects. Boxes x1 y1 x2 y2 are in
shares of the frame's width and height.
"""

import csv
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, num_windows
from ctp_jax.errors import UserError
from ctp_jax.evaluators.base import Evaluator, Outputs, Subject
from ctp_jax.evaluators.tracks import (
    Track,
    draw,
    errors,
    follow_with_kcf,
    gain_error,
    mean,
    per_frame,
)
from ctp_jax.formatting import count
from ctp_jax.metrics_file import BASELINE, GAIN_ERROR, KCF, VIDEOS
from ctp_jax.ops.boxes import iou_xyxy

LOOKS_AT = "sequences"

_HEADER = ("video", "object", "frames", "ao", "ao_stay_put", "ao_kcf")


class SequencesEvaluator(Evaluator):
    """Overlap in windows that are given their true first box, and in whole videos.

    Only frames count in which the object is visible. Objects that are not visible in the
    first frame of a window, or of a video, are left out there. So is the last window of a
    video where it is shorter than the others.

    Yields:
        window_iou: mean over windows of the mean over frames 2 to t, the paper's.
        window_iou_all: with frame 1, which is given.
        window_iou_per_frame: array (t,), over windows.
        ao: GOT-10k's average overlap: every video is tracked from its first box alone, in
            windows that are chained; over all frames but the first, of all videos.
        sr50, sr75: share of these frames with an overlap above 0.5 and 0.75.
        track_per_frame: array, mean overlap in each frame of the videos.
        track_center_error, track_size_error, and with `_share`: means of `errors` of these
            tracks, in pixels of the stored frames.
        *_stay_put: the same for a box that stays where it was given.
        *_kcf: with `kcf`, the same for the tracker KCF.
        *_gain_error: of ao, sr and the errors, see `ctp_jax.metrics_file`, over videos.
        sequences_videos: that were tracked.
    """

    def __init__(self, held_out: Any, kcf: bool = False):
        """See the class.

        Args:
            held_out: `ctp_jax.data.records.Records` of the split.
            kcf: also follow with KCF, once per run.
        """
        self._records, self._kcf = held_out, kcf
        self._no_kcf = ""
        self._followed: dict[tuple, np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        self._windows: dict[int, dict[int, dict[str, np.ndarray]]] = {}
        self._complete: set[int] = set()
        self._found: list[Track] | None = None

    def update(self, batch: Batch, outputs: Outputs) -> None:
        names = ("boxes", "predicted", "chained")
        for row in np.flatnonzero(np.asarray(batch["mask"]) > 0):
            times = np.asarray(batch["times"][row, 0])
            # The last frame is repeated where a video ends within a window.
            new = np.concatenate([[True], times[1:] > times[:-1]])
            window: dict[str, np.ndarray] = {
                name: np.asarray(outputs[name][row], np.float64) for name in names
            }
            window["visible"] = (np.asarray(outputs["visibility"][row]) > 0) & new
            window["times"] = times[new]
            number, which = int(batch["index"][row]), int(batch["choice"][row, 0])
            self._windows.setdefault(number, {})[which] = window

    def _tracks(self) -> list[Track]:
        """The tracks of all objects; of videos without a gap alone."""
        if self._found is not None:
            return self._found
        found = []
        for number, windows in sorted(self._windows.items()):
            length = next(iter(windows.values()))["boxes"].shape[1]
            count = int(num_windows(self._records.num_frames[number], length))
            if set(windows) != set(range(count)):
                continue  # unreadable in a part; whoever reads says so
            self._complete.add(number)
            parts = [windows[which] for which in range(count)]
            joined = {
                name: np.concatenate(
                    [
                        each[name][:, which > 0 : len(each["times"])]
                        for which, each in enumerate(parts)
                    ],
                    axis=1,
                )
                for name in ("boxes", "chained", "visible")
            }
            for of, visible in enumerate(joined["visible"]):
                truth = joined["boxes"][of]
                tracks = {"": joined["chained"][of]}
                tracks[BASELINE] = np.broadcast_to(truth[:1], truth.shape)
                if visible[0]:
                    found.append(Track(number, of, truth, visible, tracks))
        if not found:
            raise UserError(
                f"{self._records.name}: no video of split {self._records.split!r} has an "
                "object in its first frame that could be followed"
            )
        self._found = found
        if self._kcf and not self._no_kcf:
            self._add_kcf(found)
        return found

    def _whole_windows(self) -> list[tuple[tuple[int, int], dict[str, np.ndarray]]]:
        """((video, which), window) of those that count, in order."""
        found = []
        for number, windows in sorted(self._windows.items()):
            for which, window in sorted(windows.items()):
                length = window["boxes"].shape[1]
                whole = len(window["times"]) == length
                if whole or self._records.num_frames[number] < length:
                    found.append(((number, which), window))
        return found

    def _add_kcf(self, tracks: list[Track]) -> None:
        """Adds KCF's boxes, which are made once in a run, to tracks and to windows."""
        wanted: dict[tuple, Any] = {
            track[:2]: (track.number, range(len(track.truth)), track.truth[0])
            for track in tracks
        }
        for key, window in self._whole_windows():
            for of in np.flatnonzero(window["visible"][:, 0]):
                times = window["times"].tolist()
                wanted[*key, of] = key[0], times, window["boxes"][of, 0]
        new = [key for key in wanted if key not in self._followed]
        try:
            made = follow_with_kcf(self._records, [wanted[key] for key in new])
        except UserError as error:
            self._no_kcf = f"no baseline of KCF: {error}"
            return
        self._followed.update(zip(new, made, strict=True))
        for track in tracks:
            track.tracks[KCF] = self._followed[track[:2]]
        for key, window in self._whole_windows():
            window["kcf"] = np.array(window["boxes"])
            for of in np.flatnonzero(window["visible"][:, 0]):
                window["kcf"][of, : len(window["times"])] = self._followed[*key, of]

    def results(self) -> Iterator[tuple[str, Any]]:
        tracks = self._tracks()
        for suffix in tracks[0].tracks:
            yield from self._of_windows(suffix)
        scores: dict[str, list[dict[str, np.ndarray]]] = {}
        for suffix in tracks[0].tracks:
            scores[suffix] = [self._scores(track, suffix) for track in tracks]
            for name in scores[suffix][0]:
                values = np.concatenate([each[name] for each in scores[suffix]])
                if values.size:
                    yield name + suffix, float(values.mean())
            yield f"track_per_frame{suffix}", per_frame(tracks, suffix)
        videos = np.array([track.number for track in tracks])
        for name in scores[""][0]:
            pairs = zip(scores[""], scores[BASELINE], strict=True)
            gains = [one[name].sum() - two[name].sum() for one, two in pairs]
            counts = [each[name].size for each in scores[""]]
            # Objects of one video are not independent.
            by_video = (np.bincount(videos, each) for each in (gains, counts))
            if (error := gain_error(*by_video)) is not None:
                yield name + GAIN_ERROR, error
        yield f"sequences_{VIDEOS}", len({track.number for track in tracks})

    def _of_windows(self, suffix: str) -> Iterator[tuple[str, Any]]:
        every = [window for _, window in self._whole_windows()]
        seen = np.concatenate([each["visible"] for each in every])
        found = {
            "": lambda each: each["predicted"],
            BASELINE: lambda each: each["boxes"][:, :1],
            KCF: lambda each: each["kcf"],
        }[suffix]
        overlap = np.concatenate(
            [iou_xyxy(found(each), each["boxes"]) for each in every]
        )
        counted = seen[:, 0] & seen[:, 1:].any(axis=1)
        if not counted.any():
            return
        overlap, seen = overlap[counted], seen[counted]
        later = mean(overlap[:, 1:], seen[:, 1:], axis=1)
        yield f"window_iou{suffix}", float(later.mean())
        yield f"window_iou_all{suffix}", float(mean(overlap, seen, axis=1).mean())
        yield f"window_iou_per_frame{suffix}", mean(overlap, seen, axis=0)

    def _scores(self, track: Track, suffix: str) -> dict[str, np.ndarray]:
        """By the names of the metrics, of the frames that are scored."""
        overlap = track.scored(suffix)
        sides = [getattr(self._records, of)[track.number] for of in ("width", "height")]
        boxes = track.tracks[suffix], track.truth
        wrong = errors(
            *(each[1:][track.visible[1:]] * np.tile(sides, 2) for each in boxes)
        )
        return {
            "ao": overlap,
            "sr50": overlap > 0.5,
            "sr75": overlap > 0.75,
            **{f"track_{name}": values for name, values in wrong.items()},
        }

    def notes(self) -> list[str]:
        """Lines for the user: videos that are left out, a baseline that is missing."""
        tracked = {track.number for track in self._tracks()}
        left_out = len(self._complete - tracked)
        line = f"left out, no box in the first frame: {count(left_out, 'video')}"
        return [line] * bool(left_out) + list(filter(None, [self._no_kcf]))

    def save(self, directory: pathlib.Path) -> None:
        """Writes tracks.csv, a row per object; tracks.png and tracks.gif."""
        tracks = self._tracks()
        with (directory / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_HEADER)
            for track in tracks:
                name = self._records.id_of(track.number)
                scores = [
                    f"{track.scored(suffix).mean():.4f}"
                    if suffix in track.tracks
                    else ""
                    for suffix in ("", BASELINE, KCF)
                    if track.visible[1:].any()
                ]
                writer.writerow((name, track.of, len(track.truth), *scores))
        draw(directory, self._records, tracks)


def make(options: ConfigDict, subject: Subject) -> SequencesEvaluator:
    """See `ctp_jax.evaluators.base`; `kcf` in the options adds that baseline."""
    return SequencesEvaluator(subject.held_out, bool(options.get("kcf", False)))
