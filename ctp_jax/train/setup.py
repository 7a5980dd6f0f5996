"""Opens everything that a config names, and finds the step to start from."""

import dataclasses
import itertools
import pathlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax import formatting, modules
from ctp_jax.data import selection
from ctp_jax.data.batch import Batch
from ctp_jax.storage import buckets, files, untrusted
from ctp_jax.tasks import base
from ctp_jax.train import console, evaluation, finished, optimizer, step
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import state as state_lib
from ctp_jax.train import workdir as workdir_lib
from ctp_jax.train.checkpoints import export, init_from, manager, restore
from ctp_jax.train.checkpoints.retention import RetentionPolicy
from ctp_jax.train.distributed import coordination
from ctp_jax.train.epochs import Epochs


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything that a run needs, opened.

    Attributes:
        encoder: of `config.init_from`; None if there is none or the run is resumed.
        other: likewise of `Task.other_network`.
        total: steps of the whole run.
    """

    config: ConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    task: base.Task
    checkpoints: manager.Checkpoints
    encoder: export.Encoder | None
    other: export.Encoder | None
    pipeline: evaluation.Pipeline
    evaluations: list[evaluation.Evaluation]
    epochs: Epochs
    total: int
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """The step that a run starts from or resumes at.

    Attributes:
        state: on all devices.
        done: steps done.
        batches: of this process, from the next step on.
        interval: sums since the last log line, for `metrics.Interval`.
        results: metrics of the last evaluation.
        eval_pending: whether the evaluation of step `done` was interrupted.
    """

    state: state_lib.TrainState
    done: int
    batches: Iterator[Batch]
    interval: dict[str, float] = dataclasses.field(default_factory=dict)
    results: dict[str, float] = dataclasses.field(default_factory=dict)
    eval_pending: bool = False


def open_setup(
    config: ConfigDict, workdir: pathlib.Path, opener: Callable | None = None
) -> Setup:
    """Opens data, network and checkpoints, so that errors appear before training.

    Raises:
        UserError: one of them cannot be used, or the processes differ in their config,
            devices, workdir or data.
    """
    modules.allow_named_by(config)
    _check_processes(config, workdir)
    buckets.pull(workdir)  # process 0 has locked it by now
    mesh = mesh_lib.make_mesh()
    mesh_lib.check_batch_size(config.batch_size, mesh.size, config.optimizer.accumulate)
    task = base.load(config)
    keep = RetentionPolicy(
        config.keep_checkpoints,
        config.keep_best,
        config.keep_best_by,
        # Called when there is something to delete; `epochs` is set by then.
        permanent=lambda step: epochs.passes(step, config.keep_every),
    )
    checkpoints = manager.Checkpoints(workdir, keep, console.say)
    encoder = other = None
    if checkpoints.latest() is None:
        encoder = init_from.read_checked(config, task)
        other = init_from.read_other(task)
    share = (jax.process_index(), jax.process_count())
    pipeline = base.open_pipeline(config, task, True, *share, opener=opener)
    evaluations = evaluation.open_all(config, task, pipeline, mesh, opener)
    for each in (pipeline, *(p for e in evaluations for p in e.pipelines)):
        _check_data(each)
    epochs = Epochs(pipeline.num_examples, config.batch_size)
    total = epochs.total_steps(config.epochs, config.steps)
    schedule = optimizer.make_schedule(config.optimizer, epochs, total)
    transformation = optimizer.make_optimizer(config.optimizer, schedule, task.frozen)
    return Setup(
        config=config,
        workdir=workdir,
        mesh=mesh,
        task=task,
        checkpoints=checkpoints,
        encoder=encoder,
        other=other,
        pipeline=pipeline,
        evaluations=evaluations,
        epochs=epochs,
        total=total,
        schedule=schedule,
        optimizer=transformation,
    )


def _check_processes(config: ConfigDict, workdir: pathlib.Path) -> None:
    """All processes must run the same experiment in the same folder."""
    if jax.process_count() == 1:
        return
    digest = untrusted.json_digest(config_lib.as_dict(config))[:12]
    remedy = "start every process with the same command"
    coordination.check_same("the config (its digest)", digest, remedy)
    counts = str(jax.local_device_count())
    coordination.check_same(
        "number of devices", counts, "use hosts with equally many devices"
    )
    if (folder := buckets.at(workdir)) is not None:
        coordination.check_same("--workdir", folder.address, remedy)
        return
    mark = workdir / ".shared"
    token = coordination.from_first("workdir", secrets.token_hex(8))
    if jax.process_index() == 0:
        with files.replacing(mark) as new:
            new.write_text(token)
    coordination.barrier("workdir")
    seen = mark.read_text() if mark.exists() else ""
    coordination.check_same(
        "--workdir",
        "the folder of process 0" if seen == token else f"another folder, {workdir}",
        "give every process the same folder, on a file system that they share",
    )


def _check_data(pipeline: evaluation.Pipeline) -> None:
    """All processes must read the same videos; each may have its own copy."""
    opened = getattr(pipeline, "records", None)
    if jax.process_count() == 1 or opened is None:
        return
    text = (
        f"split {opened.split!r} with {pipeline.num_examples} videos of "
        f"{len(opened)} (digest of their names and boxes {video_digest(pipeline)})"
    )
    remedy = "prepare the data once and copy or share the result"
    coordination.check_same("data", text, remedy)


def video_digest(pipeline: evaluation.Pipeline) -> str:
    """`Records.digest` of a pipeline; empty where it has none."""
    opened = getattr(pipeline, "records", None)
    return "" if opened is None else opened.digest()


def restore_or_init(setup: Setup) -> ResumePoint:
    """Restores the newest checkpoint, or makes the state before the first step."""
    done = setup.checkpoints.latest() or 0
    first, batches = _batches(setup, done)
    rng = step.stream_key(setup.config.seed, "init")

    def init(rng, batch):
        return state_lib.initial(
            setup.task, setup.optimizer, rng, batch, setup.config.ema
        )

    everywhere = mesh_lib.replicated(setup.mesh)
    # Traced once, for the shapes and for the values.
    batch = mesh_lib.put(first, setup.mesh)
    traced = jax.jit(init, out_shardings=everywhere).trace(rng, batch)
    target = state_lib.with_sharding(traced.out_info, everywhere)
    # The state is the first of these that exists:
    # 1. the newest readable checkpoint in the workdir: this run is resumed;
    # 2. config.init_from, another run's encoder; the rest of the network is random;
    # 3. random parameters.
    # So init_from is read once and never on resume.
    restored = setup.checkpoints.restore(
        target,
        lambda step, meta: restore.check_same_run(
            setup.workdir, step, meta, target, setup.config, console.say
        ),
    )
    if setup.total == 0:
        finished.check_same_evaluation(setup.workdir, setup.config)
    _describe(setup, target)
    if restored is not None:
        return _resume(setup, *restored, done, batches)
    make = traced.lower().compile(_quick_compilation())
    state = _start_from(setup, make(rng, batch))
    return ResumePoint(state, 0, batches)


def _quick_compilation() -> dict[str, Any]:
    """Compiler options for a program that runs once.

    On CPUs, LLVM's default level takes several times as long for the random numbers of
    all parameters as level 1, which gives the same bits.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_backend_optimization_level": 1}


def _start_from(setup: Setup, state: state_lib.TrainState) -> state_lib.TrainState:
    """The random state, with the encoder of `config.init_from` where there is one."""
    known = []
    if setup.other is not None:
        state, known, line = init_from.start_other(setup.task, state, setup.other)
        console.say(line)
    if setup.encoder is not None:
        names = setup.pipeline.class_names if setup.config.init_head else None
        state, lines = init_from.start(setup.task, state, setup.encoder, names, known)
        console.say("\n".join(lines))
    elif setup.total == 0 or setup.task.frozen(state.params):
        console.say("note: config.init_from is empty, so the encoder is random")
    if setup.encoder is None and setup.other is None:
        return state
    return jax.device_put(state, mesh_lib.replicated(setup.mesh))


def _resume(
    setup: Setup,
    state: state_lib.TrainState,
    meta: Mapping[str, Any],
    expected: int,
    batches: Iterator[Batch],
) -> ResumePoint:
    """The resume point of a restored checkpoint; `expected` is the newest step."""
    shape = {"interval": {str: float}, "results": dict, "eval_pending": bool}
    restore.check_meta(setup.workdir, meta, shape | {"videos": str})
    done = int(state.step)
    if done != expected:
        batches = _batches(setup, done)[1]
    console.say(
        f"resuming from the checkpoint of step {done}/{setup.total}"
        + "; config.init_from is not read again" * bool(setup.config.init_from)
    )
    if meta["videos"] != video_digest(setup.pipeline):
        console.say(
            "note: the training videos are not those that this run had so far: from here "
            "on, batches and epochs are those of the new ones"
        )
    return ResumePoint(
        state=state,
        done=done,
        batches=batches,
        interval=meta["interval"],
        results=meta["results"],
        eval_pending=meta["eval_pending"],
    )


def _batches(setup: Setup, start: int) -> tuple[Batch, Iterator[Batch]]:
    """The batch of a step, and an iterator that starts with it."""
    batches = setup.pipeline.train_batches(start)
    first = next(batches)
    return first, itertools.chain([first], batches)


def _was_made_longer(setup: Setup, done: int | None) -> bool:
    """Whether the config there is of a longer run, begun when this one was finished."""
    if done not in (None, setup.total):
        return False
    try:
        shape = {"epochs": float, "steps": int}
        stored = untrusted.load_json(setup.workdir / "config.json", shape)
    except (OSError, ValueError):
        return False
    steps = setup.epochs.total_steps(stored["epochs"], stored["steps"])
    return steps > setup.total


def _describe(setup: Setup, target: state_lib.TrainState) -> None:
    """Prints what is about to run; writes config and versions to the workdir."""
    config, epochs = setup.config, setup.epochs
    hosts = jax.process_count()
    console.say(
        f"{config.task}: {state_lib.count(target.params):,} parameters"
        + (f" ({config.freeze} frozen), " if config.get("freeze") else ", ")
        + f"{formatting.count(epochs.num_examples, 'video')}, batch {config.batch_size} on "
        f"{setup.mesh.size} x {jax.devices()[0].device_kind}"
        + f" of {hosts} processes" * (hosts > 1)
        + f", {formatting.count(setup.total, 'step')} ({epochs.at(setup.total):.1f} epochs)"
    )
    if config.batch_size > epochs.num_examples:
        console.say("note: the batch is larger than the data set")
    for name, what in (
        ("eval_every", "evaluations"),
        ("checkpoint_every", "checkpoints"),
    ):
        apart = config[name] * epochs.num_examples / config.batch_size
        if 0 < apart < 20 < setup.total / apart:  # a few videos, many epochs
            console.say(
                f"note: {setup.total / apart:.0f} {what}, one every {apart:.2g} steps "
                f"(config.{name} = {config[name]:g} epochs): a larger number saves time"
            )
    if 0 < setup.total <= config.optimizer.warmup_steps:
        console.say(
            f"note: the run ends within config.optimizer.warmup_steps = "
            f"{config.optimizer.warmup_steps}: the learning rate stays low"
        )
    if skipped := getattr(setup.pipeline, "skipped", 0):
        needed = max(config.data.min_frames, setup.task.clip_spec(True).min_frames)
        console.say(
            f"note: {skipped} of {skipped + epochs.num_examples} videos of split "
            f"{config.data.split!r} left out, with fewer than {needed} frames"
        )
    if config.ema:
        console.say(
            "note: evaluation and export take the moving average of the parameters "
            f"(config.ema = {config.ema})"
        )
    opened = [getattr(each.pipelines[0], "records", None) for each in setup.evaluations]
    if (trained_on := getattr(setup.pipeline, "records", None)) is not None:
        for line in selection.overlaps(trained_on, filter(None, opened)):
            console.say(line)
    done, total = setup.checkpoints.latest(), setup.total
    # A finished run keeps the config that its results came from.
    to_do = (done is None or done < total) and not finished.exported_results(
        setup.workdir, config, total
    )
    to_do |= _was_made_longer(setup, done)
    if jax.process_index() == 0 and to_do:
        workdir_lib.write_json(
            setup.workdir / "config.json", config_lib.as_dict(config)
        )
        workdir_lib.write_json(setup.workdir / "versions.json", workdir_lib.versions())
        if command := workdir_lib.command():
            workdir_lib.write_json(setup.workdir / "command.json", command)
