"""The interface between a pretext or downstream task and everything else.

A task is one module `ctp_jax/tasks/<name>.py` with a class `Task`. It says which
clips it needs, what it plans on the host, how it initialises, its loss, what it
predicts for evaluators and what it updates after a step. The trainer knows this
interface and no task's name; a config names the task, `load` imports it.

Symbols in shapes: b videos of the global batch, c clips per video, t frames per
clip, h w of the canvas (the decoded window), s side of the drawn clip.
"""

import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError

Params = Any
ModelState = Mapping[str, Any]
"""Everything that changes without a gradient: `batch_stats` and whatever else the
task keeps (momentum parameters, a queue, counters), as one pytree."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepOutput:
    """What a loss returns beside its value.

    Attributes:
        metrics: scalars, means over the global batch, for the log.
        model_state: the new `ModelState`, of the same structure as the one given.
        carry: anything that `Task.after_step` needs (embeddings for a queue). With
            `config.optimizer.accumulate`, arrays with rows of the batch along their
            leading axis are those of the whole batch, others means over its parts.
    """

    metrics: Mapping[str, jax.Array]
    model_state: ModelState
    carry: Any = None


class Task:
    """Base class: subclasses override what they need.

    All device methods are pure and are traced inside one jitted step over the global
    batch, so means and products over b are means over all devices and hosts.
    """

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
            rng: `ctp_jax.data.rng.Rng`, uniform numbers that depend on
                (seed, position) alone, one row per video of the batch.
            batch: the host's share of the batch so far (see `Batch`).
            train: False for evaluation.

        Returns:
            Arrays with leading dimension b; labels that come from the plan included.
        """
        return {}

    # On the device ---------------------------------------------------------------

    def init(self, rng: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        """Parameters and state, given a batch (or its shapes)."""
        raise NotImplementedError

    def loss(
        self, params: Params, model_state: ModelState, batch: Batch, rng: jax.Array
    ) -> tuple[jax.Array, StepOutput]:
        """The training loss: a scalar, and what came with it."""
        raise NotImplementedError

    def after_step(
        self, params: Params, model_state: ModelState, carry: Any
    ) -> ModelState:
        """State to keep once the optimiser has made `params`: momentum, queue."""
        return model_state

    def predict(
        self, params: Params, model_state: ModelState, batch: Batch
    ) -> dict[str, jax.Array]:
        """What evaluators read: arrays with leading dimension b."""
        raise NotImplementedError

    def encoder(
        self, params: Params, model_state: ModelState
    ) -> tuple[Params, Mapping[str, Any], dict[str, Any]]:
        """The part worth keeping: parameters, batch statistics, architecture."""
        raise NotImplementedError

    def check_encoder(self, architecture: Mapping[str, Any]) -> None:
        """Raises `UserError` for an encoder whose weights do not fit this config.

        Called before data are opened, with the `architecture` that came with them.
        """

    def load_encoder(
        self,
        params: Params,
        model_state: ModelState,
        encoder_params: Params,
        encoder_stats: Mapping[str, Any],
    ) -> tuple[Params, ModelState]:
        """The reverse of `encoder`, for one that `check_encoder` has passed."""
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

    def evaluators(self) -> Sequence[Any]:
        """Evaluators (see `ctp_jax.evaluators.base`) to run on held-out videos."""
        return ()


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
        known = sorted(set(known) - {"base", "drawing", "features"})
        raise UserError(
            f"config.task = {name!r}: no such task; the tasks are {', '.join(known)}"
        )
    return importlib.import_module(module_name).Task(config)


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
