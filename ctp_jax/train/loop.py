"""The training loop. It knows the `Task` interface and no task's name."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping

import jax
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax import formatting
from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError, is_disk_full
from ctp_jax.train import evaluation, metrics, step
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import setup as setup_lib
from ctp_jax.train import workdir as workdir_lib
from ctp_jax.train.checkpoints import export
from ctp_jax.train.distributed import coordination
from ctp_jax.train.distributed.preemption import Preempted, Preemption
from ctp_jax.train.state import TrainState
from ctp_jax.train.watchdog import Watchdog


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    opener: Callable | None = None,
    preemption: Preemption | None = None,
) -> dict[str, float]:
    """Trains, evaluates, saves and exports; resumes a run that was interrupted.

    Args:
        config: see `configs/common.py`.
        workdir: folder of this run, created if it is missing.
        opener: replaces `ctp_jax.data.pipeline.open_pipeline`.
        preemption: already entered, for a caller who asks it afterwards whether the run
            was interrupted.

    Returns:
        The metrics of the last evaluation.

    Raises:
        UserError: the config or the workdir cannot be used, the loss is not finite, or
            the disk is full.
    """
    config_lib.validate(config)
    directory = workdir_lib.make_workdir(workdir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(workdir_lib.locked(directory))
        if preemption is None:
            preemption = stack.enter_context(Preemption())
        try:
            setup = setup_lib.open_setup(config, directory, opener)
            stack.enter_context(contextlib.closing(setup.checkpoints))
            return Run(setup, preemption).run()
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise UserError(
                f"{directory}: the disk is full: free some space and run the same "
                "command again"
            ) from error


class Run:
    """One run, fresh or resumed."""

    def __init__(self, setup: setup_lib.Setup, preemption: Preemption):
        self.setup, self.preemption = setup, preemption
        self.config, self.workdir = setup.config, setup.workdir
        self.epochs, self.total = setup.epochs, setup.total
        train_step = step.make_train_step(
            setup.task,
            setup.optimizer,
            setup.schedule,
            self.config.seed,
            setup.mesh,
            self.config.optimizer.accumulate,
            self.config.ema,
        )
        self.train_step = coordination.compiled_together(train_step, "training step")

    def run(self) -> dict[str, float]:
        """Trains from the step that is reached to the last, then exports the encoder."""
        start = setup_lib.restore_or_init(self.setup)
        state, done = start.state, start.done
        self.results, self.interval = start.results, metrics.Interval(start.interval)
        # Whether the evaluation of step `done` was interrupted and must be repeated.
        self.eval_pending = start.eval_pending
        exported = setup_lib.exported_results(self.setup, done)
        if done >= self.total > 0 and exported is not None:
            metrics.say(
                f"{self.workdir}: this run is finished ({done} steps); "
                f"encoder: {self.workdir / 'encoder'}"
            )
            return exported
        # Without a checkpoint, evaluations in the log may be of another encoder.
        stale = self.total == 0 and self.setup.checkpoints.latest() is None
        writer = metrics.MetricWriter(
            self.workdir, -1 if stale else done, self.eval_pending
        )
        watchdog = Watchdog(self.config.data.stall_after, metrics.say_here)
        with contextlib.closing(writer), contextlib.closing(watchdog):
            self.writer, self.watchdog = writer, watchdog
            if self.total == 0:
                return self._only_evaluate(state, done)
            state, done = self._steps(state, done, start.batches)
            self.setup.checkpoints.wait()
        if self.preemption.preempted:
            metrics.say(
                f"stopped by {self.preemption.name or 'another process'} after step "
                f"{done}/{self.total}, which is saved: run the same command to resume"
            )
        else:
            self._finish(state, done)
            self.preemption.exit_code = 0
        self.preemption.nothing_to_save = True
        return self.results

    def _only_evaluate(self, state: TrainState, done: int) -> dict[str, float]:
        """Evaluates without training: `config.epochs = 0`."""
        if not self.setup.evaluations:
            raise UserError(
                "config.epochs = 0: nothing to train or evaluate: set "
                "config.data.eval_split or config.epochs"
            )
        self._evaluate(state, done)
        self._say_results()
        return self.results

    # Order at the end of a step: log, evaluate, save. So a checkpoint's step is already
    # logged and evaluated and is not logged again on resume. If the evaluation was
    # interrupted, the checkpoint says that it is pending.
    def _steps(
        self, state: TrainState, done: int, batches: Iterator[Batch]
    ) -> tuple[TrainState, int]:
        config = self.config
        clips = config.batch_size * self.setup.task.clip_spec(True).num_clips
        meter = metrics.Meter(clips)
        before, start = None, done
        if self.eval_pending:
            self._make_pending_evaluation(state, done)
        if done < self.total:
            metrics.say("first step: compiling, minutes for large networks on CPUs")
        for number in range(start + 1, self.total + 1):
            began = time.perf_counter()
            with self.watchdog.waiting(f"the batch of step {number}"):
                batch = next(batches)
            waited = time.perf_counter() - began
            # Queued before the step, so the answer arrives while the step runs.
            asked_to_stop = self.preemption.vote()
            # Only queues the transfer and the step: while the device computes, the host
            # fetches and sends the next batch.
            state, values = self.train_step(state, mesh_lib.put(batch, self.setup.mesh))
            done = number
            self.interval.add(done, values)
            # At most one step ahead, or batches would pile up on the device.
            jax.block_until_ready(before)
            stop = asked_to_stop()
            before = values
            meter.step(waited)
            if done == start + 1:
                self._say_compiled(values, began)
                self.preemption.nothing_to_save = False
                meter.restart()
            last = done == self.total
            if done % config.log_every == 0 or last:
                self._log(done, meter)
            evaluated = bool(self._evaluations_at(done)) or last
            if evaluated:
                self._evaluate_unless_stopped(state, done)
                meter.restart()
            stop = (stop and not last) or self.preemption.preempted
            every = (config.checkpoint_every, config.keep_every)
            if last or stop or any(self.epochs.passes(done, each) for each in every):
                self._save(state, done, evaluated and not self.eval_pending)
            if stop:
                self.preemption.preempted = True
                break
        return state, done

    def _say_compiled(self, values: Mapping[str, jax.Array], began: float) -> None:
        jax.block_until_ready(values)
        seconds = time.perf_counter() - began
        if seconds > 5:
            metrics.say(
                f"first step: {formatting.duration(seconds)}, compilation included"
            )

    def _log(self, done: int, meter: metrics.Meter) -> None:
        self._stop_unless_finite()
        values = self.interval.means() | meter.read(self.total - done)
        meter.restart()
        at = self.epochs.at(done)
        ends = self.epochs.at(self.total)
        metrics.say(metrics.train_line(done, self.total, (at, ends), values))
        self.writer.write("train", done, {"epoch": at, **values})

    def _evaluate_unless_stopped(self, state: TrainState, done: int) -> None:
        try:
            self._evaluate(state, done)
            self.eval_pending = False
        except Preempted:
            self.eval_pending = self.preemption.preempted = True

    def _make_pending_evaluation(self, state: TrainState, done: int) -> None:
        """Repeats the interrupted evaluation of a step that is already saved.

        A signal meanwhile ends the process at once: there is nothing to save.
        """
        self._evaluate(state, done)
        self.eval_pending = False
        self.writer.sync()
        self.setup.checkpoints.note_evaluation(done, self._evaluation_meta(done, True))

    def _evaluations_at(self, done: int) -> list[evaluation.Evaluation]:
        """The evaluations due after a step; all of them after the last step."""
        return [
            each
            for each in self.setup.evaluations
            if done >= self.total or self.epochs.passes(done, each.every)
        ]

    def _evaluate(self, state: TrainState, done: int) -> None:
        evaluations = self._evaluations_at(done)
        if not evaluations:
            return
        self._stop_unless_finite()
        began = time.perf_counter()
        found = {}
        for each in evaluations:
            found |= each.run(state, self.preemption, self.watchdog)
        self.results, arrays = evaluation.split_results(found)
        seconds = time.perf_counter() - began
        metrics.say(metrics.eval_line(done, self.results, seconds))
        for note in (note for each in evaluations for note in each.notes()):
            metrics.say(f"  {note}")
        values = {"epoch": self.epochs.at(done), **self.results}
        self.writer.write("eval", done, values)
        if jax.process_index() != 0:
            return
        if arrays:
            workdir_lib.write_arrays(
                self.workdir / "evaluation.npz", step=done, **arrays
            )
        for each in evaluations:
            each.save(self.workdir)

    def _save(self, state: TrainState, done: int, evaluated: bool) -> None:
        self._stop_unless_finite()
        self.writer.sync()
        meta = {
            "config": config_lib.as_dict(self.config),
            "class_names": list(self.setup.pipeline.class_names),
            "versions": workdir_lib.versions(),
            "interval": self.interval.sums(),
            **self._evaluation_meta(done, evaluated),
            "eval_pending": self.eval_pending,
        }
        self.setup.checkpoints.save(done, state, meta)

    def _evaluation_meta(self, done: int, evaluated: bool) -> dict[str, Any]:
        return {
            "results": self.results,
            "evaluated": evaluated,
            "by_all_evaluators": self._evaluations_at(done) == self.setup.evaluations,
        }

    def _stop_unless_finite(self) -> None:
        self.interval.sums()
        if self.interval.bad_step is None:
            return
        with contextlib.suppress(UserError):
            self.setup.checkpoints.wait()
        raise UserError(
            f"{self.workdir}: loss or parameters are not finite at step "
            f"{self.interval.bad_step}; {self.setup.checkpoints.last_good()}: lower "
            "config.optimizer.learning_rate or clip_norm"
        )

    def _finish(self, state: TrainState, done: int) -> None:
        provenance = {
            "task": str(self.config.task),
            "data": config_lib.as_dict(self.config.data),
            "config": config_lib.as_dict(self.config),
            "steps": done,
            "epochs": self.epochs.at(done),
            "class_names": list(self.setup.pipeline.class_names),
            "versions": workdir_lib.versions(),
            "metrics": self.results,
        }
        place = export.export_encoder(self.workdir, self.setup.task, state, provenance)
        metrics.say(f"finished after {done} steps ({self.epochs.at(done):.1f} epochs)")
        self._say_results()
        metrics.say(f"  encoder      {place}")
        metrics.say(f"  metrics      {self.workdir / 'metrics.jsonl'}")
        metrics.say(f"  checkpoints  {self.workdir / 'checkpoints'}")

    def _say_results(self) -> None:
        for name, value in self.results.items():
            metrics.say(f"  {name:<24} {value:.4g}")
