"""The training loop. It knows the `Task` interface and no task's name."""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from ctp_jax.train import (
    checkpoint,
    evaluation,
    export,
    files,
    init_from,
    metrics,
    optimizer,
    step,
)
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import state as state_lib
from ctp_jax.train.epochs import Epochs
from ctp_jax.train.stopping import Stopping


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    open_pipeline: Callable | None = None,
) -> dict[str, float]:
    """Trains, evaluates, saves and exports; goes on where a run was cut.

    Args:
        config: see `configs/common.py`.
        workdir: where everything of this run lies; made if it is not there.
        open_pipeline: stands in for `ctp_jax.data.pipeline.open_pipeline`.

    Returns:
        The numbers of the last evaluation.

    Raises:
        UserError: for a config or a workdir that cannot be used, a loss that is not
            finite, a full disk.
    """
    config_lib.validate(config)
    if open_pipeline is None:
        # Here and not above: it brings TensorFlow.
        from ctp_jax.data.pipeline import open_pipeline
    directory = files.make_workdir(workdir)
    try:
        return Run(config, directory, open_pipeline).run()
    except OSError as error:
        if not files.is_disk_full(error):
            raise
        raise UserError(f"{directory}: the disk is full: make room") from error


class Run:
    """One run, fresh or resumed."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: pathlib.Path,
        open_pipeline: Callable,
    ):
        self.config, self.workdir = config, workdir
        self.mesh = mesh_lib.make_mesh()
        mesh_lib.check_batch_size(config.batch_size, self.mesh.size)
        self.task = base.load(config)
        self.checkpoints = checkpoint.Checkpoints(workdir, config.keep_checkpoints)
        self.encoder = None
        if config.init_from and self.checkpoints.latest() is None:
            self.encoder = init_from.read_checked(config, self.task)
        share = (jax.process_index(), jax.process_count())
        self.pipeline = open_pipeline(config, self.task, True, *share)
        self.evaluations = evaluation.open_all(
            config, self.task, self.pipeline, self.mesh, open_pipeline
        )
        self.epochs = Epochs(self.pipeline.num_examples, config.batch_size)
        self.total = self.epochs.total_steps(config.epochs, config.steps)
        schedule = optimizer.make_schedule(config.optimizer, self.epochs, self.total)
        self.optimizer = optimizer.make_optimizer(
            config.optimizer, schedule, self.task.frozen
        )
        self.train_step = step.make_train_step(
            self.task, self.optimizer, schedule, config.seed, self.mesh
        )
        self.stopping = Stopping()
        self.results: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        """Everything, from the first step that is missing."""
        with contextlib.closing(self.checkpoints):
            state, done, sums, batches = self._begin()
            self.window = metrics.Window(sums)
            if self.total == 0:
                return self._only_evaluate(state, done)
            if done >= self.total and self._exported(done):
                metrics.say(
                    f"{self.workdir}: this run is finished ({done} steps); "
                    f"encoder: {self.workdir / 'encoder'}"
                )
                return self.results
            self.writer = metrics.MetricWriter(self.workdir, done)
            with contextlib.closing(self.writer), self.stopping:
                state, done = self._steps(state, done, batches)
            self.checkpoints.wait()
            if done >= self.total:
                self._finish(state, done)
            else:
                metrics.say(
                    f"stopped by {self.stopping.name} after step {done}/{self.total}, "
                    "which is saved: run the same command again to go on"
                )
        return self.results

    def _only_evaluate(self, state: Any, done: int) -> dict[str, float]:
        """What a run of no steps is for."""
        if not self.evaluations:
            raise UserError(
                "config.epochs = 0: nothing to train, and nothing to evaluate either: set "
                "config.data.eval_split or config.epochs"
            )
        # Of a folder without a step, earlier evaluations are of another encoder.
        before = done if self.checkpoints.latest() is not None else -1
        self.writer = metrics.MetricWriter(self.workdir, before)
        with contextlib.closing(self.writer):
            self._evaluate(state, done)
        self._say_results()
        return self.results

    def _begin(self) -> tuple[Any, int, dict, Iterator]:
        """Returns (state, steps done, log window, batches from there on)."""
        done = self.checkpoints.latest() or 0
        first, batches = self._batches(done)
        rng = step.stream_key(self.config.seed, "init")

        def init(rng, batch):
            return state_lib.initial(self.task, self.optimizer, rng, batch)

        everywhere = mesh_lib.replicated(self.mesh)
        target = state_lib.with_sharding(jax.eval_shape(init, rng, first), everywhere)
        # Where the state comes from, the first of these that there is:
        # 1. the newest readable checkpoint in the workdir: the same run, going on;
        # 2. config.init_from, another run's encoder: the rest of the network is random;
        # 3. random parameters. So init_from is read once and never on resume.
        check = functools.partial(self._check, target)
        restored = self.checkpoints.restore(target, check, metrics.say)
        self._describe(target)
        if restored is not None:
            state, meta = restored
            self.results = meta["results"]
            if int(state.step) != done:  # an older step than the newest was readable
                done = int(state.step)
                batches = self._batches(done)[1]
            metrics.say(
                f"going on from the checkpoint of step {done}/{self.total}"
                + "; config.init_from is not read again" * bool(self.config.init_from)
            )
            return state, done, meta["window"], batches
        if self.encoder is None and (
            self.total == 0 or self.task.frozen(target.params)
        ):
            metrics.say("note: config.init_from is empty, so the encoder is random")
        make = jax.jit(init, out_shardings=everywhere)
        state = make(rng, mesh_lib.put(first, self.mesh))
        if self.encoder is not None:
            state, lines = init_from.start(
                self.task,
                state,
                self.encoder,
                self.pipeline.class_names if self.config.init_head else None,
            )
            self.encoder = None  # its memory
            metrics.say("\n".join(lines))
            state = jax.device_put(state, everywhere)
        return state, 0, {}, batches

    def _batches(self, start: int) -> tuple[Any, Iterator]:
        """The batch at a step, and the batches from it on."""
        batches = self.pipeline.train_batches(start)
        first = next(batches)
        return first, itertools.chain([first], batches)

    def _check(self, target: Any, number: int, meta: Any) -> None:
        checkpoint.check_same_run(
            self.workdir, number, meta, target, self.config, metrics.say
        )

    def _describe(self, target: Any) -> None:
        """Says what is about to run, and keeps config and versions in the workdir."""
        config = self.config
        metrics.say(
            f"{config.task}: {state_lib.count(target.params):,} parameters, "
            f"{self.epochs.num_examples} videos, batch {config.batch_size} on "
            f"{self.mesh.size} x {jax.devices()[0].device_kind}, {self.total} steps "
            f"({self.epochs.at(self.total):.1f} epochs)"
        )
        if config.batch_size > self.epochs.num_examples:
            metrics.say("note: the batch is larger than the data set")
        done = self.checkpoints.latest()
        # Numbers that are there already keep the config that they came from.
        to_do = done is None or done < self.total
        if jax.process_index() == 0 and to_do:
            files.write_json(self.workdir / "config.json", config_lib.as_dict(config))
            files.write_json(self.workdir / "versions.json", files.versions())

    # The order at the end of a step is: log -> evaluate -> save. So what a checkpoint
    # holds has been logged and evaluated, and is not logged again on resume.
    def _steps(self, state: Any, done: int, batches: Iterator) -> tuple[Any, int]:
        config = self.config
        clips = config.batch_size * self.task.clip_spec(True).num_clips
        meter = metrics.Meter(clips)
        before, start = None, done
        metrics.say("first step: compiling, minutes for large networks on CPUs")
        for number in range(start + 1, self.total + 1):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            # This queues the transfer and the step and returns: while the device
            # works on it, the host gets and sends the next batch.
            state, values = self.train_step(state, mesh_lib.put(batch, self.mesh))
            done = number
            self.window.add(done, values)
            # Never more than one step ahead, or batches would pile up on the device.
            jax.block_until_ready(before)
            before = values
            meter.step(waited)
            if done == start + 1:
                self._say_compiled(values, began)
                meter.restart()
            last = done == self.total
            if done % config.log_every == 0 or last:
                self._log(done, meter)
            if self.epochs.passes(done, config.eval_every) or last:
                self._evaluate(state, done)
                meter.restart()
            stop = self.stopping.name is not None
            if self.epochs.passes(done, config.checkpoint_every) or last or stop:
                self._save(state, done)
            if stop:
                break
        return state, done

    def _say_compiled(self, values: Any, began: float) -> None:
        jax.block_until_ready(values)
        seconds = time.perf_counter() - began
        if seconds > 5:
            metrics.say(
                f"first step: {metrics.duration(seconds)}, compilation included"
            )

    def _log(self, done: int, meter: metrics.Meter) -> None:
        self._stop_unless_finite()
        values = self.window.means() | meter.read(self.total - done)
        meter.restart()
        at = self.epochs.at(done)
        ends = self.epochs.at(self.total)
        metrics.say(metrics.train_line(done, self.total, (at, ends), values))
        self.writer.write("train", done, {"epoch": at, **values})

    def _evaluate(self, state: Any, done: int) -> None:
        if not self.evaluations:
            return
        self._stop_unless_finite()
        began = time.perf_counter()
        found = {}
        for each in self.evaluations:
            found |= each.run(state)
        self.results, arrays = evaluation.split_results(found)
        seconds = time.perf_counter() - began
        metrics.say(metrics.eval_line(done, self.results, seconds))
        for note in (note for each in self.evaluations for note in each.notes()):
            metrics.say(f"  {note}")
        values = {"epoch": self.epochs.at(done), **self.results}
        self.writer.write("eval", done, values)
        if arrays and jax.process_index() == 0:
            np.savez(self.workdir / "evaluation.npz", step=done, **arrays)
        if jax.process_index() == 0:
            for each in self.evaluations:
                each.save(self.workdir)

    def _save(self, state: Any, done: int) -> None:
        self._stop_unless_finite()
        meta = {
            "config": config_lib.as_dict(self.config),
            "class_names": list(self.pipeline.class_names),
            "versions": files.versions(),
            "window": self.window.sums(),
            "results": self.results,
        }
        self.checkpoints.save(done, state, meta)

    def _stop_unless_finite(self) -> None:
        self.window.sums()
        if self.window.bad_step is None:
            return
        with contextlib.suppress(UserError):
            self.checkpoints.wait()
        raise UserError(
            f"{self.workdir}: loss or parameters are not finite at step "
            f"{self.window.bad_step}; {self.checkpoints.last_good()}, nothing was saved "
            "since: lower config.optimizer.learning_rate or clip_norm"
        )

    def _finish(self, state: Any, done: int) -> None:
        provenance = {
            "task": str(self.config.task),
            "data": config_lib.as_dict(self.config.data),
            "config": config_lib.as_dict(self.config),
            "steps": done,
            "epochs": self.epochs.at(done),
            "class_names": list(self.pipeline.class_names),
            "versions": files.versions(),
            "metrics": self.results,
        }
        place = export.export_encoder(self.workdir, self.task, state, provenance)
        metrics.say(f"finished after {done} steps ({self.epochs.at(done):.1f} epochs)")
        self._say_results()
        metrics.say(f"  encoder      {place}")
        metrics.say(f"  metrics      {self.workdir / 'metrics.jsonl'}")
        metrics.say(f"  checkpoints  {self.workdir / 'checkpoints'}")

    def _say_results(self) -> None:
        for name, value in self.results.items():
            metrics.say(f"  {name:<24} {value:.4g}")

    def _exported(self, done: int) -> bool:
        """Whether the encoder of this very step lies in the workdir."""
        try:
            about = json.loads((self.workdir / "encoder/encoder.json").read_text())
            return about["provenance"]["steps"] == done
        except (OSError, ValueError, KeyError):
            return False
