"""What a million videos, many epochs and a late step cost the input.

    python -m ctp_jax.prepare moving_shapes
    python -m benchmarks.input_scale [--records 1000000] [--json FILE]

The million is simulated: an index of so many records with names of their own, in a
thousand files, all of which are links to the files of a small prepared data set. So the
index is read, checked and held as that of a million videos is, and every record can be
read; but it is one of a few hundred that repeat, in files the system holds in memory.

    start        seconds and megabytes from opening to the first batch, each time in a new
                 process, in turn with the small data set; importing not counted
    index        once, when preparing or, for a data set of TFDS, when first opened:
                 walking through a record is timed on the real ones and multiplied,
                 making and writing the table is done for a million
    late step    seconds to the first batch of step 0 and of step 1,000,000, in turn
    epochs       clips/s in the first epochs and in those after a million, in turn; and
                 what the process holds after so many epochs
"""

import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from etils import epath

from benchmarks import command_line, measure
from ctp_jax.data import index, records, tfrecord
from ctp_jax.tasks import base

BATCH, FILES, LATE = 16, 1000, 1_000_000


def simulate(real: index.Index, directory, count: int, folder) -> None:
    """Writes a data set of so many records made of the files of a small one.

    Args:
        real: the index of the small one.
        directory: of its files.
        count: records.
        folder: where to write: links and an index.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    here = len(real.files)
    names = [f"{number:05d}-{real.files[number % here]}" for number in range(FILES)]
    for number, name in enumerate(names):
        os.symlink(pathlib.Path(directory, real.files[number % here]), folder / name)
    source = np.arange(count) % len(real.offset)
    # A file's records go to every file that is a link to it.
    copies = np.arange(count) // len(real.offset) % (FILES // here)
    columns = {name: getattr(real, name)[source] for name in index.COLUMNS}
    columns["file_index"] = (columns["file_index"] + copies * here).astype(np.int32)
    numbers = np.char.add(b"simulated_video_", np.arange(count).astype(np.bytes_))
    found = dataclasses.replace(
        real,
        files=tuple(names),
        file_size=real.file_size[np.arange(FILES) % here],
        ids=numbers,
        splits={"train": np.arange(count)},
        **columns,
    )
    index.write(folder, found)


def held() -> float:
    """Resident memory of this process, megabytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")


def make_pipeline(name, split, data_dir):
    """The paper's pipeline on a data set, one worker per core."""
    from configs import common
    from ctp_jax.tasks import ctp

    config = common.pretrain(name, split=split, eval_split="", epochs=1, milestones=())
    config.data.data_dir, config.batch_size = data_dir, BATCH
    return base.open_pipeline(config, ctp.Task(config), True)


def start(where: tuple[str, str, str]) -> dict[str, float]:
    """Seconds and megabytes of starting, of a process that has imported everything."""
    from ctp_jax.data import pipeline  # noqa: F401

    memory, begin = held(), time.perf_counter()
    opened = make_pipeline(*where)
    made = time.perf_counter()
    next(opened.train_batches())
    return {
        "open": made - begin,
        "first batch": time.perf_counter() - made,
        "megabytes": held() - memory,
    }


def late_step(where: tuple[str, str, str], rounds: int) -> dict[str, list[float]]:
    """Seconds to the first batch of an early and of a late step, in turn."""
    opened = make_pipeline(*where)
    return measure.in_turn(
        {
            "step 0": lambda: next(opened.train_batches(0)),
            f"step {LATE:,}": lambda: next(opened.train_batches(LATE)),
        },
        rounds,
    )


def epochs(where: tuple[str, str, str], count: int) -> dict[str, list[float]]:
    """CPU milliseconds per clip of early and late epochs, in turn, and memory after each."""
    opened = make_pipeline(*where)
    steps = -(-len(opened.records) // BATCH)
    streams = {
        "early": opened.train_batches(),
        "late": opened.train_batches(LATE * steps),
    }
    found = {"early": [], "late": [], "megabytes": []}
    for number in range(count + 1):
        for name, stream in streams.items():
            begin = time.process_time()
            for _ in range(steps):
                next(stream)
            time.sleep(0.1)  # until as much is ready again as was before
            if number:  # the first fills the buffers
                used = time.process_time() - begin
                found[name].append(used / steps / BATCH * 1e3)
        if number:
            found["megabytes"].append(held())
    return found


def growth(megabytes: list[float]) -> float:
    """Megabytes per epoch: the slope of a line through the later half."""
    later = megabytes[len(megabytes) // 2 :]
    return float(np.polyfit(np.arange(len(later)), later, 1)[0])


def index_costs(real: index.Index, directory, count: int) -> dict[str, float]:
    """Seconds of making an index of `count` records, part by part."""
    begin, rows, rounds = time.perf_counter(), [], 0
    while time.perf_counter() - begin < 3:
        rows = [
            list(tfrecord.scan_file(epath.Path(directory) / name, real.features))
            for name in real.files
        ]
        rounds += 1
    walk = (time.perf_counter() - begin) / rounds / len(real.offset)
    some = [row for found in rows for row in found]
    each = count // FILES
    many = [
        [
            some[(k * each + i) % len(some)]._replace(id=b"%d" % (k * each + i))
            for i in range(each)
        ]
        for k in range(FILES)
    ]
    files = [(str(k), 0) for k in range(FILES)]
    begin = time.perf_counter()
    found = index.build(
        "", files, many, real.features, {"train": np.arange(FILES * each)}
    )
    made = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        index.write(folder, found)
        size = (pathlib.Path(folder) / index.INDEX_FILE).stat().st_size
    written = time.perf_counter()
    return {
        "walk through the records (multiplied)": walk * count,
        "make the table": made - begin,
        "write it": written - made,
        "megabytes of the file": size / 2**20,
    }


def main(argv=None):
    """Prints the tables."""
    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument("--name", default="moving_shapes")
    parser.add_argument("--split", default="train")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--records", type=command_line.count, default=1_000_000)
    parser.add_argument("--rounds", type=command_line.count, default=5)
    parser.add_argument("--epochs", type=command_line.count, default=20)
    arguments = parser.parse_args(argv)
    data_dir = records.default_data_dir(arguments.data_dir)
    here = (arguments.name, arguments.split, data_dir)
    records.open_records(*here)
    directory = records.find_directory(arguments.name, data_dir)
    real = index.read(directory)
    if arguments.records < FILES or len(real.files) > FILES:
        parser.error(f"needs at least {FILES} records, and a data set of fewer files")
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder, "simulated", "1.0.0")
        simulate(real, os.path.abspath(directory), arguments.records, root)
        there = ("simulated", "train", folder)
        many = f"{arguments.records:,}"
        starts = {f"{len(real.offset):,}": [], many: []}
        for _ in range(arguments.rounds):
            for name, where in zip(starts, (here, there), strict=True):
                starts[name].append(command_line.fresh(start, where))
        late = command_line.fresh(late_step, there, arguments.rounds)
        running = command_line.fresh(epochs, here, arguments.epochs)
        costs = command_line.fresh(
            index_costs, real, os.fspath(directory), arguments.records
        )
    print("start: medians")
    parts = ("open", "first batch", "megabytes")
    rows = [
        (name, *(statistics.median(one[part] for one in found) for part in parts))
        for name, found in starts.items()
    ]
    measure.show(("records", "open, s", "first batch, s", "memory, MB"), rows)
    print(f"\nindex of {many} records, once")
    measure.show(("part", "s or MB"), costs.items())
    print(f"\nlate step, of {many} records")
    measure.show(
        ("first batch of", "s"), [(n, statistics.median(v)) for n, v in late.items()]
    )
    memory = running["megabytes"]
    ratio = measure.ratios(running["late"], running["early"])
    print(f"\nepochs: CPU per clip, late / early: {_range(ratio)}")
    print(
        f"memory: {memory[0]:.0f} MB after epoch 2, {memory[-1]:.0f} MB after epoch "
        f"{len(memory) + 1}, {growth(memory):+.2f} MB an epoch in the later half"
    )
    found = {"start": starts, "index": costs, "late step": late, "epochs": running}
    measure.write_json(arguments.json, json.loads(json.dumps(found)))


def _range(ratio):
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


if __name__ == "__main__":
    command_line.run(main)
