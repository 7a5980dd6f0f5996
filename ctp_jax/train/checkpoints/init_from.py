"""Starts a run from another one. `config.init_from` may name

    a workdir, or its folder `encoder`        the exported encoder of a finished run
    a workdir, or its `checkpoints[/<step>]`  the encoder in a training checkpoint
    a folder that `ctp_jax.convert` wrote     a converted PyTorch file
    hf://OWNER/NAME[@REVISION]                an encoder of a model hub, see `hub`

All but the last may be in a bucket, see `ctp_jax.storage.buckets`. It is read once, before step 0, and never on resume.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError, placed, shown
from ctp_jax.storage import buckets
from ctp_jax.tasks import base
from ctp_jax.train.checkpoints import export, hub, restore
from ctp_jax.train.state import AveragedTrainState, TrainState, count, describe

_TORCH = (".pth", ".pt", ".tar", ".safetensors", ".bin", ".ckpt")


def read(path: str | pathlib.Path) -> export.Encoder:
    """Reads the encoder that `path` names, of any of the kinds above.

    Raises:
        UserError: there is no encoder, or it cannot be read.
    """
    if hub.is_address(str(path)):
        found = export.load_encoder(hub.download(str(path)))
        return dataclasses.replace(found, path=str(path))
    given = buckets.opened(path)
    if given.is_file() and given.suffix in _TORCH:
        name = given.name.removesuffix(".tar")
        name = pathlib.Path(name).stem if name.endswith(_TORCH) else name
        raise UserError(
            f"{path}: is a PyTorch file: convert it first: python -m ctp_jax.convert "
            f"{path} {name}"
        )
    if given.name == "checkpoints" and given.is_dir():
        return _from_checkpoint(given.parent, None)
    is_step = given.parent.name == "checkpoints" and given.name.isdigit()
    exported = (given / "encoder.json").exists() or (given / "encoder").exists()
    if is_step:
        return _from_checkpoint(given.parent.parent, int(given.name))
    if not exported and (given / "checkpoints").is_dir():
        return _from_checkpoint(given, None)
    return export.load_encoder(path if buckets.at(given) is None else given)


def read_checked(config: ConfigDict, task: base.Task) -> export.Encoder | None:
    """Reads `config.init_from`, before data are opened and programs are compiled.

    Returns:
        What is there; None if the field is empty.

    Raises:
        UserError: it cannot be read, its weights do not fit the task's network, or the
            field is empty and `config.init_head` asks for a head.
    """
    if not config.init_from:
        if config.init_head:
            raise UserError(
                "config.init_head = True: needs config.init_from, where the head is"
            )
        return None
    with placed("config.init_from"):
        encoder = read(config.init_from)
        task.check_encoder(encoder.architecture)
        if config.init_head:
            check_head(task, encoder)
        return encoder


def read_other(task: base.Task) -> export.Encoder | None:
    """The network of `Task.other_network`; None if there is none. Raises `UserError`."""
    field, path = task.other_network()
    with placed(field):
        return read(path) if path else None


def start_other(
    task: base.Task, state: TrainState, encoder: export.Encoder
) -> tuple[TrainState, list[str], str]:
    """Puts the network of `Task.other_network` into an initial state.

    Returns:
        The state, the names of what was loaded, and a line for the user.

    Raises:
        UserError: it is of another kind, or does not fit.
    """
    field, _ = task.other_network()
    with placed(field):
        variables = task.load_other_network(state.variables, encoder)
        state, loaded, _ = _replace(state, variables, encoder.path)
    line = f"{field} {_origin(encoder)}: loaded {', '.join(loaded)}"
    return state, [name.partition(" ")[0] for name in loaded], line


def _from_checkpoint(workdir: pathlib.Path, step: int | None) -> export.Encoder:
    """The encoder in a checkpoint; in the newest one if `step` is None."""
    state, meta = restore.arrays(workdir, step)
    restore.check_meta(workdir, meta, {"config": dict, "class_names": [str]})
    config = ConfigDict(meta["config"])
    config_lib.validate(config)
    task = base.load(config)
    try:
        params, done = state.get("ema", state["params"]), int(state["step"])
        variables = base.Variables(params, state["model_state"])
        encoder, stats, architecture = task.encoder(variables)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{workdir}: the arrays of the checkpoint are not of the task in its config "
            f"({error}): name another run"
        ) from error
    return export.Encoder(
        params=encoder,
        batch_stats=stats,
        architecture=architecture,
        head=task.head(variables),
        head_task=str(config.task),
        provenance={
            "task": str(config.task),
            "config": meta["config"],
            "steps": done,
            "class_names": meta["class_names"],
            "head_classes": meta.get("head_classes"),
        },
        path=shown(workdir / "checkpoints" / str(done)),
    )


def start(
    task: base.Task,
    state: TrainState,
    encoder: export.Encoder,
    data_classes: Sequence[str] | None = None,
    known: Sequence[str] = (),
) -> tuple[TrainState, list[str]]:
    """Puts an encoder into an initial state.

    Args:
        task: has `load_encoder`.
        state: before the first step.
        encoder: from `read`, accepted by `task.check_encoder`.
        data_classes: classes of this run's data, to load the head too; or None.
        known: names that are not random any more, see `start_other`.

    Returns:
        The state, and lines for the user: what was loaded, what stays random and what
        was not used.

    Raises:
        UserError: names or shapes differ from those of this network, or the head is
            for other classes.
    """
    variables = task.load_encoder(state.variables, encoder.params, encoder.batch_stats)
    if data_classes is not None:
        check_head(task, encoder)
        if task.class_names:  # a head of boxes is for any classes
            _check_classes(encoder, task.class_names, data_classes)
        variables = task.load_head(variables, encoder.head)
    state, loaded, random = _replace(state, variables, encoder.path)
    if not loaded:
        raise UserError(
            f"{encoder.path}: nothing in it fits the network of this config: correct "
            "config.init_from or config.model"
        )
    random = [name for name in random if name not in known]
    lines = [f"init_from {_origin(encoder)}: loaded {', '.join(loaded)}"]
    if random:
        lines.append(f"  stays random: {', '.join(random)}")
    there, here = (
        config.get("data", {}).get("stream", "rgb")
        for config in (encoder.provenance.get("config") or {}, task.config)
    )
    if there != here:
        lines.append(f"  note: it was trained on {there}, this run is on {here}")
    if encoder.head is not None and data_classes is None:
        lines.append(
            f"  unused: head of task {encoder.head_task} "
            f"({count(encoder.head):,} parameters)"
        )
    return state, lines


def _replace(
    state: TrainState, variables: base.Variables, path: str
) -> tuple[TrainState, list[str], list[str]]:
    """The state with these variables, and names of those that are new and that are not."""
    before = {"params": state.params, "model_state": state.model_state}
    after = {"params": variables.params, "model_state": variables.state}
    loaded, random = _compare(before, after, path)
    # Copies, because a step donates the state: no array may be in it twice.
    after = jax.tree.map(
        lambda old, new: jnp.array(new, dtype=old.dtype, copy=True), before, after
    )
    if isinstance(state, AveragedTrainState):
        after["ema"] = jax.tree.map(jnp.copy, after["params"])
    return state.replace(**after), loaded, random


def _origin(encoder: export.Encoder) -> str:
    """Where a network was read from, and after how many steps."""
    steps = encoder.provenance.get("steps")
    return encoder.path + (f", after {steps} steps" if steps is not None else "")


def check_head(task: base.Task, encoder: export.Encoder) -> None:
    """Raises `UserError` unless the encoder has a head of this task."""
    if encoder.head is None:
        raise UserError(
            f"config.init_head = True: {encoder.path} has no head: set it to False"
        )
    if encoder.head_task not in (task.config.task, *task.head_tasks):
        raise UserError(
            f"config.init_head = True: the head in {encoder.path} is of task "
            f"{encoder.head_task!r}, not {task.config.task!r}: set it to False"
        )


def _check_classes(
    encoder: export.Encoder, here: Sequence[str], data: Sequence[str]
) -> None:
    there = encoder.provenance.get("head_classes")
    if not isinstance(there, list) and list(here) == list(data):
        there = encoder.provenance.get("class_names")
    if not isinstance(there, list) or there == list(here):
        return  # a PyTorch file does not name its classes
    different = [(a, b) for a, b in zip(there, here, strict=False) if a != b]
    first = f", e.g. {different[0][0]!r} for {different[0][1]!r}" if different else ""
    raise UserError(
        f"config.init_head = True: the head in {encoder.path} is for other classes, "
        f"{len(there)}, not {len(here)}{first}: set it to False"
    )


def _compare(before: Any, after: Any, path: str) -> tuple[list[str], list[str]]:
    """Names, two levels deep, of the arrays that were replaced and that were not."""
    here, there = describe(before), describe(after)
    for name in dict.fromkeys([*here, *there]):
        wanted, found = here.get(name, "absent"), there.get(name, "absent")
        if wanted.partition("(")[2] != found.partition("(")[2] or wanted == "absent":
            raise UserError(
                f"{path}: does not fit the network of this config: {name} is {found}, "
                f"not {wanted}"
            )
    groups: dict[str, tuple[int, int]] = {}
    old, new = jax.tree.leaves(before), jax.tree.leaves(after)
    for name, a, b in zip(here, old, new, strict=True):
        group = "/".join(name.split("/")[:2])
        done, total = groups.get(group, (0, 0))
        groups[group] = (done + int(a is not b), total + 1)
    loaded = [
        f"{name} ({done} arrays)" if done == total else f"{name} ({done} of {total})"
        for name, (done, total) in groups.items()
        if done
    ]
    return loaded, [name for name, (done, _) in groups.items() if not done]
