"""Clips per second of the input pipeline, beside a loader of the usual kind.

    python -m ctp_jax.prepare moving_shapes
    python -m benchmarks.input [--name arid6 --split train01] [--workers 1,2,4]

Both sides read the same prepared data set and make full-size clips (16 frames, 112
pixels, three trajectories), in turn, in one run, on as many cores as they have workers:

    ours           the host's part of ctp_jax: read, decode the windows, plan
    usual          everything on the host: read, OpenCV decode and resize, NumPy paste
                   and colour, in so many processes of PyTorch's DataLoader
    usual, a loop  the same on one core without PyTorch and without copies to a parent

Ours leaves the drawing to the accelerator. Then, on one core: what decoding the 16 whole
frames alone costs, and of what the cost of a clip of ours is made.
"""

import contextlib
import multiprocessing
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from benchmarks import command_line, measure

BATCH = 16
PLANS = 500
OURS, USUAL, LOOP = "ours", "usual", "usual, a loop"
OPENCV, TENSORFLOW = "decode alone, OpenCV", "decode alone, TensorFlow"


def up_to(cores):
    """1, 2, 4, ... and all cores."""
    return sorted({1 << k for k in range(cores.bit_length())} | {cores})


def make_config(arguments, workers):
    """The paper's config on the data set that was asked for."""
    from configs import common

    config = common.pretrain(
        arguments.name, split=arguments.split, eval_split="", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers = arguments.data_dir, workers
    config.batch_size = BATCH
    return config


def make_stream(side, config, workers):
    """(iterator of batches, how many it holds ready) of one side."""
    from benchmarks import usual_loader
    from ctp_jax.tasks import base, ctp

    task = ctp.Task(config)
    opened = base.open_pipeline(config, task, True)
    if side == OURS:
        return opened.train_batches(), config.data.prefetch + 2
    plans = usual_loader.make_plans(task, PLANS)
    usual = usual_loader.Usual(config, opened.records, plans)
    count = workers if side == USUAL else 0
    # A DataLoader holds two batches per worker.
    return usual_loader.batches(usual, BATCH, count), 2 * count + 1


def serve(side, arguments, workers, connection):
    """A side in a process of its own: seconds of so many batches, when asked, and how
    many it will make ready after them."""
    from benchmarks import input_split

    input_split.pin(workers)
    import cv2

    cv2.setNumThreads(0)
    stream, ready = make_stream(side, make_config(arguments, workers), workers)
    next(stream)
    connection.send("ready")
    while count := connection.recv():
        # What was made ready while the other side was timed costs nothing.
        for _ in range(ready):
            next(stream)
        start = time.perf_counter()
        for _ in range(count):
            next(stream)
        connection.send((time.perf_counter() - start, ready))


def compare(arguments, workers):
    """{side: clips per second, one number a round} on so many cores."""
    sides = [OURS]
    if command_line.is_installed("torch"):
        sides.append(USUAL)
    if workers == 1:
        sides.append(LOOP)
    context = multiprocessing.get_context("spawn")
    running, found = {}, {side: [] for side in sides}
    try:
        for side in sides:
            here, there = context.Pipe()
            process = context.Process(
                target=serve, args=(side, arguments, workers, there)
            )
            with command_line.uninterrupted():
                process.start()
            there.close()
            running[side] = (process, here)
            here.recv()
        counts = {OURS: arguments.batches * workers, USUAL: 0, LOOP: 0}
        for side in (USUAL, LOOP):
            counts[side] = max(arguments.batches // 4, 2) * workers
        for _ in range(arguments.rounds):
            for side, (_, connection) in running.items():
                connection.send(counts[side])
                seconds, ready = connection.recv()
                found[side].append(counts[side] * BATCH / seconds)
                # It goes on until as much is ready as it holds; not while others run.
                time.sleep(1.5 * ready * seconds / counts[side])
    except EOFError:
        sys.exit(f"the process of {side!r} ended; what it said is above")
    except KeyboardInterrupt:
        for process, _ in running.values():
            process.terminate()
        raise
    finally:
        for process, connection in running.values():
            _end(process, connection)
    return found


def _end(process, connection):
    with contextlib.suppress(OSError):
        connection.send(0)
    process.join(30)
    if process.is_alive():
        process.terminate()
        process.join()
    connection.close()


def on_one_core(arguments):
    """(clips per second of decoding alone, milliseconds per clip of the parts)."""
    from benchmarks import input_split

    input_split.pin(1)
    import cv2

    from ctp_jax.tasks import ctp

    cv2.setNumThreads(0)
    config = make_config(arguments, 1)
    task = ctp.Task(config)
    from ctp_jax.tasks import base

    opened = base.open_pipeline(config, task, True)
    calls = {
        name: input_split.decode_alone(opened.records, task, config, library)
        for name, library in ((OPENCV, "OpenCV"), (TENSORFLOW, "TensorFlow"))
    }
    parts = input_split.measure(
        config, task, opened, arguments.rounds, arguments.batches
    )
    alone = {name: [] for name in calls}
    for _ in range(arguments.rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(100):
                call()
            alone[name].append((time.process_time() - start) * 10)
    return {name: values[1:] for name, values in alone.items()}, parts


def show_rates(rates):
    """Table of {workers: {side: rates}}."""
    rows = []
    for workers, found in rates.items():
        for side, values in found.items():
            ratio = measure.ratios(found[OURS], values)
            over = "" if side == OURS else f"{ratio['median']:.2f}"
            between = (
                "" if side == OURS else f"{ratio['min']:.2f} to {ratio['max']:.2f}"
            )
            median = statistics.median(values)
            rows.append((side, workers, median, median / workers, over, between))
    header = ("side", "cores", "clips/s", "per core", "ours / it", "range")
    measure.show(header, rows)


def main(argv=None):
    """Prints the tables."""
    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument("--name", default="moving_shapes")
    parser.add_argument("--split", default="train")
    parser.add_argument("--data_dir", default="")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--workers", type=command_line.counts, default=up_to(cores), help="cores"
    )
    parser.add_argument("--rounds", type=command_line.count, default=5)
    parser.add_argument(
        "--batches", type=command_line.count, default=15, help="of ours, a round"
    )
    arguments = parser.parse_args(argv)
    if max(arguments.workers) > cores:
        parser.error(f"--workers: there are {cores} cores")
    from ctp_jax.data import records

    opened = records.open_records(arguments.name, arguments.split, arguments.data_dir)
    size = f"{opened.width[0]}x{opened.height[0]}"
    print(f"{arguments.name}: {len(opened)} videos, the first of {size} pixels")
    command_line.need("cv2", "opencv-python-headless")
    if not command_line.is_there("torch"):
        print("the usual loader runs as a loop, on one core")
    rates = {number: compare(arguments, number) for number in arguments.workers}
    show_rates(rates)

    from benchmarks import input_split

    alone, parts = command_line.fresh(on_one_core, arguments)
    print("\nmilliseconds of CPU per clip, on one core")
    split = input_split.add_up(parts)
    rows = [(name, value, value / split["whole"]) for name, value in split.items()]
    medians = {name: statistics.median(values) for name, values in alone.items()}
    rows += [(name, value, value / split["whole"]) for name, value in medians.items()]
    measure.show(("part of ours", "ms", "of the whole"), rows)
    for name in alone:
        print(f"ours / {name}: {statistics.median(parts['whole']) / medians[name]:.2f}")
    about = {"name": arguments.name, "split": arguments.split, "frames": size}
    found = {"about": about, "rates": rates, "split": split, "rounds of parts": parts}
    measure.write_json(arguments.json, {**found, "decode alone": alone})


if __name__ == "__main__":
    command_line.run(main)
