"""What checkpoints cost a run: time per step with and without saves, and a restore.

    python -m benchmarks.checkpoint                       # reduced: any machine
    python -m benchmarks.checkpoint --width 1 --size 112 --frames 16 --batch 32
    python -m benchmarks.checkpoint --width 1 --state_only

The network is that of configs/ucf_r3d.py, fed with one batch of noise. Steps with a
save every `--every` and steps without run in turn, in one run: the whole cost is the
difference, and needs a quiet machine; what the loop waits is measured by itself. Of a
save,

    digest      is what comes first: a digest of every leaf and whether it is finite
    blocking    is all that the loop waits for: the digest and the copy to the host
    background  goes on beside the next steps: writing, reading back for the list of
                files, SHA-256, waiting for the disk

and of a restore,

    files       reading every file and comparing it with the list
    arrays      Orbax, onto the devices
    digests     of what has arrived

measured alone, without steps beside it. Files are read back from the page cache.
"""

import contextlib
import json
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax
import numpy as np
import tensorflow as tf

from benchmarks import command_line
from configs import ucf_r3d
from ctp_jax import cli
from ctp_jax.data import rng as rng_lib
from ctp_jax.tasks import base
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, state, step
from ctp_jax.train.checkpoints import digests, manager
from ctp_jax.train.checkpoints.layout import CheckpointLayout
from ctp_jax.train.checkpoints.retention import Keep
from ctp_jax.train.epochs import Epochs


def make_batch(task, size):
    """Videos of noise, and a plan of the task's own."""
    rng, spec = np.random.default_rng(0), task.clip_spec(True)
    frames = (size, 1, spec.num_frames, spec.size, spec.size, 3)
    count = rng_lib.count_uniforms(lambda d: task.plan(d, {}, True))
    numbers = rng_lib.Rng(tf.constant(rng.random((size, count), np.float32)))
    plan = task.plan(numbers, {}, True)
    side = float(spec.size)
    return {
        "frames": rng.integers(0, 256, frames, np.uint8),
        "extent": np.full((size, 1, 2), side, np.float32),
        "window": np.tile(np.float32([0, 0, side, side]), (size, 1, 1)),
        "flip": np.zeros((size, 1), bool),
        "mask": np.ones(size, np.float32),
        "plan": {name: value.numpy() for name, value in plan.items()},
    }


def _with_noise(fresh, sharding):
    """A state as after many steps: a momentum of zeros would be compressed away."""
    rng = np.random.default_rng(1)

    def noise(leaf):
        if leaf.ndim == 0:
            return leaf
        values = 1e-6 * rng.standard_normal(leaf.shape, np.float32)
        return jax.device_put(values.astype(leaf.dtype), sharding)

    return fresh.replace(opt_state=jax.tree.map(noise, fresh.opt_state))


class Run:
    """A network on its way, without data and without a loop around it."""

    def __init__(self, arguments):
        config = ucf_r3d.get_config()
        config.model.width = arguments.width
        config.head.channels = max(8, int(512 * arguments.width))
        config.clip.size, config.clip.num_frames = arguments.size, arguments.frames
        config.batch_size = arguments.batch
        config.optimizer.learning_rate = 1e-4  # noise is not to be learnt
        task, mesh = base.load(config), mesh_lib.make_mesh()
        mesh_lib.check_batch_size(config.batch_size, mesh.size)
        schedule = optimizer.make_schedule(config.optimizer, Epochs(1000, 32), 1000)
        transformation = optimizer.make_optimizer(config.optimizer, schedule)
        batch = make_batch(task, config.batch_size)
        everywhere = mesh_lib.replicated(mesh)
        make = jax.jit(
            lambda rng, batch: state.initial(task, transformation, rng, batch),
            out_shardings=everywhere,
        )
        self.batch = mesh_lib.put(batch, mesh)
        self.state = _with_noise(make(jax.random.key(0), self.batch), everywhere)
        self.target = state.with_sharding(self.state, everywhere)
        self.done = 0
        self._step = step.make_train_step(
            task, transformation, schedule, config.seed, mesh
        )

    def steps(self, number, every=0, checkpoints=None):
        """(seconds that so many steps take, those inside of `save`)."""
        began, before, saving = time.perf_counter(), None, 0.0
        for count in range(1, number + 1):
            self.state, values = self._step(self.state, self.batch)
            self.done += 1
            jax.block_until_ready(before)
            before = values
            if checkpoints is not None and count % every == 0:
                jax.block_until_ready(self.state)  # the step is no part of the save
                saving += seconds(
                    lambda: checkpoints.save(self.done, self.state, {"results": {}})
                )
        jax.block_until_ready(self.state)
        return time.perf_counter() - began, saving


def seconds(call):
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def measure_loop(run, checkpoints, arguments):
    """Seconds per step without and with saves, and per save, round by round."""
    run.steps(2)
    checkpoints.save(run.done, run.state, {})  # compiles the digests
    found = {"without saves": [], "with saves": [], "waiting": []}
    number, every = arguments.steps, arguments.every
    for _ in range(arguments.rounds):
        checkpoints.wait()
        found["without saves"].append(run.steps(number)[0] / number)
        whole, saving = run.steps(number, every, checkpoints)
        found["with saves"].append(whole / number)
        found["waiting"].append(saving / (number // every))
    checkpoints.wait()
    return found


def measure_save(run, checkpoints, rounds):
    found = {"digest": [], "blocking": [], "background": []}
    for number in range(rounds + 1):
        run.done += 1
        one = {"digest": seconds(lambda: digests.measure(run.state))}
        one["blocking"] = seconds(
            lambda: checkpoints.save(run.done, run.state, {"results": {}})
        )
        one["background"] = seconds(checkpoints.wait)
        if number:  # the first includes compilation
            for name, value in one.items():
                found[name].append(value)
    return found


def measure_restore(run, folders, rounds):
    found = {"files": [], "arrays": [], "digests": []}
    for _ in range(rounds):
        newest = folders.steps()[-1]
        began = time.perf_counter()
        meta = folders.read_checked(newest)
        found["files"].append(time.perf_counter() - began)
        began = time.perf_counter()
        path = folders.step(newest) / "state"
        restored = manager.restore_arrays(path, run.target)
        jax.block_until_ready(restored)
        found["arrays"].append(time.perf_counter() - began)
        began = time.perf_counter()
        assert not digests.difference(meta["digests"], restored)
        found["digests"].append(time.perf_counter() - began)
    return found


def show(title, found):
    print(title)
    for name, values in found.items():
        print(
            f"  {name:<14}{statistics.median(values):9.3f}  "
            f"({min(values):.3f} to {max(values):.3f})"
        )


def show_cost(loop, every):
    """The share of the time that saves take: all told, and what the loop waits."""
    without, with_saves = loop["without saves"], loop["with saves"]
    ratios = [b / a - 1 for a, b in zip(without, with_saves, strict=True)]
    waiting = [w / (every * a) for a, w in zip(without, loop["waiting"], strict=True)]
    for text, values in (("costs", ratios), ("makes the loop wait", waiting)):
        print(
            f"a save every {every} steps {text} {statistics.median(values):.2%} of the "
            f"time ({min(values):.2%} to {max(values):.2%})"
        )
    return {"all": ratios, "waiting": waiting}


def parse():
    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument(
        "--width", type=command_line.positive, default=0.25, help="of the network"
    )
    parser.add_argument(
        "--size", type=command_line.count, default=56, help="side of a clip"
    )
    parser.add_argument(
        "--frames", type=command_line.count, default=8, help="of a clip"
    )
    parser.add_argument("--batch", type=command_line.count, default=4)
    parser.add_argument("--steps", type=command_line.count, default=20, help="a round")
    parser.add_argument(
        "--every", type=command_line.count, default=10, help="steps between saves"
    )
    parser.add_argument("--rounds", type=command_line.count, default=5)
    parser.add_argument("--state_only", action="store_true", help="no steps")
    parser.add_argument("--workdir", default="", help="on the disk to be measured")
    arguments = parser.parse_args()
    if arguments.steps < arguments.every:
        parser.error("--steps must be at least --every")
    return arguments


def main():
    arguments = parse()
    cli.quiet()
    with contextlib.ExitStack() as stack:
        workdir = pathlib.Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(dir=arguments.workdir or None)
            )
        )
        run = Run(arguments)
        checkpoints = manager.Checkpoints(workdir, Keep(2))
        stack.enter_context(contextlib.closing(checkpoints))
        found = {}
        if not arguments.state_only:
            found["loop"] = measure_loop(run, checkpoints, arguments)
        found["save"] = measure_save(run, checkpoints, arguments.rounds)
        folders = CheckpointLayout(workdir)
        found["restore"] = measure_restore(run, folders, arguments.rounds)
        newest = folders.step(folders.steps()[-1])
        written = [p.stat().st_size for p in newest.rglob("*") if p.is_file()]
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(run.state))
    print(
        f"{state.count(run.state.params):,} parameters, {held / 1e6:.1f} MB in "
        f"{len(jax.tree.leaves(run.state))} arrays, {sum(written) / 1e6:.1f} MB in "
        f"{len(written)} files, {jax.device_count()} x {jax.devices()[0].device_kind} "
        f"({len(os.sched_getaffinity(0))} CPU cores)"
    )
    print(f"seconds, median of {arguments.rounds} rounds (range)")
    if "loop" in found:
        steps = {k: v for k, v in found["loop"].items() if k != "waiting"}
        show("a step", steps)
        found["cost"] = show_cost(found["loop"], arguments.every)
    show("a save", found["save"])
    show("a restore", found["restore"])
    if arguments.json:
        found |= {"state_bytes": held, "written_bytes": sum(written)}
        with open(arguments.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    command_line.run(main)
