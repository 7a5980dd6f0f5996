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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import modules, ranges
from ctp_jax.data.batch import Batch, ClipSpec, labels
from ctp_jax.errors import UserError
from ctp_jax.tasks import render

Params = Any
ModelState = Mapping[str, Any]


class Variables(NamedTuple):
    """Everything that predictions depend on besides the batch.

    Attributes:
        params: what the optimiser updates.
        state: what is updated without a gradient, as one pytree: `batch_stats`, and
            whatever else the task keeps (further networks, a queue, counters).
    """

    params: Params
    state: ModelState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepOutput:
    """What a loss returns besides its value.

    Attributes:
        metrics: scalars, means over the global batch, for the log.
        state: the new `Variables.state`, of the same structure as the one given.
        carry: anything that `Task.after_step` needs (embeddings for a queue). With
            `config.optimizer.accumulate`, arrays (b, ...) get the rows of the whole
            batch; those whose shape does not depend on b are means over the parts.
    """

    metrics: Mapping[str, jax.Array]
    state: ModelState
    carry: Any = None


@dataclasses.dataclass(frozen=True)
class Overlay:
    """What a picture of clips shows besides their pixels.

    Attributes:
        captions: a line per video, for example its label in words; '' for none.
        boxes: the true boxes, float (b, c, n, t, 4), x1 y1 x2 y2 in pixels of the clip;
            NaN for those that are not known; None if the task has no boxes.
        predicted: the boxes that the network predicts, likewise; None without one.
        clips: what each of the c clips is; a picture then shows all of them.
    """

    captions: Sequence[str]
    boxes: np.ndarray | None = None
    predicted: np.ndarray | None = None
    clips: Sequence[str] = ()


class Task:
    """Base class: subclasses override what they need.

    All device methods are pure and are traced inside one jitted step over the global
    batch, so means and products over b are means over all devices and hosts.

    Attributes:
        config: of the run.
        class_names: of the labels that are learnt; () if they have no names.
        head_tasks: tasks whose heads fit, too, with `config.init_head`.
        shows: what pictures of the clips show, in a word, which names their files:
            "clips", "boxes" of the data set, or "game": patches that were pasted.
    """

    class_names: Sequence[str] = ()
    head_tasks: Sequence[str] = ()
    shows = "clips"

    def __init__(self, config: ConfigDict):
        """Keeps the config; raises `UserError` where it contradicts itself."""
        self.config = config

    # On the host -----------------------------------------------------------------

    def see_data(self, train: Any, held_out: Any | None) -> None:
        """Checks the splits and keeps what the task needs of them, before `init`.

        Args:
            train: `ctp_jax.data.records.Records` of the whole training split, whatever
                `config.data.fraction` is.
            held_out: those of the split to evaluate on; None without evaluation.

        Raises:
            UserError: the task cannot use them (other classes, no labels, ...).
        """

    def clip_spec(self, train: bool) -> ClipSpec:
        """Which clips the pipeline should cut."""
        raise NotImplementedError

    def plan(self, rng, batch: Batch, train: bool) -> dict[str, Any]:
        """Samples all that is random, except which pixels to decode, in TensorFlow.

        Args:
            rng: `ctp_jax.data.rng.Rng`, uniform numbers that depend on (seed, position)
                alone, one row per video of the batch.
            batch: this host's share of the batch (see `Batch`), without the plan.
            train: False for evaluation.

        Returns:
            Arrays with leading dimension b. If one is called `label`, int32 (b, ...), it
            replaces the label of the data set, in training and in evaluation.
        """
        return {}

    # On the device ---------------------------------------------------------------

    def draw(self, batch: Batch) -> Float[Array, "b c t s s 3"]:
        """The clips as the network sees them, grey levels in [0, 255].

        By default they are cropped, resized and mirrored. Tasks may then paste
        patches, rotate the clips or change their colours.
        """
        return render.crop_clips(batch, self.clip_spec(True).size)

    def picture(self, batch: Batch, variables: Variables | None = None) -> jax.Array:
        """`draw`, and after its clips what a trained network makes of them, if it does."""
        return self.draw(batch)

    def targets(self, batch: Batch) -> Any:
        """What the predictions are compared with: by default the labels."""
        return labels(batch)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        """The variables before the first step, given a batch (or its shapes)."""
        raise NotImplementedError

    def loss(
        self, variables: Variables, batch: Batch, step: jax.Array | int, rng: jax.Array
    ) -> tuple[jax.Array, StepOutput]:
        """The training loss, a scalar, and the other results of the step.

        Args:
            variables: before the step.
            batch: see `Batch`.
            step: int32 scalar, how many steps are done; for schedules.
            rng: random key for dropout and the like, a new one in every step.
        """
        raise NotImplementedError

    def after_step(
        self, variables: Variables, carry: Any, step: jax.Array
    ) -> ModelState:
        """The state after the optimiser's update, e.g. of a momentum encoder or queue.

        Args:
            variables: the new parameters, and the state that `loss` returned.
            carry: `StepOutput.carry` of `loss`.
            step: as for `loss`.
        """
        return variables.state

    def predict(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """The predictions that evaluators read: arrays with leading dimension b."""
        raise NotImplementedError

    def first_carry(self, videos: int) -> dict[str, np.ndarray]:
        """What the first batch of an evaluation has besides its own entries.

        `predict` returns entries of the same names, shapes and types. They are no
        outputs: the next batch has them in their place, row by row.

        Args:
            videos: of this process in a batch, the leading dimension.
        """
        return {}

    def encoder(
        self, variables: Variables
    ) -> tuple[Params, Mapping[str, Any], dict[str, Any]]:
        """The encoder to export: parameters, batch statistics, architecture."""
        raise NotImplementedError

    def check_encoder(self, architecture: Mapping[str, Any]) -> None:
        """Raises `UserError` for an encoder whose weights do not fit this config.

        Called before data are opened, with the `architecture` that came with them.
        """

    def load_encoder(
        self, variables: Variables, params: Params, batch_stats: Mapping[str, Any]
    ) -> Variables:
        """The variables with an encoder that `check_encoder` has accepted put in.

        It is put into every network of the task that starts from the encoder.
        """
        raise NotImplementedError

    def load_head(self, variables: Variables, head: Params) -> Variables:
        """The variables with an exported head of the same task put in."""
        return variables._replace(params={**variables.params, "head": head})

    def other_network(self) -> tuple[str, str]:
        """Where another run's network is that the task needs, besides `config.init_from`.

        Returns:
            The field of the config that says so, for messages, and its value, a path as
            `config.init_from` takes; empty if there is none. It is read before step 0,
            never on resume.

        Raises:
            UserError: there has to be one.
        """
        return "", ""

    def load_other_network(self, variables: Variables, encoder: Any) -> Variables:
        """The variables with that network put in.

        Args:
            variables: before the first step.
            encoder: `ctp_jax.train.checkpoints.export.Encoder`, with `params`,
                `batch_stats`, `architecture`, `head`, `head_task`, `provenance`, `path`.

        Raises:
            UserError: it is of another kind.
        """
        raise NotImplementedError

    def head(self, variables: Variables) -> Params | None:
        """The rest of the network, exported with the encoder; None if there is none."""
        return variables.params.get("head")

    def chance_loss(self) -> float | None:
        """The loss of a network that has learnt nothing; None where none is known.

        With equal logits, say. Curves of several tasks are drawn relative to it.
        """
        return None

    def frozen(self, params: Params) -> Any | None:
        """Which parameters the optimiser must not change: bools in the tree of `params`.

        None if it may change all of them.
        """
        return None

    # Off the device --------------------------------------------------------------

    def overlay(
        self, batch: Batch, outputs: Mapping[str, np.ndarray] | None = None
    ) -> Overlay:
        """What pictures of a batch show besides the pixels, on the host.

        By default: the names of the labels and, if `outputs` has `logits`, of what is
        predicted, of the video or of each clip.

        Args:
            batch: see `Batch`, NumPy arrays.
            outputs: of `predict`; None without a trained network.
        """
        found = np.asarray(labels(batch))
        captions = [""] * len(found)
        if len(self.class_names) and found.ndim <= 2:
            captions = self._names(found)
        if outputs is not None and "logits" in outputs and len(self.class_names):
            logits = np.asarray(outputs["logits"])
            chosen = (logits if found.ndim == 2 else logits.mean(axis=1)).argmax(-1)
            captions = [
                f"{caption}, predicted: {name}".removeprefix(", ")
                for caption, name in zip(captions, self._names(chosen), strict=True)
            ]
        return Overlay(captions)

    def _names(self, numbers: np.ndarray) -> list[str]:
        """In words, for each video, its class or those of its clips; '' for -1."""
        names = [*self.class_names, ""]
        videos = numbers.reshape(len(numbers), -1)
        return [" / ".join(names[int(i)] for i in video) for video in videos]


def load(config: ConfigDict) -> Task:
    """The task that `config.task` names: `Task` of `ctp_jax.tasks.<name>`.

    A name with a dot is the path of a module outside this package.

    Raises:
        UserError: for an unknown name, see `ctp_jax.modules.load`, or a field of the
            config that is out of range.
    """
    ranges.check(config)
    tasks = modules.inside("ctp_jax.tasks", *_NO_TASKS)
    module = modules.load("config.task", "task", str(config.task), tasks, "Task")
    return module.Task(config)


_NO_TASKS = (
    "base",
    "classification",
    "mixture",
    "momentum",
    "probe",
    "render",
    "tracker",
)


def check_videos(count: int, what: str) -> None:
    """Raises `UserError` if there are fewer than two videos, which `what` needs.

    Args:
        count: of the videos that are computed together.
        what: in words.
    """
    if count < 2:
        raise UserError(
            f"config.batch_size / config.optimizer.accumulate = {count}: {what} needs at "
            "least 2: set a larger batch_size or a smaller accumulate"
        )


def open_pipeline(
    config: ConfigDict,
    task: Task,
    train: bool,
    *share: int,
    opener: Callable[..., Any] | None = None,
) -> Any:
    """The pipeline of the clips that a task wants.

    Args:
        config: names the splits, see `ctp_jax.data.pipeline.open_pipeline`.
        task: says which clips it needs, and plans them.
        train: True for the training split, False for the held-out one.
        *share: index of this process and number of processes; (0, 1) if left out.
        opener: called in place of `ctp_jax.data.pipeline.open_pipeline`.
    """
    if opener is None:
        # Imported here, because it imports TensorFlow.
        from ctp_jax.data.pipeline import open_pipeline as opener
    plan = functools.partial(task.plan, train=train)
    return opener(config, task.clip_spec(train), plan, train, *share)
