"""The training loop. It knows the `Task` interface and no task's name."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax import formatting
from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError, refusals
from ctp_jax.storage import buckets
from ctp_jax.train import console, evaluation, finished, metrics, step
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import setup as setup_lib
from ctp_jax.train import workdir as workdir_lib
from ctp_jax.train.checkpoints import export
from ctp_jax.train.distributed import coordination
from ctp_jax.train.distributed.preemption import Preempted, Preemption
from ctp_jax.train.passing_on import PassOn, passing_on
from ctp_jax.train.profile import Profile
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
        workdir: folder of this run, created if it is missing; or an address, gs:// or
            s3://.
        opener: replaces `ctp_jax.data.pipeline.open_pipeline`.
        preemption: already entered, for a caller who asks it afterwards whether the run
            was interrupted.

    Returns:
        The metrics of the last evaluation.

    Raises:
        UserError: the config or the workdir cannot be used, the loss is not finite, or
            the system refuses something, as on a full disk.
    """
    config_lib.validate(config)
    directory, new = workdir_lib.make_workdir(workdir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(workdir_lib.locked(directory))
        if new:
            stack.enter_context(workdir_lib.deleted_if_refused(directory))
        if preemption is None:
            preemption = stack.enter_context(Preemption())
        stack.enter_context(refusals(directory))
        setup = setup_lib.open_setup(config, directory, opener)
        stack.enter_context(contextlib.closing(setup.checkpoints))
        pass_on = stack.enter_context(passing_on(config, directory))
        results = Run(setup, preemption, pass_on).run()
        if jax.process_index() == 0:
            buckets.push(directory)
        return results


class Run:
    """One run, fresh or resumed."""

    def __init__(
        self,
        setup: setup_lib.Setup,
        preemption: Preemption,
        pass_on: PassOn | None = None,
    ):
        self.setup, self.preemption, self.pass_on = setup, preemption, pass_on
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
        self.state, self.done = start.state, start.done
        self.results, self.interval = start.results, metrics.Interval(start.interval)
        # Whether the evaluation due at step `done` is not complete.
        self.eval_pending = start.eval_pending
        steps = max(self.done, self.total)
        exported = finished.exported_results(self.workdir, self.config, steps)
        if self.total > 0 and exported is not None:
            console.say(
                f"{self.workdir}: this run is finished, "
                f"{formatting.count(steps, 'step')}; its encoder is in encoder/"
            )
            results, others = exported
            if others:
                console.say(
                    f"note: its results are of another evaluation ({others}): for this one, "
                    f"add --config.init_from={self.workdir} --config.init_head "
                    "--config.epochs=0 --config.steps=0 and another --workdir"
                )
            return results
        # Without a checkpoint, evaluations in the log may be of another encoder.
        stale = self.total == 0 and self.setup.checkpoints.latest() is None
        writer = metrics.MetricWriter(
            self.workdir, -1 if stale else self.done, self.eval_pending, self.pass_on
        )
        watchdog = Watchdog(self.config.data.stall_after, console.say_here)
        with contextlib.closing(writer), contextlib.closing(watchdog):
            self.writer, self.watchdog = writer, watchdog
            if self.total == 0:
                return self._only_evaluate()
            if self.eval_pending:
                self._make_pending_evaluation()
            with self._saved_on_failure():
                self._steps(start.batches)
            self.setup.checkpoints.wait()
        if self.preemption.preempted:
            console.say(
                f"stopped by {self.preemption.name or 'another process'} after step "
                f"{self.done}/{self.total}, which is saved: run the same command to "
                "resume"
            )
        else:
            self._finish()
            self.preemption.exit_code = 0
        self.preemption.nothing_to_save = True
        return self.results

    def _only_evaluate(self) -> dict[str, float]:
        """Evaluates without training: `config.epochs = 0`."""
        if not self.setup.evaluations:
            raise UserError(
                "config.epochs = 0: nothing to train or evaluate: set "
                "config.data.eval_split or config.epochs"
            )
        self._evaluate()
        self._say_results()
        return self.results

    # Order at the end of a step: log, evaluate, save. So a checkpoint's step is already
    # logged and evaluated and is not logged again on resume. If the evaluation was
    # interrupted or failed, the checkpoint says that it is pending.
    def _steps(self, batches: Iterator[Batch]) -> None:
        config, start = self.config, self.done
        clips = config.batch_size * self.setup.task.clip_spec(True).num_clips
        meter, before = metrics.Meter(clips), None
        profile = Profile(config.get("profile", ""), self.workdir)
        if start < self.total:
            console.say("first step: compiling, minutes for large networks on CPUs")
        for number in range(start + 1, self.total + 1):
            began = time.perf_counter()
            with self.watchdog.waiting(f"the batch of step {number}"):
                batch = next(batches)
            waited = time.perf_counter() - began
            profile.before(number)
            # Queued before the step, so the answer arrives while the step runs.
            asked_to_stop = self.preemption.vote()
            # Only queues the transfer and the step: while the device computes, the host
            # fetches and sends the next batch.
            self.state, values = self.train_step(
                self.state, mesh_lib.put(batch, self.setup.mesh)
            )
            self.done = number
            self.eval_pending = bool(self._evaluations_due())
            self.interval.add(number, values)
            # At most one step ahead, or batches would pile up on the device.
            jax.block_until_ready(before)
            stop = asked_to_stop()
            before = values
            profile.after(number, values)
            meter.step(waited)
            if number == start + 1:
                jax.block_until_ready(values)
                console.say_first_step(time.perf_counter() - began)
                self.preemption.nothing_to_save = False
                meter.restart()
            last = number == self.total
            if number % config.log_every == 0 or last:
                self._log(meter)
            if self.eval_pending:
                with contextlib.suppress(Preempted):
                    self._evaluate()
                meter.restart()
            # Still pending: a signal stopped the evaluation.
            stop = (stop and not last) or self.eval_pending
            every = (config.checkpoint_every, config.keep_every)
            if last or stop or any(self.epochs.passes(number, each) for each in every):
                self._save()
            if stop:
                self.preemption.preempted = True
                break
        profile.close()

    @contextlib.contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """Saves the steps that are done if the body fails in what surrounds them.

        For example, an evaluation fails, or no more data can be read.
        """
        start = self.done
        try:
            yield
        except Exception:
            # A save needs all processes. The state may be what is wrong: then it is not
            # saved, and the first error is the one to show.
            if self.done > start and coordination.all_reach(f"failure {self.done}"):
                with contextlib.suppress(Exception):
                    self._save()
                    self.setup.checkpoints.wait()
                    console.say(f"step {self.done}/{self.total} is saved")
            raise

    def _log(self, meter: metrics.Meter) -> None:
        self._stop_unless_finite()
        values = self.interval.means() | meter.read(self.total - self.done)
        meter.restart()
        at, ends = self.epochs.at(self.done), self.epochs.at(self.total)
        console.say(console.train_line(self.done, self.total, (at, ends), values))
        self.writer.write("train", self.done, {"epoch": at, **values})

    def _make_pending_evaluation(self) -> None:
        """Repeats the interrupted evaluation of a step that is already saved.

        A signal meanwhile ends the process at once: there is nothing to save.
        """
        self._evaluate()
        self.writer.sync()
        self.setup.checkpoints.note_evaluation(self.done, self._evaluation_meta())

    def _evaluations_due(self) -> list[evaluation.Evaluation]:
        """The evaluations due after this step; all of them after the last step."""
        return [
            each
            for each in self.setup.evaluations
            if self.done >= self.total or self.epochs.passes(self.done, each.every)
        ]

    def _evaluate(self) -> None:
        evaluations = self._evaluations_due()
        if not evaluations:  # config.eval_every was another one
            return
        self._stop_unless_finite()
        began = time.perf_counter()
        self.results, arrays = evaluation.run_all(
            evaluations, self.state, self.preemption, self.watchdog
        )
        seconds = time.perf_counter() - began
        console.say(console.eval_line(self.done, self.results, seconds))
        for note in (note for each in evaluations for note in each.notes()):
            console.say(f"  {note}")
        at = self.epochs.at(self.done)
        self.writer.write("eval", self.done, {"epoch": at, **self.results})
        evaluation.save_all(evaluations, self.workdir, self.done, arrays)
        self.eval_pending = False

    def _save(self) -> None:
        self._stop_unless_finite()
        self.writer.sync()
        meta = {
            "videos": setup_lib.video_digest(self.setup.pipeline),
            "interval": self.interval.sums(),
            **self._evaluation_meta(),
            "eval_pending": self.eval_pending,
        }
        self.setup.checkpoints.save(self.done, self.state, self._origin() | meta)

    def _origin(self) -> dict[str, Any]:
        """What checkpoints and the encoder say about where they come from."""
        return {
            "config": config_lib.as_dict(self.config),
            "class_names": list(self.setup.pipeline.class_names),
            "head_classes": list(self.setup.task.class_names),
            "versions": workdir_lib.versions(),
        }

    def _evaluation_meta(self) -> dict[str, Any]:
        due, last = self._evaluations_due(), self.done >= self.total
        return {
            "results": self.results,
            "evaluated": (bool(due) or last) and not self.eval_pending,
            "by_all_evaluators": due == self.setup.evaluations,
        }

    def _stop_unless_finite(self) -> None:
        self.interval.sums()
        if self.interval.bad_step is None:
            return
        with contextlib.suppress(UserError):
            self.setup.checkpoints.wait()
        remedy = (
            "lower config.optimizer.learning_rate or clip_norm, in another --workdir"
        )
        if self.interval.bad_step == 1:  # nothing was learnt before
            remedy = (
                "look at the clips (python -m ctp_jax.visualize --train), at the labels of "
                "a task of your own, which count from 0, and at what config.init_from names"
            )
        raise UserError(
            f"{self.workdir}: loss or parameters are not finite at step "
            f"{self.interval.bad_step}; {self.setup.checkpoints.last_good()}: {remedy}"
        )

    def _finish(self) -> None:
        epochs = self.epochs.at(self.done)
        provenance = {
            "task": str(self.config.task),
            "data": config_lib.as_dict(self.config.data),
            "steps": self.done,
            "epochs": epochs,
            "metrics": self.results,
        } | self._origin()
        place = export.export_encoder(
            self.workdir, self.setup.task, self.state, provenance
        )
        console.say(
            f"finished after {formatting.count(self.done, 'step')} ({epochs:.1f} epochs)"
        )
        self._say_results()
        console.say(f"  encoder      {place}")
        console.say(f"  metrics      {self.workdir / 'metrics.jsonl'}")
        console.say(f"  checkpoints  {self.workdir / 'checkpoints'}")

    def _say_results(self) -> None:
        for name, text in console.results(self.results).items():
            console.say(f"  {name:<18} {text}")
