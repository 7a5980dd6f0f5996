"""Time of a training step of every pretext task relative to Catch-the-Patch's.

    python -m ctp_jax.prepare moving_shapes
    python -m benchmarks.methods [--data mine --methods vcop moco --rounds 9]

Each method has the small variant of its config, 16 videos of the prepared data set a step,
and whatever number of clips of them it needs. The batch is on the device already: what the
input costs is not in these times (docs/performance.md). The methods are timed in turn.
"""

import functools
import importlib
import statistics

import jax

from benchmarks import measure, pretraining
from configs.experiments import common
from ctp_jax.tasks import base

METHODS = tuple(name for name in common.METHODS if name != "coclr")
"""CoCLR needs a run of InfoNCE."""


def make_config(method: str, data: str):
    """The small config of a method; of the game for 'ctp'."""
    arguments = f"data={data}"
    if method == "ctp":
        return importlib.import_module("configs.small").get_config(arguments)
    module = importlib.import_module(f"configs.{method}")
    return module.get_config(f"small,{arguments}")


def make_running(method: str, data: str, data_dir: str):
    """(the compiled step on a batch of the data set, what that batch holds in words)."""
    config = make_config(method, data)
    config.data.data_dir = data_dir
    task = base.load(config)
    source = base.open_pipeline(config, task, True, 0, 1)
    task.see_data(source.whole, None)
    batch = next(source.train_batches())
    running = pretraining.Running(config, batch, task)
    return running, " x ".join(map(str, batch["frames"].shape[:3]))


def main():
    parser = measure.make_parser(__spec__.name, __doc__)
    add = parser.add_argument
    add("--data", default="moving_shapes", help="a prepared data set, train and test")
    add("--data_dir", default="", help="where it is; empty: as config.data.data_dir")
    add("--methods", nargs="+", default=METHODS, help="configs")
    add("--rounds", type=int, default=7, help="timed calls of each")
    add("--steps", type=int, default=5, help="in a timed call")
    arguments = parser.parse_args()
    made, calls = {}, {}
    for method in ("ctp", *arguments.methods):
        made[method] = make_running(method, arguments.data, arguments.data_dir)
        calls[method] = functools.partial(made[method][0].step, arguments.steps)
    seconds = measure.in_turn(calls, arguments.rounds)
    rows, ratios = [], {}
    for method, (_, shape) in made.items():
        ratios[method] = measure.ratios(seconds[method], seconds["ctp"])
        median = 1e3 * statistics.median(seconds[method]) / arguments.steps
        rows.append([method, shape, median, measure.spelled(ratios[method])])
    print(f"on {jax.devices()[0].device_kind}")
    measure.show(("method", "videos x clips x frames", "ms", "time / ctp's"), rows)
    measure.write_json(arguments.json, {"ratios": ratios, "seconds of a call": seconds})


if __name__ == "__main__":
    measure.run(main)
