"""Passes over held-out videos."""

import copy
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ctp_jax.errors import UserError
from ctp_jax.tasks import base, probe
from ctp_jax.tasks.base import Task
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import step
from ctp_jax.train.distributed import coordination
from ctp_jax.train.distributed.preemption import Preempted, Preemption
from ctp_jax.train.state import TrainState
from ctp_jax.train.watchdog import Watchdog


class Evaluation:
    """One way of cutting clips and predicting, and the evaluators that look at it.

    Attributes:
        evaluators: of the task; may be none.
        pipelines: held-out videos, and the gallery where there is one.
    """

    def __init__(
        self,
        config: ConfigDict,
        task: Task,
        train_records: Any,
        mesh: Mesh,
        opener: Callable | None,
    ):
        """Opens the data, so that what is wrong with it is said before training.

        Args:
            config: of the run.
            task: says which clips, predicts, and names its evaluators.
            train_records: of the whole training split, for `Task.see_data`.
            mesh: of the run.
            opener: see `ctp_jax.tasks.base.open_pipeline`.
        """
        share = (jax.process_index(), jax.process_count())
        self._mesh = mesh
        self._step = coordination.compiled_together(
            step.make_eval_step(task, mesh), "evaluation step"
        )
        self._held_out = base.open_pipeline(config, task, False, *share, opener=opener)
        held_out = getattr(self._held_out, "records", None)
        task.see_data(train_records, held_out)
        self.evaluators = tuple(task.evaluators())
        self.pipelines = [self._held_out]
        if any(e.needs_gallery for e in self.evaluators):
            config = copy.deepcopy(config)
            config.data.eval_split = config.data.split
            config.data.eval_videos = config.probe.gallery_videos
            self._gallery = base.open_pipeline(
                config, task, False, *share, opener=opener
            )
            self.pipelines.append(self._gallery)
        self._left_out = 0
        self._with_gallery = [e for e in self.evaluators if e.needs_gallery]

    def run(
        self, state: TrainState, preemption: Preemption, watchdog: Watchdog
    ) -> dict[str, Any]:
        """Shows every evaluator every prediction; returns what they yield, by name.

        Args:
            state: of the run.
            preemption: whether the run is asked to stop.
            watchdog: says so if the input stalls.

        Raises:
            Preempted: on every process, if one was asked to.
        """
        self._left_out = 0
        for evaluator in self.evaluators:
            evaluator.reset()

        def predict(pipeline):
            return self._predict(state, pipeline.eval_batches(), preemption, watchdog)

        if self._with_gallery:
            for batch, outputs in predict(self._gallery):
                for evaluator in self._with_gallery:
                    evaluator.update_gallery(batch, outputs)
        if self.evaluators:
            for batch, outputs in predict(self._held_out):
                for evaluator in self.evaluators:
                    evaluator.update(batch, outputs)
        results = {}
        for evaluator in self.evaluators:
            results.update(evaluator.results())
        return results

    def _predict(
        self,
        state: TrainState,
        batches: Iterable,
        preemption: Preemption,
        watchdog: Watchdog,
    ) -> Iterable[tuple]:
        """(batch, outputs) on the host, of all batches."""
        running, batches = None, iter(batches)
        while True:
            with watchdog.waiting("an evaluation's batch"):
                batch = next(batches, None)
            started = None
            if batch is not None:
                batch = mesh_lib.put(preemption.with_vote(batch), self._mesh)
                started = self._step(state, batch)
            # The device predicts this batch while the host looks at the one before.
            if running is not None:
                seen, outputs = mesh_lib.to_host(running)
                if seen.pop("stop").any():
                    raise Preempted
                self._left_out += int(seen.get("replaced", np.zeros(1)).sum())
                yield seen, outputs
            if started is None:
                return
            running = started

    def notes(self) -> list[str]:
        """What there is to say about the last results."""
        notes = [note for evaluator in self.evaluators for note in evaluator.notes()]
        if self._left_out:
            notes.append(f"{self._left_out} videos could not be read and are left out")
        return notes

    def save(self, directory: pathlib.Path) -> None:
        """Lets the evaluators write their pictures and tables."""
        for evaluator in self.evaluators:
            evaluator.save(directory)


def open_all(
    config: ConfigDict,
    task: Task,
    pipeline: Any,
    mesh: Mesh,
    opener: Callable | None,
) -> list[Evaluation]:
    """What is evaluated, and how; the tasks have then seen the data."""
    records = getattr(pipeline, "whole", None)
    views = probe.views(config, task)
    if not config.data.eval_split:
        if len(views) > 1:
            raise UserError(
                "config.probe.evaluators: needs held-out videos; set config.data.eval_split"
            )
        task.see_data(records, None)
        return []
    made = [Evaluation(config, view, records, mesh, opener) for view in views]
    return [each for each in made if each.evaluators]


def split_results(
    results: Mapping[str, Any],
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Separates numbers, which are logged, from arrays, which are kept in a file."""
    numbers, arrays = {}, {}
    for name, value in results.items():
        array = np.asarray(value)
        if array.dtype == object:
            continue
        if array.ndim == 0 and array.dtype.kind in "biuf":
            numbers[name] = array.item()
        else:
            arrays[name] = array
    return numbers, arrays
