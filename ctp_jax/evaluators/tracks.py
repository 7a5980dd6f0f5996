"""Tracks of objects through whole videos: overlaps, a tracker's as a baseline, pictures.

Symbols: f frames of a video, n objects. Boxes x1 y1 x2 y2 are in shares of the frame's
width and height.
"""

import concurrent.futures
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from ctp_jax.ops.boxes import area_xyxy, iou_xyxy

_DRAWN, _TIMES = 6, 40  # videos and frames of each in the pictures
_CELL = (224, 126)  # width and height of a frame there


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


def errors(
    found: Float[np.ndarray, "*b 4"], truth: Float[np.ndarray, "*b 4"]
) -> dict[str, Float[np.ndarray, "*b"]]:
    """How far boxes in pixels are off.

    Returns:
        center_error: distance of the centres, pixels.
        size_error: difference of the square roots of the areas, pixels.
        center_error_share, size_error_share: as shares of the root of the true area, or
            of a pixel if that is smaller.
    """
    moved = found - truth
    centre = np.linalg.norm((moved[..., :2] + moved[..., 2:]) / 2, axis=-1)
    root = np.sqrt(area_xyxy(truth))
    size = np.abs(np.sqrt(area_xyxy(found)) - root)
    pixels = {"center_error": centre, "size_error": size}
    unit = np.maximum(root, 1.0)
    return pixels | {f"{name}_share": each / unit for name, each in pixels.items()}


def mean(
    values: Float[np.ndarray, "n f"], seen: Bool[np.ndarray, "n f"], axis: int
) -> Float[np.ndarray, " _"]:
    """The mean over an axis of the values that are seen; NaN where there are none."""
    count = seen.sum(axis=axis)
    total = np.where(seen, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def gain_error(
    totals: Num[np.ndarray, " n"], counts: Num[np.ndarray, " n"]
) -> float | None:
    """The standard error of the mean gain of all boxes, where n videos are independent.

    Of a ratio of sums, so that a video counts by its boxes (Cochran, "Sampling Techniques",
    section 6.3). Of a single video, whose error is not known, it is the gain itself.

    Args:
        totals: sum of the gains of each video's boxes.
        counts: how many boxes that are; without any, a video is left out.
    """
    totals, counts = totals[counts > 0], counts[counts > 0]
    if not len(counts):
        return None
    gain, n = totals.sum() / counts.sum(), len(counts)
    if n == 1:
        return abs(float(gain))
    rest = np.square(totals - counts * gain).sum() * n / (n - 1)
    return float(np.sqrt(rest) / counts.sum())


def per_frame(tracks: list[Track], name: str) -> Float[np.ndarray, " f"]:
    """Mean overlap of all tracks in each frame; NaN where none counts."""
    shape = len(tracks), max(len(track.truth) for track in tracks)
    overlap, seen = np.zeros(shape), np.zeros(shape, bool)
    for row, track in enumerate(tracks):
        until = len(track.truth)
        seen[row, :until] = track.visible
        overlap[row, :until] = official_iou(track.tracks[name], track.truth)
    return mean(overlap, seen, axis=0)


def follow_with_kcf(
    records: Any, wanted: Iterable[tuple[int, Sequence[int], np.ndarray]]
) -> list[np.ndarray]:
    """KCF's boxes, (f, 4) for each, in threads: OpenCV and the decoder need no Python.

    Args:
        records: `ctp_jax.data.records.Records` of the videos.
        wanted: the number of a record, its frames, and the box in the first of these.

    Raises:
        UserError: there is no such tracker, see `ctp_jax.trackers.require`.
    """
    from ctp_jax import trackers

    trackers.require("kcf")
    # Imported here, because reading frames imports TensorFlow.
    from ctp_jax.data import reading

    read = reading.read_features(records)

    def follow(each) -> np.ndarray:
        number, times, box = each
        sides = np.tile([records.width[number], records.height[number]], 2)
        frames = reading.stored_frames(records, number, times, read)
        return trackers.follow(frames, box * sides, "kcf")[0] / sides

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(follow, wanted))


def draw(directory: pathlib.Path, records: Any, tracks: list[Track]) -> None:
    """Writes tracks.png and tracks.gif: some of the videos, with all boxes.

    Args:
        directory: of the pictures.
        records: `ctp_jax.data.records.Records` of the videos.
        tracks: at least one.
    """
    # Imported here, because reading frames imports TensorFlow.
    from ctp_jax import pictures
    from ctp_jax.data import reading

    chosen = np.linspace(0, len(tracks) - 1, min(_DRAWN, len(tracks)))
    shown = [tracks[i] for i in chosen.round().astype(int)]
    clips, boxes = [], []
    for track in shown:
        times = np.linspace(0, len(track.truth) - 1, _TIMES).round().astype(int)
        frames = reading.stored_frames(records, track.number, times.tolist())
        truth = np.where(track.visible[:, None], track.truth, np.nan)
        lines = [truth, *(track.tracks.get(name) for name in ("_kcf", ""))]
        lines = np.stack([line[times] for line in lines if line is not None])
        for out, part in zip(
            (clips, boxes),
            pictures.fit(list(frames), lines, _CELL),
            strict=True,
        ):
            out.append(part)
    clips, boxes = np.stack(clips), np.stack(boxes)
    kcf = ", KCF blue" * (boxes.shape[1] > 2)
    title = f"{records.split}: true boxes solid, predicted dashed{kcf}"
    drawn = (clips, boxes[:, :-1], boxes[:, -1:])
    names = [records.id_of(track.number) for track in shown]
    sheet = pictures.contact_sheet(*drawn, title=title, names=names, zoom=1)
    sheet.save(directory / "tracks.png", optimize=True)
    pictures.save_animation(
        directory / "tracks.gif", *drawn, title=title, columns=3, zoom=1
    )
