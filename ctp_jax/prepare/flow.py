"""Optical flow of the videos of a prepared data set, as CoCLR stores it.

Worker processes import this module: neither TensorFlow nor TFDS at the top.
Symbols: k frames of a video, h w pixels.
"""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np
from etils import epath

from ctp_jax import flow, pictures, terminal
from ctp_jax.prepare import stored as stored_lib
from ctp_jax.prepare import video

STATISTICS, SHEET = "flow.json", "flow.png"
"""Beside the shards."""

AT_BOUND = 0.98
"""Share of the bound from which a motion counts as clipped: JPEG blurs the bound."""

_SAMPLED = 8  # frames of every video, for statistics and the picture
_SHOWN = 4  # videos in the picture
_FINE = 1000  # bins of the histogram, per bound


@dataclasses.dataclass(frozen=True)
class Options:
    """How flow is computed and stored. All of it decides what is written.

    Attributes:
        method: one of `flow.METHODS`.
        bound: pixels to the next frame; larger motions are clipped, each axis by itself.
        quality: of the JPEG files.
        opencv: its version.
    """

    method: str
    bound: float
    quality: int
    opencv: str


def encode_flow(
    stored: stored_lib.Stored, name: str, options: Options
) -> video.EncodedVideo:
    """The video of a record as it is, with flow frames.

    Args:
        stored: where it is.
        name: of the video; decides nothing.
        options: how.

    Raises:
        VideoError: the record or a frame cannot be read.
        RuntimeError: another OpenCV than that of the machine that started the job.
    """
    del name
    found = flow.require(options.method).__version__
    stored_lib.check_opencv(found, options.opencv)
    with video.errors_of_one_file():
        encoded = stored_lib.read(stored)
        motions = flow.compute(stored_lib.decode(encoded.frames), options.method)
        images = (flow.to_image(motion, options.bound) for motion in motions)
        files = [video.encode_jpeg(image, options.quality) for image in images]
    return dataclasses.replace(encoded, flow=files)


def write_statistics(
    folder: str, records_: Mapping[str, stored_lib.Stored], options: Options
) -> list[str]:
    """Writes `STATISTICS` and `SHEET` into a folder, from some frames of every video.

    Args:
        folder: of the shards.
        records_: the records by the names of their videos.
        options: how flow was computed.

    Returns:
        Lines for the summary.
    """
    names = sorted(records_)
    shown, clips = set(names[:: -(-len(names) // _SHOWN)]), {}
    # The longest motion has both components at the bound.
    edges = np.linspace(0, options.bound * np.sqrt(2), _FINE + 1)
    counts, clipped = np.zeros(_FINE, np.int64), 0
    for name in terminal.progress(names, "statistics", len(names), unit="videos"):
        encoded = stored_lib.read(records_[name])
        times = np.linspace(0, len(encoded.frames) - 1, _SAMPLED).round().astype(int)
        images = stored_lib.decode([encoded.flow[t] for t in times])
        motion = flow.from_image(images, options.bound)
        length = np.linalg.norm(motion, axis=-1).clip(max=edges[-1])
        counts += np.histogram(length, edges)[0]
        clipped += int((np.abs(motion).max(axis=-1) >= AT_BOUND * options.bound).sum())
        if name in shown:
            frames = stored_lib.decode([encoded.frames[t] for t in times])
            clips[f"{name}: frames {times[0]} to {times[-1]}"] = frames, images
    shares = np.cumsum(counts) / counts.sum()
    wanted = (5, 25, 50, 75, 95)
    pixels = {f"{p} %": edges[1:][np.searchsorted(shares, p / 100)] for p in wanted}
    about = {
        "options": dataclasses.asdict(options),
        "frames looked at": _SAMPLED * len(names),
        "pixels per frame": {p: round(float(v), 2) for p, v in pixels.items()},
        "share clipped": clipped / int(counts.sum()),
    }
    where = epath.Path(folder)
    (where / STATISTICS).write_text(json.dumps(about, indent=1) + "\n")
    (where / SHEET).write_bytes(_sheet(clips, options, pixels["95 %"]))
    return [
        (
            f"half of the pixels move less than {pixels['50 %']:.2f} pixels per frame, 95 % "
            f"less than {pixels['95 %']:.2f}; {100 * about['share clipped']:.2f} % are "
            f"clipped at {options.bound:g}: see {STATISTICS} and {SHEET} there"
        )
    ]


def _sheet(
    shown: Mapping[str, tuple[np.ndarray, np.ndarray]], options: Options, large: float
) -> bytes:
    """Frames above their flow, PNG; smaller frames get a grey margin.

    Args:
        shown: frames and flow frames, uint8 (t, h, w, 3), by a title.
        options: how flow was computed.
        large: a motion to be seen well, pixels; smaller ones are drawn stronger.
    """
    gain = max(1, round(options.bound / 2 / max(large, 0.1)))
    clips = []
    for frames, images in shown.values():
        strong = np.clip((images - float(flow.ZERO)) * gain + flow.ZERO, 0, 255)
        clips += [frames, strong]
    about = "their flow: red to the right, green down"
    sheet = pictures.contact_sheet(
        pictures.with_margins(clips),
        np.zeros((len(clips), 0, _SAMPLED, 4)),
        title=f"{options.method}, clipped at {options.bound:g} pixels per frame, "
        f"drawn {gain} times as strong as it is stored",
        names=[line for title in shown for line in (title, about)],
        columns=_SAMPLED,
    )
    return pictures.png(sheet)
