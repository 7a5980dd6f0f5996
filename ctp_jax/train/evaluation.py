"""Evaluation: passes over held-out videos, seen by the evaluators of a config."""

import copy
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ctp_jax import formatting, terminal
from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError
from ctp_jax.evaluators import base as evaluators
from ctp_jax.storage import files
from ctp_jax.tasks import base, probe, tracker
from ctp_jax.tasks.base import Task
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import step as step_lib
from ctp_jax.train import workdir as workdir_lib
from ctp_jax.train.distributed import coordination
from ctp_jax.train.distributed.preemption import Preempted, Preemption
from ctp_jax.train.state import TrainState
from ctp_jax.train.watchdog import Watchdog


@runtime_checkable
class Pipeline(Protocol):
    """What a run uses of a `ctp_jax.data.pipeline.Pipeline`, without its TensorFlow."""

    num_examples: int
    class_names: Sequence[str]

    def train_batches(self, start_step: int = 0) -> Iterator[Batch]:
        """The batches from a step on, without end."""
        ...

    def eval_batches(self) -> Iterator[Batch]:
        """One pass over the split."""
        ...


class Evaluation:
    """One pass over held-out videos, and the evaluators that share its predictions.

    Attributes:
        every: epochs between two passes; 0: only at the end of the run.
        evaluators: by their names in the config.
        pipelines: held-out videos, and the gallery if an evaluator needs it.
    """

    def __init__(
        self,
        config: ConfigDict,
        view: Task,
        named: Mapping[str, ConfigDict],
        training: Pipeline,
        mesh: Mesh,
        opener: Callable | None,
    ):
        """Opens the data, so that errors in it appear before training.

        Args:
            config: of the run, with `data.eval_split` and `data.eval_videos` of the pass.
            view: the task, or the probe of its encoder: chooses clips and predicts.
            named: the options of each evaluator in `config.evaluators`, by name.
            training: of the run.
            mesh: of the run.
            opener: see `ctp_jax.tasks.base.open_pipeline`.
        """
        share = (jax.process_index(), jax.process_count())
        self.every = rhythm(config, next(iter(named.values())))
        self._view, self._mesh, self._batch_size = view, mesh, config.batch_size
        self._step = coordination.compiled_together(
            step_lib.make_eval_step(view, mesh), "evaluation step"
        )
        self._held_out = base.open_pipeline(config, view, False, *share, opener=opener)
        held_out = getattr(self._held_out, "records", None)
        view.see_data(getattr(training, "whole", None), held_out)
        # Of these, the gallery: its clips may be shorter than those trained with.
        trained_on = getattr(training, "chosen", None)
        subject = evaluators.Subject(held_out, trained_on, tuple(view.class_names))
        self.evaluators = {
            name: evaluators.load(name, options).make(options, subject)
            for name, options in named.items()
        }
        # Two evaluators of one module would have results and files of equal names.
        self._own_names = {
            name: options.module.rpartition(".")[2] not in ("", name)
            for name, options in named.items()
        }
        self.pipelines: list[Pipeline] = [self._held_out]
        self._with_gallery = [
            each for each in self.evaluators.values() if each.needs_gallery
        ]
        if self._with_gallery:
            gallery = copy.deepcopy(config)
            gallery.data.eval_split = config.data.split
            gallery.data.eval_videos = config.probe.gallery_videos
            self._gallery = base.open_pipeline(
                gallery, view, False, *share, opener=opener
            )
            self.pipelines.append(self._gallery)
        self._left_out = 0

    def run(
        self, state: TrainState, preemption: Preemption, watchdog: Watchdog
    ) -> dict[str, Any]:
        """Passes every prediction to every evaluator; returns their results by name.

        Args:
            state: of the run.
            preemption: asked before every batch whether to stop.
            watchdog: reports a stalled input.

        Raises:
            Preempted: on every process, if one got a signal.
        """
        self._left_out = 0
        for evaluator in self.evaluators.values():
            evaluator.reset()

        def predict(pipeline, what):
            batches = terminal.progress(
                pipeline.eval_batches(),
                what,
                -(-pipeline.num_examples // self._batch_size),
                unit="batches",
                show=jax.process_index() == 0,
            )
            return self._predict(state, batches, preemption, watchdog)

        if self._with_gallery:
            for batch, outputs in predict(self._gallery, "gallery"):
                for evaluator in self._with_gallery:
                    evaluator.update_gallery(batch, outputs)
        for batch, outputs in predict(self._held_out, "evaluation"):
            for name, evaluator in self.evaluators.items():
                evaluator.update(batch, _Outputs(outputs, name))
        return {
            f"{name}/{key}" if self._own_names[name] else key: value
            for name, evaluator in self.evaluators.items()
            for key, value in evaluator.results()
        }

    def _predict(
        self,
        state: TrainState,
        batches: Iterable[Batch],
        preemption: Preemption,
        watchdog: Watchdog,
    ) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
        """Yields (batch without frames, outputs) on the host."""
        running, batches, left_out = None, iter(batches), set()
        share = self._batch_size // jax.process_count()
        carried = mesh_lib.put(self._view.first_carry(share), self._mesh)
        while True:
            with watchdog.waiting("an evaluation's batch"):
                batch = next(batches, None)
            asked_to_stop, started = preemption.vote(), None
            if batch is not None:
                batch = mesh_lib.put(batch, self._mesh)
                *started, carried = self._step(state, batch, carried)
            # The device predicts this batch while the host evaluates the previous one.
            if running is not None:
                seen, outputs = jax.device_get(running)
                if asked_to_stop():
                    raise Preempted
                # Of one video, there may be several clips in a pass.
                if "replaced" in seen:
                    bad = np.asarray(seen["replaced"]) > 0
                    left_out.update(seen["index"][bad].tolist())
                yield seen, outputs
            if started is None:
                self._left_out += len(left_out)
                return
            running = started

    def notes(self) -> list[str]:
        """Lines for the user about the last results."""
        notes = [note for each in self.evaluators.values() for note in each.notes()]
        if self._left_out:
            bad = formatting.count(self._left_out, "unreadable video")
            notes.append(f"left out: {bad}")
        return notes

    def save(self, directory: pathlib.Path) -> None:
        """Lets the evaluators write their pictures and tables."""
        for name, evaluator in self.evaluators.items():
            place = directory / name if self._own_names[name] else directory
            place.mkdir(exist_ok=True)
            with files.replacing_inside(place) as new:
                evaluator.save(new)


class _Outputs(dict):
    """What a task predicts, for one evaluator; what is missing is the user's to mend."""

    def __init__(self, outputs: Mapping[str, np.ndarray], evaluator: str):
        super().__init__(outputs)
        self._evaluator = evaluator

    def __missing__(self, name: str) -> NoReturn:
        raise UserError(
            f"config.evaluators.{self._evaluator} reads {name!r}, but config.task "
            f"predicts {', '.join(self)}: choose other evaluators"
        )


_VIEWS: dict[str, Callable[[ConfigDict, Task], Task]] = {
    "predictions": lambda config, task: task,
    "features": probe.Probe,
    "sequences": tracker.Tracker,
}


def rhythm(config: ConfigDict, options: ConfigDict) -> float:
    """Epochs between two passes of an evaluator."""
    return options.every or config.eval_every


def open_all(
    config: ConfigDict,
    task: Task,
    pipeline: Pipeline,
    mesh: Mesh,
    opener: Callable | None,
) -> list[Evaluation]:
    """The passes of `config.evaluators`; also calls `Task.see_data`.

    Evaluators that need the same predictions on the same videos at the same steps share
    a pass.
    """
    task.see_data(getattr(pipeline, "whole", None), None)
    passes: dict[tuple, dict[str, ConfigDict]] = {}
    for name, options in config.evaluators.items():
        split = options.split or config.data.eval_split
        if not split:
            continue
        looks_at = evaluators.load(name, options).LOOKS_AT
        videos = options.videos or config.data.eval_videos
        key = (looks_at, split, videos, rhythm(config, options))
        passes.setdefault(key, {})[name] = options
    made = []
    for (looks_at, split, videos, _), named in passes.items():
        view = _VIEWS[looks_at](config, task)
        own = copy.deepcopy(config)
        own.data.eval_split, own.data.eval_videos = split, videos
        made.append(Evaluation(own, view, named, pipeline, mesh, opener))
    return made


def run_all(
    evaluations: Iterable[Evaluation],
    state: TrainState,
    preemption: Preemption,
    watchdog: Watchdog,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The results of evaluations: scalars, which are logged, and arrays, by name.

    Raises:
        Preempted: on every process, if one got a signal.
    """
    results = {}
    for each in evaluations:
        results |= each.run(state, preemption, watchdog)
    return split_results(results)


def split_results(
    results: Mapping[str, Any],
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Separates scalars, which are logged, from arrays, which are written to a file."""
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


def save_all(
    evaluations: Iterable[Evaluation],
    workdir: pathlib.Path,
    step: int,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Writes arrays, pictures and tables of a step's evaluations, on process 0."""
    if jax.process_index() != 0:
        return
    if arrays:
        workdir_lib.write_arrays(workdir / "evaluation.npz", step=step, **arrays)
    for each in evaluations:
        each.save(workdir)
