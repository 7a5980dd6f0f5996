"""The interface between a pretext or downstream task and everything else.

A task is one module `ctp_jax/tasks/<name>.py` with a class `Task`. It says which clips
it needs, what it plans on the host, what it draws and learns from, its loss, what it
predicts for evaluators and what it updates after a step. The trainer knows this
interface and no task's name; a config names the task, `load` imports it.

Symbols in shapes: b videos of the global batch, c clips per video, t frames per clip,
h w of the canvas (the decoded window), s side of the drawn clip, n boxes per frame.
"""

import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec, labels
from ctp_jax.errors import UserError
from ctp_jax.tasks import render

Params = Any
ModelState = Mapping[str, Any]


class Variables(NamedTuple):
    """Everything that predictions depend on beside the batch.

    Attributes:
        params: what gradients change.
        state: what changes without a gradient, as one pytree: `batch_stats`, and
            whatever else the task keeps (further networks, a queue, counters).
    """

    params: Params
    state: ModelState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepOutput:
    """What a loss returns beside its value.

    Attributes:
        metrics: scalars, means over the global batch, for the log.
        state: the new `Variables.state`, of the same structure as the one given.
        carry: anything that `Task.after_step` needs (embeddings for a queue). With
            `config.optimizer.accumulate`, arrays with rows of the batch along their
            leading axis are those of the whole batch, others means over its parts.
    """

    metrics: Mapping[str, jax.Array]
    state: ModelState
    carry: Any = None


@dataclasses.dataclass(frozen=True)
class Overlay:
    """What a picture of clips shows beside their pixels.

    Attributes:
        captions: a line per video: its label in words, say; '' for none.
        boxes: float (b, c, n, t, 4), x1 y1 x2 y2 in pixels of the clip, to learn; None
            where the task knows no boxes.
        predicted: likewise, of the network; None without one.
    """

    captions: Sequence[str]
    boxes: np.ndarray | None = None
    predicted: np.ndarray | None = None


class Task:
    """Base class: subclasses override what they need.

    All device methods are pure and are traced inside one jitted step over the global
    batch, so means and products over b are means over all devices and hosts.

    Attributes:
        config: of the run.
        class_names: of the labels that are learnt; () where labels have no names.
    """

    class_names: Sequence[str] = ()

    def __init__(self, config: ConfigDict):
        """Keeps the config; raises `UserError` where it contradicts itself."""
        self.config = config

    # On the host -----------------------------------------------------------------

    def see_data(self, train: Any, held_out: Any | None) -> None:
        """Looks at the splits, before parameters are made.

        Args:
            train: `ctp_jax.data.records.Records` of the split to train on, all of it
                whatever `config.data.fraction` is.
            held_out: of the one to evaluate on; None without evaluation.

        Raises:
            UserError: the task cannot use them (other classes, no labels, ...).
        """

    def clip_spec(self, train: bool) -> ClipSpec:
        """Which clips the pipeline should cut."""
        raise NotImplementedError

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        """Every random decision that is not which pixels to decode, in TensorFlow.

        Args:
            rng: `ctp_jax.data.rng.Rng`, uniform numbers that depend on (seed, position)
                alone, one row per video of the batch.
            batch: the host's share of the batch so far (see `Batch`); `choice` says what
                was chosen with the frames.
            train: False for evaluation.

        Returns:
            Arrays with leading dimension b. A `label` among them, int32 (b, ...), is
            learnt and judged in place of the data set's.
        """
        return {}

    # On the device ---------------------------------------------------------------

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The clips as the network sees them, grey levels in [0, 255].

        Here: cut, resized and mirrored; tasks paste, rotate and colour.
        """
        return render.crop_clips(batch, self.clip_spec(True).size)

    def targets(self, batch: Batch) -> Any:
        """What is learnt from, apart from what is drawn: by default the labels."""
        return labels(batch)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        """The variables before the first step, given a batch (or its shapes)."""
        raise NotImplementedError

    def loss(
        self, variables: Variables, batch: Batch, step: jax.Array | int, rng: jax.Array
    ) -> tuple[jax.Array, StepOutput]:
        """The training loss: a scalar, and what came with it.

        Args:
            variables: before the step.
            batch: see `Batch`.
            step: int32 scalar, steps done: for schedules.
            rng: for dropout and the like; another one in every step.
        """
        raise NotImplementedError

    def after_step(
        self, variables: Variables, carry: Any, step: jax.Array
    ) -> ModelState:
        """State to keep once the optimiser has made new parameters: momentum, queue.

        Args:
            variables: the new parameters, and the state that `loss` returned.
            carry: what `loss` handed over.
            step: as for `loss`.
        """
        return variables.state

    def predict(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """What evaluators read: arrays with leading dimension b."""
        raise NotImplementedError

    def encoder(
        self, variables: Variables
    ) -> tuple[Params, Mapping[str, Any], dict[str, Any]]:
        """The part worth keeping: parameters, batch statistics, architecture."""
        raise NotImplementedError

    def check_encoder(self, architecture: Mapping[str, Any]) -> None:
        """Raises `UserError` for an encoder whose weights do not fit this config.

        Called before data are opened, with the `architecture` that came with them.
        """

    def load_encoder(
        self, variables: Variables, params: Params, batch_stats: Mapping[str, Any]
    ) -> Variables:
        """The reverse of `encoder`, for one that `check_encoder` has passed.

        Fills every network of the task that starts from the encoder.
        """
        raise NotImplementedError

    def head(self, params: Params) -> Params | None:
        """The rest of the network, exported beside the encoder; None: there is none."""
        return params.get("head")

    def frozen(self, params: Params) -> Any | None:
        """Which parameters the optimiser leaves alone: bools in the tree of `params`.

        None where it may change all of them.
        """
        return None

    # Off the device --------------------------------------------------------------

    def overlay(
        self, batch: Batch, outputs: Mapping[str, np.ndarray] | None = None
    ) -> Overlay:
        """What pictures of a batch show beside the pixels, on the host.

        Here: the label in words, and the prediction where there are `logits`.

        Args:
            batch: see `Batch`, NumPy arrays.
            outputs: of `predict`, if a trained network has looked at the batch.
        """
        found = np.asarray(labels(batch))
        captions = [""] * len(found)
        if len(self.class_names) and found.ndim == 1:
            captions = [self.class_names[int(i)] if i >= 0 else "" for i in found]
        if outputs is not None and "logits" in outputs and len(self.class_names):
            chosen = np.asarray(outputs["logits"]).mean(axis=1).argmax(axis=-1)
            captions = [
                f"{caption}, predicted: {self.class_names[int(i)]}".removeprefix(", ")
                for caption, i in zip(captions, chosen, strict=True)
            ]
        return Overlay(captions)


def load(config: ConfigDict) -> Task:
    """The task that `config.task` names: `Task` of `ctp_jax.tasks.<name>`.

    A name with a dot is a module path of its own, so that a task can live outside
    this package. Raises `UserError` for a name that is not there.
    """
    name = str(config.task)
    module_name = name if "." in name else f"ctp_jax.tasks.{name}"
    try:
        found = importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        import ctp_jax.tasks as package

        known = [m.name for m in pkgutil.iter_modules(package.__path__)]
        known = sorted(set(known) - _NO_TASKS)
        raise UserError(
            f"config.task = {name!r}: no such task; the tasks are {', '.join(known)}"
        )
    return importlib.import_module(module_name).Task(config)


_NO_TASKS = {"base", "classification", "probe", "render"}


def open_pipeline(
    config: ConfigDict,
    task: Task,
    train: bool,
    *share: int,
    opener: Callable[..., Any] | None = None,
) -> Any:
    """The pipeline of the clips that a task wants.

    Args:
        config: says which split, see `ctp_jax.data.pipeline.open_pipeline`.
        task: says which clips, and plans them.
        train: the split to train on, or the held-out one.
        *share: index of this process and number of processes; (0, 1) if left out.
        opener: stands in for `ctp_jax.data.pipeline.open_pipeline`.
    """
    if opener is None:
        # Here and not above: it brings TensorFlow.
        from ctp_jax.data.pipeline import open_pipeline as opener
    plan = functools.partial(task.plan, train=train)
    return opener(config, task.clip_spec(train), plan, train, *share)
