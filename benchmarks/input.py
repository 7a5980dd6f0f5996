"""Clips per second of the input pipeline, beside a loader of the usual kind.

    python -m ctp_jax.prepare moving_shapes
    python -m benchmarks.input [--name mine --split train] [--cores 1]

All sides read the same prepared data set on the same cores and make full-size clips (16
frames, 112 pixels, three trajectories), in turn, in one run:

    ours           the host's part of ctp_jax: read, decode the windows, plan; the
                   drawing is left to the accelerator
    DataLoader     everything on the host, as the paper's authors have it
                   (benchmarks/usual_loader.py): zips of JPEGs, OpenCV, NumPy, in one
                   process of PyTorch's DataLoader per core
    loop           the same in this process, without copies from a worker
    decoding only  what the loop decodes and nothing else, 16 whole frames a clip, with
                   the fastest decoder at hand (`pip install simplejpeg`, or OpenCV)
    no decoding    ours with a constant in place of the decoded frames: what one process
                   could feed if decoding were free
"""

import itertools
import os
import pathlib
import statistics
import tempfile
import time
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from benchmarks import measure

BATCH = 16
PLANS = 32
"""Batches of plans that the usual loader takes in turn."""

VIDEOS = 300
"""Videos, at most, that the usual loader has zips of."""

OURS, LOADER, LOOP = "ours", "DataLoader", "loop"
DECODING, UNDECODED = "decoding only", "no decoding"


def make_config(name, split, data_dir, cores):
    """The paper's config on a data set."""
    from configs import common

    config = common.pretrain(name, split=split, eval_split="", epochs=1, milestones=())
    config.data.data_dir, config.data.workers = data_dir, cores
    config.batch_size = BATCH
    return config


def make_streams(config, folder, with_torch):
    """{side: (iterator of batches, how many it holds ready)}; writes zips to `folder`."""
    from benchmarks import usual_loader
    from ctp_jax.data import decode
    from ctp_jax.tasks import base, ctp

    def ours():
        return base.open_pipeline(config, ctp.Task(config), True)

    opened, ready = ours(), config.data.prefetch + 2
    plans = usual_loader.plans_of(itertools.islice(opened.train_batches(), PLANS))
    zips = usual_loader.store_zips(opened.records, folder, VIDEOS)
    usual = usual_loader.Usual(config.clip, zips, plans)
    found = {OURS: (opened.train_batches(), ready)}
    if with_torch:
        workers = config.data.workers
        loader = usual_loader.data_loader(usual, BATCH, workers)
        found[LOADER] = iter(loader), 2 * workers + 1
    found[LOOP] = usual_loader.loop(usual, BATCH), 0
    name, decoder = usual_loader.fastest_decoder()
    found[f"{DECODING}, {name}"] = usual_loader.decoding_alone(usual, BATCH, decoder), 0
    with mock.patch.object(decode, "decode_window", blank_window):
        stream = ours().train_batches()
        next(stream)  # builds the graph
    found[UNDECODED] = stream, ready
    return found


def blank_window(encoded, times, window, frame_size, canvas, spec, **_):
    """Frames, extents and windows as of `decode.decode_window`, of no picture."""
    import tensorflow as tf

    # Not a constant of the graph, which would be stored in it.
    level = tf.cast(frame_size[0] % 2, tf.uint8)
    frames = tf.fill((spec.num_clips, spec.num_frames, *canvas, 3), level)
    extent = tf.tile(tf.constant([canvas], tf.float32), (spec.num_clips, 1))
    return frames, extent, window


def clips_per_second(streams, rounds, batches):
    """{side: clips per second, one number a round}."""
    found = {side: [] for side in streams}
    for _ in range(rounds):
        for side, (stream, ready) in streams.items():
            # What was made ready while another side was timed costs nothing.
            for _ in range(ready + 1):
                next(stream)
            start = time.perf_counter()
            for _ in range(batches):
                next(stream)
            seconds = time.perf_counter() - start
            found[side].append(batches * BATCH / seconds)
            # It goes on until as much is ready as it holds; not while others run.
            time.sleep(1.5 * ready * seconds / batches)
    return found


def main(argv=None):
    """Prints the table."""
    parser = measure.make_parser(__spec__.name, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of all sides")
    parser.add_argument("--batches", type=int, default=12, help="of a side in a round")
    parser.add_argument("--name", default="moving_shapes", help="of the data set")
    parser.add_argument("--split", default="train", help="of the data set")
    parser.add_argument("--data_dir", default="", help="where it was prepared")
    parser.add_argument("--cores", type=int, default=1, help="to run on")
    arguments = parser.parse_args(argv)
    # Before TensorFlow and OpenCV count the cores.
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    os.sched_setaffinity(0, cores)
    config = make_config(
        arguments.name, arguments.split, arguments.data_dir, len(cores)
    )
    with tempfile.TemporaryDirectory() as folder:
        streams = make_streams(
            config, pathlib.Path(folder), measure.is_installed("torch")
        )
        rates = clips_per_second(streams, arguments.rounds, arguments.batches)
    print(f"{arguments.name}, cores: {len(cores)}")
    rows = [
        (
            side,
            statistics.median(each),
            measure.spelled(measure.ratios(rates[OURS], each)),
        )
        for side, each in rates.items()
    ]
    measure.show(("side", "clips/s", "ours / this"), rows)
    measure.write_json(
        arguments.json, {"arguments": vars(arguments), "clips per second": rates}
    )


if __name__ == "__main__":
    measure.run(main, devices=False)
