"""Clips per second of the input pipeline, beside a loader of the usual kind.

    python -m ctp_jax.prepare moving_shapes
    python -m benchmarks.input [--name mine --split train] [--cores 1]

All sides read the same prepared data set on the same cores and make full-size clips (16
frames, 112 pixels, three trajectories), in turn, in one run:

    ours           the host's part of ctp_jax: read, decode the windows, plan; the
                   drawing is left to the accelerator
    DataLoader     everything on the host (benchmarks/usual_loader.py): read, OpenCV
                   decode and resize, NumPy paste and colour, in one process of PyTorch's
                   DataLoader per core
    loop           the same in this process, without copies from a worker
    decoding only  what the loop decodes and nothing else: OpenCV, 16 whole frames a clip
"""

import itertools
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from benchmarks import measure

BATCH = 16
PLANS = 32
"""Batches of plans that the usual loader takes in turn."""

OURS, LOADER, LOOP, DECODING = "ours", "DataLoader", "loop", "decoding only"


def make_config(name, split, data_dir, cores):
    """The paper's config on a data set."""
    from configs import common

    config = common.pretrain(name, split=split, eval_split="", epochs=1, milestones=())
    config.data.data_dir, config.data.workers = data_dir, cores
    config.batch_size = BATCH
    return config


def make_streams(config, with_torch):
    """{side: (iterator of batches, how many it holds ready)}."""
    from benchmarks import usual_loader
    from ctp_jax.tasks import base, ctp

    opened = base.open_pipeline(config, ctp.Task(config), True)
    plans = usual_loader.plans_of(itertools.islice(opened.train_batches(), PLANS))
    usual = usual_loader.Usual(config.clip, opened.records, plans)
    found = {OURS: (opened.train_batches(), config.data.prefetch + 2)}
    if with_torch:
        workers = config.data.workers
        loader = usual_loader.data_loader(usual, BATCH, workers)
        found[LOADER] = iter(loader), 2 * workers + 1
    found[LOOP] = usual_loader.loop(usual, BATCH), 0
    found[DECODING] = usual_loader.decoding_alone(usual, BATCH), 0
    return found


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
    streams = make_streams(config, measure.is_installed("torch"))
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
