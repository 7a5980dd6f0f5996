"""What the tracks of a data set are like: numbers, a histogram and a contact sheet.

Everything is read from the finished records, so it does not matter who wrote them.
"""

import collections
import dataclasses
import io
import json
from collections.abc import Mapping

import numpy as np
from etils import epath

from ctp_jax import pictures, terminal
from ctp_jax.prepare import stored as stored_lib
from ctp_jax.prepare import tracks, video

STATISTICS, HISTOGRAM, SHEET = "tracks.json", "tracks_histogram.png", "tracks.png"
"""Beside the shards."""

SPAN = 16
"""Frames of a clip."""
STILL = 2.0
"""Pixels that hardly count as a motion, in `SPAN` frames."""

_SHOWN = 6  # videos in the contact sheet
_COLUMNS = 8
_NAMES = ("kept", "flat", "lost", "strayed")  # in the order of `tracks.KEPT`, ...


def write(
    folder: str, stored: Mapping[str, stored_lib.Stored], options: tracks.Options
) -> list[str]:
    """Writes `STATISTICS`, `HISTOGRAM` and `SHEET` into a folder.

    Args:
        folder: of the shards.
        stored: the records by the names of their videos.
        options: how they were tracked.

    Returns:
        Lines for the summary.
    """
    counts, known, moved = collections.Counter(), [], []
    names = sorted(stored)
    shown = set(names[:: -(-len(names) // _SHOWN)])
    rows = []
    for name in terminal.progress(names, "statistics", len(names), unit="videos"):
        encoded = stored_lib.read(stored[name])
        boxes = encoded.annotations[tracks.TRACKS]
        visibility = encoded.annotations[tracks.VISIBILITY]
        fates = tracks.fates(boxes, visibility, options)
        counts.update(fates.tolist())
        known += visibility.sum(axis=0)[fates == tracks.KEPT].tolist()
        moved += tracks.displacements(boxes, visibility, SPAN)
        if name in shown:
            rows.append(_row(name, encoded, fates))
    total = sum(counts.values())
    shares = {word: counts[i] / total for i, word in enumerate(_NAMES)}
    still = float(np.mean(np.array(moved) < STILL)) if moved else None
    about = {
        "options": dataclasses.asdict(options),
        "tracks": total,
        "share": shares,
        "frames of kept tracks": _percentiles(known),
        f"pixels in {SPAN} frames": _percentiles(moved),
        f"share of less than {STILL:g} pixels in {SPAN} frames": still,
    }
    where = epath.Path(folder)
    (where / STATISTICS).write_text(json.dumps(about, indent=1) + "\n")
    (where / HISTOGRAM).write_bytes(_histogram(shares, known, moved))
    (where / SHEET).write_bytes(_sheet(rows, options))
    kept, flat, lost, strayed = (f"{100 * share:.1f} %" for share in shares.values())
    fate = (
        f"{kept} of {total} tracks are kept, the others flat ({flat}), lost ({lost}) or "
        f"not back at their start ({strayed})"
    )
    motion = (
        f"none that is kept is {SPAN} frames long"
        if still is None
        else f"{100 * still:.1f} % of what is kept moves less than {STILL:g} pixels in "
        f"{SPAN} frames"
    )
    motion += f": see {STATISTICS}, {HISTOGRAM} and {SHEET} there"
    return [fate, motion]


def _percentiles(values: list[float]) -> dict[str, float]:
    """Some percentiles; {} of nothing."""
    if not values:
        return {}
    wanted = (5, 25, 50, 75, 95)
    found = np.percentile(values, wanted).round(2).tolist()
    return {f"{p} %": value for p, value in zip(wanted, found, strict=True)}


def _histogram(shares: Mapping[str, float], known: list, moved: list) -> bytes:
    """A picture of the three distributions, PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3), layout="constrained")
    FigureCanvasAgg(figure)
    fate, length, motion = figure.subplots(1, 3)
    fate.bar(list(shares), [100 * share for share in shares.values()], color="#56b4e9")
    fate.set(title="what becomes of the tracks", ylabel="%")
    length.hist(known, bins=20, color="#56b4e9")
    length.set(title="frames of kept tracks", ylabel="tracks")
    edges = np.geomspace(0.5, 128, 25)
    motion.hist(np.clip(moved, edges[0], edges[-1]), bins=edges, color="#56b4e9")
    motion.axvline(STILL, color="#d55e00")
    motion.set(title=f"pixels in {SPAN} frames (line: {STILL:g})", xscale="log")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _row(
    name: str, encoded: video.EncodedVideo, fates: np.ndarray
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """A title, t frames, and boxes (m, t, 4) of kept and of dropped tracks.

    Of the group of tracks with the most that are kept; nan where there is no box.
    """
    groups = np.arange(len(fates)) // tracks.TOGETHER
    group = groups == np.bincount(groups, fates == tracks.KEPT).argmax()
    boxes = encoded.annotations[tracks.TRACKS][:, group]
    seen = encoded.annotations[tracks.VISIBILITY][:, group] > 0
    given = boxes[..., 2] > 0
    frames = np.flatnonzero(given.any(axis=1))
    ends = (frames[0], frames[-1]) if len(frames) else (0, len(boxes) - 1)
    times = np.linspace(*ends, _COLUMNS).round().astype(int)
    images = stored_lib.decode([encoded.frames[t] for t in times])
    kept, dropped = (
        np.where(mask[times, :, None], boxes[times], np.nan).swapaxes(0, 1)
        for mask in (seen, given & ~seen)
    )
    title = f"{name}: frames {ends[0]} to {ends[1]}"
    return title, images, kept, dropped


def _sheet(rows: list, options: tracks.Options) -> bytes:
    """The contact sheet, PNG; smaller frames get a grey margin."""
    names, clips, kept, dropped = zip(*rows, strict=True)
    sheet = pictures.contact_sheet(
        pictures.with_margins(clips),
        np.stack(kept),
        np.stack(dropped),
        title=f"{options.tracker}; solid: kept, dashed: dropped",
        names=names,
        columns=_COLUMNS,
    )
    return pictures.png(sheet)
