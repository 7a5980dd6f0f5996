"""Follows a box through a video of your own: `python -m ctp_jax.track VIDEO --box=x,y,w,h`."""

import contextlib
import csv
import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ctp_jax import cli, devices
from ctp_jax.errors import UserError, placed, refusals
from ctp_jax.flags import Flags
from ctp_jax.own_videos.reader import SHORT_SIDE, Frame, first_frame, read_frames
from ctp_jax.own_videos.writer import SIDES, VideoWriter
from ctp_jax.storage import files

FLAGS = Flags()
BOX = FLAGS.string(
    "box",
    "",
    "x,y,w,h: left, top, width and height of the box in the frame --start, in pixels of "
    "the video; the corner of the image is 0,0.",
)
INIT_FROM = FLAGS.string(
    "init_from",
    "",
    "The network: a workdir of the task ctp, a checkpoint of it or its exported encoder.",
)
OUT = FLAGS.string("out", "", "Folder for the results.")
START = FLAGS.integer("start", 0, "Number of the first frame, from 0.", lower_bound=0)
FPS = FLAGS.number("fps", 10.0, "Frames per second of a folder of frames.", 0.01)
TRACKER = FLAGS.string(
    "tracker", "", "Also follow with a tracker of OpenCV: kcf, csrt, median_flow."
)
cli.define_allow_code(FLAGS)


class Shown(NamedTuple):
    """The box x1 y1 x2 y2 of a frame in its pixels; `other` is that of `--tracker`."""

    frame: Frame
    box: np.ndarray
    other: np.ndarray | None


def main(arguments):
    """Follows a box through a video with a network that tracks.

    python -m ctp_jax.track VIDEO --box=x,y,w,h --init_from=RUN --out=DIR

    VIDEO is a file, or a folder of numbered frames. Writes track.csv, a row per frame,
    and track.mp4, the video with the box.
    """
    if len(arguments) != 1:
        raise UserError(f"{len(arguments)} paths: give one VIDEO, a file or a folder")
    for flag in (BOX, INIT_FROM, OUT):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing: see --help")
    video, out = files.absolute(arguments[0]), files.absolute(OUT.value)
    box = parse_box(BOX.value)
    if TRACKER.value:
        from ctp_jax import trackers

        trackers.require(TRACKER.value)
    first = first_frame(video, START.value, FPS.value)
    width, height = first.image.shape[1::-1]
    check_box(box, width, height)
    low, high = SIDES
    if min(width, height) < low or max(width, height) > high:
        raise UserError(
            f"{video}: {width}x{height} pixels: needs sides of {low} to {high}: scale it"
        )
    devices.start()
    follower = Follower(INIT_FROM.value)

    def frames() -> Iterator[Frame]:
        return read_frames(video, START.value, FPS.value)

    other = None
    if TRACKER.value:
        images = (frame.image for frame in frames())
        other, known = trackers.follow(images, box, TRACKER.value)
        if not known[0]:
            low, high = box.reshape(2, 2).clip(0, [width, height])
            why = f", which has less than {trackers.SMALLEST} pixels a side inside the frame"
            why *= bool(min(high - low) < trackers.SMALLEST)
            print(
                f"note: {TRACKER.value} cannot start from this box{why}: its own stays"
            )
        elif not known.all():
            lost = START.value + int(np.argmin(known))
            print(
                f"note: {TRACKER.value} loses the object in frame {lost}: its box stays"
            )
    for path in save(out, follower.follow(frames(), box, other), TRACKER.value):
        print(path)


def parse_box(text: str) -> np.ndarray:
    """x1 y1 x2 y2, float64 (4,), of 'x,y,w,h'."""
    try:
        x, y, width, height = map(float, text.split(","))
    except ValueError:
        raise UserError(f"--box={text}: needs four numbers, x,y,w,h") from None
    if not all(map(math.isfinite, (x, y, width, height))):
        raise UserError(f"--box={text}: needs finite numbers")
    if width < 1 or height < 1:
        raise UserError(f"--box={text}: needs at least a pixel of width and height")
    return np.array([x, y, x + width, y + height])


def check_box(box: np.ndarray, width: int, height: int) -> None:
    """Says so if a box leaves the frame; `UserError` if it is outside."""
    x1, y1, x2, y2 = (f"{value:g}" for value in box)
    frame = f"the frame of {width}x{height} pixels"
    if min(box[2:]) <= 0 or box[0] >= width or box[1] >= height:
        raise UserError(
            f"--box: from {x1},{y1} to {x2},{y2}, which is outside {frame}: give x,y,w,h "
            "in pixels of the video"
        )
    if min(box[:2]) < -1 or box[2] > width + 1 or box[3] > height + 1:
        from ctp_jax.prepare.boxes import would_fit_as_corners

        sides, remedy = box[2:] - box[:2], ""
        if would_fit_as_corners(np.array([[*box[:2], *sides]]), (width, height))[0]:
            numbers = (f"{value:g}" for value in (*box[:2], *(sides - box[:2])))
            remedy = f"; if x1,y1,x2,y2 were given: --box={','.join(numbers)}"
        print(f"note: --box, {x1},{y1} to {x2},{y2}, leaves {frame}{remedy}")


class Follower:
    """A network that tracks, from a run."""

    def __init__(self, run: str):
        """Loads it.

        Args:
            run: what `config.init_from` may name.

        Raises:
            UserError: it cannot be read, or does not track.
        """
        # Imported here, so that a wrong flag is reported before JAX is.
        import jax
        import jax.numpy as jnp

        from ctp_jax.ops import resample
        from ctp_jax.tasks import base, ctp, tracker
        from ctp_jax.train.checkpoints import init_from

        with placed("--init_from"):
            encoder = init_from.read(run)
        if encoder.head is None or encoder.head_task != "ctp":
            what = f"a head of task {encoder.head_task}" if encoder.head else "no head"
            raise UserError(
                f"--init_from={run}: has {what}, and only a head of task ctp tracks: name "
                "a run of configs/track_got10k.py or of pretraining"
            )
        config = _config_of(encoder)
        task, size = ctp.Task(config), config.clip.size
        stats = {"batch_stats": {"encoder": encoder.batch_stats}}
        params = {"encoder": encoder.params, "head": encoder.head}
        self._variables = jax.device_put(base.Variables(params, stats))
        self._length = config.clip.num_frames

        def step(variables, frames, query):
            sides = jnp.array([frames.shape[1:3]], jnp.float32)
            whole = jnp.concatenate([jnp.zeros((1, 2)), sides], axis=-1)
            flip = jnp.zeros(1, bool)
            clips = resample.crop_resize_flip(frames[None], whole, sides, flip, size)
            boxes = tracker.follow(task, variables, clips, query * size)
            return boxes[0, 0] / size, tracker.next_query(boxes, size) / size

        self._step = jax.jit(step)

    def follow(
        self, frames: Iterable[Frame], box: np.ndarray, other: np.ndarray | None = None
    ) -> Iterator[Shown]:
        """Every frame with its box; no more frames than those of a window are held.

        Args:
            frames: at least one.
            box: x1 y1 x2 y2 in the first of them, in its pixels.
            other: boxes of another tracker, (frames, 4).
        """
        from ctp_jax.prepare.video import scale_image

        query, done = None, 0
        for window in windows(frames, self._length):
            small = [scale_image(frame.image, SHORT_SIDE) for frame in window]
            small += small[-1:] * (self._length - len(small))
            size = np.tile(window[0].image.shape[1::-1], 2)
            if query is None:
                query = np.asarray(box / size, np.float32)[None, None]
            predicted, query = self._step(self._variables, np.stack(small), query)
            new = range(1 if done else 0, len(window))
            # The first box is the given one.
            tracks = np.asarray(predicted, np.float64) * size
            for index in new:
                found = tracks[index] if done else box
                yield Shown(
                    window[index], found, None if other is None else other[done]
                )
                done += 1


def windows(frames: Iterable[Frame], length: int) -> Iterator[list[Frame]]:
    """Windows of at most `length` frames that overlap in one frame."""
    window: list[Frame] = []
    first = True
    for frame in frames:
        window.append(frame)
        if len(window) == length:
            yield window
            window, first = window[-1:], False
    if len(window) > 1 or first:
        yield window


def _config_of(encoder: Any) -> ConfigDict:
    """The config of the run, or for a converted file one that fits its arrays."""
    from ctp_jax.encoder import config_of

    config, head = config_of(encoder), encoder.head
    if encoder.provenance.get("config") is None:
        channels = head["temporal"]["bias"].size
        config.clip.num_frames = head["dense2"]["bias"].size // 4
        config.head = ConfigDict({"channels": channels})
        config.head.roi_size = math.isqrt(len(head["dense1"]["kernel"]) // channels)
        config.head.sampling_ratio, config.head.squeeze = 2, True
        config.head.target_scale = (0.8, 0.8, 0.04, 0.04)
        config.head.init_std = (0.001, 0.001)
        config.truth = ConfigDict({"preset": 1, "real": 0, "teacher": 0, "cycle": 0})
    return config


def save(
    out: pathlib.Path, shown: Iterable[Shown], tracker: str = ""
) -> list[pathlib.Path]:
    """Writes track.csv and track.mp4 into a folder; returns their paths."""
    from ctp_jax import terminal

    header = ["frame", "time", "x", "y", "w", "h"]
    header += [f"{tracker}_{name}" for name in header[2:]] if tracker else []
    with refusals(out):
        out.mkdir(parents=True, exist_ok=True)
        with (
            files.replacing_inside(out) as new,
            (new / "track.csv").open("w", newline="") as file,
            contextlib.closing(VideoWriter(new / "track.mp4")) as video,
        ):
            writer = csv.writer(file)
            writer.writerow(header)
            for each in terminal.progress(shown, "tracking", 0, unit="frames"):
                row: list[Any] = [each.frame.number, f"{each.frame.time:.4f}"]
                boxes = [box for box in (each.box, each.other) if box is not None]
                for box in boxes:
                    sides = (*box[:2], *(box[2:] - box[:2]))
                    row += [f"{value:.2f}" for value in sides]
                writer.writerow(row)
                video.write(each.frame, boxes)
    return [out / "track.csv", out / "track.mp4"]


if __name__ == "__main__":
    cli.run(main, FLAGS)
