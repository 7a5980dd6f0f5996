"""How well objects are followed through whole videos (paper Fig. 3, GOT-10k).

Symbols: t frames of a window, f frames of a video, n objects. Boxes x1 y1 x2 y2 are in
shares of the frame's width and height.
"""

import concurrent.futures
import csv
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import num_windows
from ctp_jax.errors import UserError
from ctp_jax.evaluators.base import Evaluator, Subject
from ctp_jax.ops.boxes import iou_xyxy

LOOKS_AT = "sequences"

_DRAWN, _TIMES = 6, 40  # videos and frames of each in the pictures
_CELL = (224, 126)  # width and height of a frame there
_HEADER = ("video", "object", "frames", "ao", "ao_stay_put", "ao_kcf")


class Track(NamedTuple):
    """One object in one video.

    Attributes:
        number: of the record.
        of: number of the object.
        truth: its boxes.
        visible: where they count.
        tracks: predicted ones by name, from the first box of the video: '' those of the
            network, '_stay_put' and '_kcf' the baselines.
    """

    number: int
    of: int
    truth: Float[np.ndarray, "f 4"]
    visible: Bool[np.ndarray, " f"]
    tracks: dict[str, Float[np.ndarray, "f 4"]]

    def scored(self, name: str) -> Float[np.ndarray, " _"]:
        """Overlaps in the frames that count; the first one is given and does not."""
        found = official_iou(self.tracks[name], self.truth)
        return found[1:][self.visible[1:]]


def official_iou(
    a: Float[np.ndarray, "*b 4"], b: Float[np.ndarray, "*b 4"]
) -> Float[np.ndarray, "*b"]:
    """Overlap of boxes that are cut to the image, as GOT-10k's toolkit cuts them.

    It moves a corner that is left of the image or above it to the border, and keeps width
    and height as far as the image reaches: such a box is moved rather than cut.
    """
    sides = (each[..., 2:] - each[..., :2] for each in (a, b))
    low = [np.clip(each[..., :2], 0.0, 1.0) for each in (a, b)]
    sides = [np.clip(s, 0.0, 1.0 - at) for s, at in zip(sides, low, strict=True)]
    return iou_xyxy(
        *(
            np.concatenate([at, at + s], axis=-1)
            for s, at in zip(sides, low, strict=True)
        )
    )


class SequencesEvaluator(Evaluator):
    """Overlap in windows that are given their true first box, and in whole videos.

    Only frames count in which the object is visible. Objects that are not visible in the
    first frame of a window, or of a video, are left out there.

    Yields:
        window_iou: mean over windows of the mean over frames 2 to t, the paper's.
        window_iou_all: with frame 1, which is given.
        window_iou_per_frame: array (t,), over windows.
        ao: GOT-10k's average overlap: every video is tracked from its first box alone, in
            windows that are chained; over all frames but the first, of all videos.
        sr50, sr75: share of these frames with an overlap above 0.5 and 0.75.
        track_per_frame: array, mean overlap in each frame of the videos.
        center_error, size_error: of these tracks, in pixels of the stored frames: mean
            distance of the centres, and difference of the square roots of the areas.
        center_error_share, size_error_share: as shares of the root of the true area.
        *_stay_put: the same for a box that stays where it was given.
        ao_kcf, sr50_kcf, sr75_kcf: with `kcf`, those of the tracker KCF.
    """

    def __init__(self, held_out: Any, kcf: bool = False):
        """See the class.

        Args:
            held_out: `ctp_jax.data.records.Records` of the split.
            kcf: also follow with KCF, once per run.
        """
        self._records, self._kcf = held_out, kcf
        self._no_kcf = ""
        self._followed: dict[tuple[int, int], np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        self._windows: dict[int, dict[int, dict[str, np.ndarray]]] = {}
        self._found: list[Track] | None = None

    def update(
        self, batch: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
    ) -> None:
        names = ("boxes", "predicted", "chained")
        for row in np.flatnonzero(np.asarray(batch["mask"]) > 0):
            times = np.asarray(batch["times"][row, 0])
            # The last frame is repeated where a video ends within a window.
            new = np.concatenate([[True], times[1:] > times[:-1]])
            window = {name: np.float64(outputs[name][row]) for name in names}
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
                continue
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
                tracks["_stay_put"] = np.broadcast_to(truth[:1], truth.shape)
                if visible[0]:
                    found.append(Track(number, of, truth, visible, tracks))
        if not found:
            raise UserError(
                f"{self._records.name}: no video of split {self._records.split!r} has an "
                "object in its first frame that could be followed"
            )
        self._found = found
        if self._kcf and not self._no_kcf:
            self._follow_with_kcf(found)
        return found

    def results(self) -> Iterator[tuple[str, Any]]:
        tracks = self._tracks()
        for suffix in ("", "_stay_put"):
            yield from self._of_windows(suffix)
        for suffix in tracks[0].tracks:
            overlap = np.concatenate([track.scored(suffix) for track in tracks])
            yield f"ao{suffix}", float(overlap.mean()) if overlap.size else 0.0
            for share in (0.5, 0.75):
                above = float((overlap > share).mean()) if overlap.size else 0.0
                yield f"sr{100 * share:.0f}{suffix}", above
            yield f"track_per_frame{suffix}", _per_frame(tracks, suffix)
        errors = np.concatenate([self._errors(track) for track in tracks], axis=1)
        kinds = ("center_error", "size_error", "center_error_share", "size_error_share")
        for name, values in zip(kinds, errors, strict=True):
            yield name, float(values.mean()) if values.size else 0.0

    def _of_windows(self, suffix: str) -> Iterator[tuple[str, Any]]:
        overlaps, counted = [], []
        for windows in self._windows.values():
            for each in windows.values():
                stay = each["boxes"][:, :1]
                overlap = iou_xyxy(stay if suffix else each["predicted"], each["boxes"])
                overlaps.append(np.where(each["visible"], overlap, np.nan))
                counted.append(each["visible"][:, 0] & each["visible"][:, 1:].any(1))
        overlap = np.concatenate(overlaps)[np.concatenate(counted)]
        if not len(overlap):
            return
        yield f"window_iou{suffix}", float(np.nanmean(overlap[:, 1:], axis=1).mean())
        yield f"window_iou_all{suffix}", float(np.nanmean(overlap, axis=1).mean())
        yield f"window_iou_per_frame{suffix}", np.nanmean(overlap, axis=0)

    def _errors(self, track: Track) -> Float[np.ndarray, "4 _"]:
        size = [getattr(self._records, side)[track.number] for side in ("width", "height")]
        kept = np.flatnonzero(track.visible[1:]) + 1
        centres, roots = [], []
        for boxes in (track.tracks[""][kept], track.truth[kept]):
            low, high = boxes[:, :2] * size, boxes[:, 2:] * size
            centres.append((low + high) / 2)
            roots.append(np.sqrt(np.prod(high - low, axis=-1)))
        centre = np.linalg.norm(centres[0] - centres[1], axis=-1)
        of_size = np.abs(roots[0] - roots[1])
        one_pixel = np.maximum(roots[1], 1.0)
        return np.stack([centre, of_size, centre / one_pixel, of_size / one_pixel])

    def _follow_with_kcf(self, tracks: list[Track]) -> None:
        """Adds KCF's tracks; in threads, since OpenCV and the decoder need no Python."""
        from ctp_jax import trackers

        try:
            trackers.require("kcf")
        except UserError as error:
            self._no_kcf = f"no baseline of KCF: {error}"
            return
        # Imported here, because reading frames imports TensorFlow.
        from ctp_jax.data import reading

        read = reading.read_features(self._records)

        def follow(track: Track) -> np.ndarray:
            number = track.number
            size = [int(self._records.width[number]), int(self._records.height[number])]
            times = range(len(track.truth))
            frames = reading.stored_frames(self._records, number, times, read)
            first = track.truth[0] * (2 * size)
            return trackers.follow(frames, first, "kcf")[0] / (2 * size)

        new = [each for each in tracks if (each.number, each.of) not in self._followed]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for track, boxes in zip(new, pool.map(follow, new), strict=True):
                self._followed[track.number, track.of] = boxes
        for track in tracks:
            track.tracks["_kcf"] = self._followed[track.number, track.of]

    def notes(self) -> list[str]:
        """Lines for the user: videos that are left out, a baseline that is missing."""
        tracked = {track.number for track in self._tracks()}
        left_out = len(self._windows.keys() - tracked)
        line = f"{left_out} videos without a box in their first frame are left out"
        return [line] * bool(left_out) + list(filter(None, [self._no_kcf]))

    def save(self, directory: pathlib.Path) -> None:
        """Writes tracks.csv, a row per object; tracks.png and tracks.gif."""
        tracks = self._tracks()
        with (directory / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_HEADER)
            for track in tracks:
                name = self._records.id_of(track.number)
                mean = [
                    f"{track.scored(suffix).mean():.4f}" if suffix in track.tracks else ""
                    for suffix in ("", "_stay_put", "_kcf")
                    if track.visible[1:].any()
                ]
                writer.writerow((name, track.of, len(track.truth), *mean))
        self._draw(directory, tracks)

    def _draw(self, directory: pathlib.Path, tracks: list[Track]) -> None:
        # Imported here, because reading frames imports TensorFlow.
        from ctp_jax import pictures
        from ctp_jax.data import reading

        chosen = np.linspace(0, len(tracks) - 1, min(_DRAWN, len(tracks)))
        shown = [tracks[i] for i in chosen.round().astype(int)]
        clips, boxes = [], []
        for track in shown:
            times = np.linspace(0, len(track.truth) - 1, _TIMES).round().astype(int)
            frames = reading.stored_frames(
                self._records, track.number, times.tolist()
            )
            lines = [track.truth, *(track.tracks.get(n) for n in ("_kcf", ""))]
            lines = np.stack([line[times] for line in lines if line is not None])
            for out, part in zip(
                (clips, boxes),
                pictures.fit(list(frames), lines, _CELL),
                strict=True,
            ):
                out.append(part)
        clips, boxes = np.stack(clips), np.stack(boxes)
        kcf = ", KCF blue" * (boxes.shape[1] > 2)
        title = f"{self._records.split}: true boxes yellow, predicted dashed{kcf}"
        drawn = (clips, boxes[:, :-1], boxes[:, -1:])
        names = [self._records.id_of(track.number) for track in shown]
        sheet = pictures.contact_sheet(*drawn, title=title, names=names, zoom=1)
        sheet.quantize(256).save(directory / "tracks.png", optimize=True)
        pictures.save_animation(
            directory / "tracks.gif", *drawn, title=title, columns=3, zoom=1
        )


def _per_frame(tracks: list[Track], name: str) -> Float[np.ndarray, " f"]:
    """Mean overlap of all tracks in each frame; NaN where none counts."""
    longest = max(len(track.truth) for track in tracks)
    total, count = np.zeros(longest), np.zeros(longest)
    for track in tracks:
        at = np.flatnonzero(track.visible)
        total[at] += official_iou(track.tracks[name], track.truth)[at]
        count[at] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def make(options: ConfigDict, subject: Subject) -> SequencesEvaluator:
    """See `ctp_jax.evaluators.base`; `kcf` in the options adds that baseline."""
    return SequencesEvaluator(subject.held_out, bool(options.get("kcf", False)))
