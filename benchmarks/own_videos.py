"""Features of one's own videos against decoding alone, on the same threads.

    python -m benchmarks.own_videos [--videos FOLDER --config configs/small.py --rounds 5]

Four sides, timed in turn on the same files:

    decode    PyAV decodes every frame to RGB: `frame.to_ndarray(format="rgb24")`
    bare      as before, but frames are dropped as the codec gives them
    clips     what `ctp_jax.own_videos.inference` reads: frames of the clips, scaled and cut
    features  `python -m ctp_jax.features` without its start: clips, network, results

The last columns are how much of the speed of decoding is left: by the clock,
and in seconds of the processor, which depend less on what runs beside it. Without --videos, 24 videos
are generated: 10 s, 25 frames per second, 320 x 240 pixels, H.264.
"""

import concurrent.futures
import functools
import pathlib
import statistics
import tempfile
import time

import av
import jax
import numpy as np

from benchmarks import measure
from ctp_jax import cli, encoder
from ctp_jax import config as config_lib
from ctp_jax.own_videos import command_line, inference
from ctp_jax.prepare.workers import available_cores
from ctp_jax.tasks import encoder as task_lib
from ctp_jax.train.checkpoints import export

VIDEOS, SECONDS, FPS, HEIGHT, WIDTH = 24, 10, 25, 240, 320


def write_videos(folder: pathlib.Path) -> None:
    """Blurred noise that drifts, with some noise of the camera."""
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 4, 3), np.uint8)
        ground = coarse.repeat(16, 0).repeat(16, 1)
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for i in range(SECONDS * FPS):
                image = ground[i // 2 : i // 2 + HEIGHT, i : i + WIDTH] // 2
                image = image + rng.integers(0, 24, image.shape, np.uint8)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def make_encoder(config) -> encoder.Encoder:
    """One with random weights."""
    task = task_lib.Task(config)
    params, stats, about = task.encoder(jax.jit(task.init)(jax.random.key(0), {}))
    provenance = {"config": config_lib.as_dict(config)}
    return encoder.Encoder(
        export.Encoder(params, stats, about, None, "", provenance, "random")
    )


def decode(paths, threads: int, rgb: bool) -> None:
    """Decodes all frames of all videos."""

    def decode_one(path):
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(video=0):
                if rgb:
                    frame.to_ndarray(format="rgb24")

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode_one, paths))


def clips(paths, spec, threads: int) -> None:
    """Reads the clips of all videos."""
    for _ in inference.read(paths, spec, 0.0, threads, 32):
        pass


def features(paths, network, threads: int, batch_size: int) -> None:
    """Computes the features of all videos."""
    spec = network.spec.clip_spec()
    options = {"threads": threads, "batch_size": batch_size}
    for each in inference.run(paths, spec, network.describe, **options):
        assert not each.error, each.error


def in_processor_time(used: list[float], side) -> None:
    """Calls a side; notes the seconds that it takes of all cores."""
    start = time.process_time()
    side()
    used.append(time.process_time() - start)


def main():
    parser = measure.make_parser(__spec__.name, __doc__)
    add = parser.add_argument
    add("--videos", default="", help="a folder; empty: videos are generated")
    add("--config", default="configs/small.py", help="whose network it is")
    add("--threads", type=int, default=available_cores(), help="that decode")
    add("--batch_size", type=int, default=0, help="clips; 0: as the command")
    add("--rounds", type=int, default=5, help="timed calls of each side")
    arguments = parser.parse_args()
    network = make_encoder(cli.load_config(arguments.config))
    with tempfile.TemporaryDirectory() as made:
        if not arguments.videos:
            write_videos(pathlib.Path(made))
        paths = command_line.find_videos([arguments.videos or made])
        count, spec = arguments.threads, network.spec.clip_spec()
        sides = {
            "decode": functools.partial(decode, paths, count, True),
            "bare": functools.partial(decode, paths, count, False),
            "clips": functools.partial(clips, paths, spec, count),
            "features": functools.partial(
                features, paths, network, count, arguments.batch_size
            ),
        }
        used = {name: [] for name in sides}
        sides = {
            name: functools.partial(in_processor_time, used[name], side)
            for name, side in sides.items()
        }
        seconds = measure.in_turn(sides, arguments.rounds)
    name = network.config.model.name
    print(
        f"{len(paths)} videos, {spec.num_clips} clips of {spec.num_frames} frames each; "
        f"{name} of width {network.config.model.width:g} on "
        f"{jax.devices()[0].device_kind}; {count} threads"
    )
    total, rows, ratios = len(paths) * spec.num_clips, [], {}
    for side, found in seconds.items():
        ratios[side] = measure.ratios(seconds["decode"], found)
        median = statistics.median(found)
        spent = measure.ratios(used["decode"][1:], used[side][1:])
        spelled = measure.spelled(ratios[side]), measure.spelled(spent)
        rows.append([side, median, total / median, *spelled])
    header = ("side", "s", "clips/s", "speed / decode's", "in processor time")
    measure.show(header, rows)
    alone = statistics.median(seconds["clips"])
    print(
        f"A device of its own keeps up if it computes {total / alone:.0f} clips/s of "
        f"{spec.num_frames} x {spec.size} x {spec.size} pixels"
    )
    measure.write_json(arguments.json, {"ratios": ratios, "seconds of a call": seconds})


if __name__ == "__main__":
    measure.run(main)
