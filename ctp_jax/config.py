"""Configs: reading them flat, comparing two, and refusing contradictions.

Only what every task shares is judged here; a task judges its own part when it is
constructed.
"""

import difflib
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ctp_jax.errors import UserError

PLUMBING = (
    "log_every",
    "eval_every",
    "checkpoint_every",
    "keep_",
    "data.data_dir",
    "data.workers",
    "data.prefetch",
    "data.max_bad",
    "data.stall_after",
)
"""What fields begin with that change how a run is done and not what comes out."""

# Fields that a resumed run may change: what is trained stays the same.
_FREE = (*PLUMBING, "data.eval_", "evaluators.", "probe.", "test.")
# A resumed run may also get longer; that is said, because a cosine depends on it.
_LENGTH = ("epochs", "steps")

OPTIMIZERS = ("sgd", "adam", "adamw", "lars")
SCHEDULES = ("step", "cosine", "constant")
_DTYPES = ("auto", "float32", "bfloat16")


def as_dict(config: Mapping | ConfigDict) -> dict[str, Any]:
    """Plain data, as it would come back from JSON (tuples become lists)."""
    return json.loads(json.dumps(config, default=lambda nested: nested.to_dict()))


def flatten(config: Mapping | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{'optimizer.learning_rate': 0.01, ...}, in the order of the config."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, (ConfigDict, Mapping)):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name most like this one, if any is; a bare last part counts too."""
    names = list(names)
    by_last_part = {known.rpartition(".")[2]: known for known in names}
    for cutoff, known in ((0.75, names), (0.75, list(by_last_part)), (0.5, names)):
        found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
        if found:
            return found[0] if known is names else by_last_part[found[0]]
    return None


def differences(old: Mapping, new: Mapping | ConfigDict) -> dict[str, str]:
    """{field: 'old -> new'} for the fields that differ."""
    old, new = flatten(old), flatten(as_dict(new))
    texts = {}
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name, "absent"), new.get(name, "absent")
        if before != after:
            texts[name] = f"{before} -> {after}"
    return texts


def sort_differences(
    texts: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, str]]:
    """Splits `differences` into those that make another experiment and length."""
    fixed, length = {}, {}
    for name, text in texts.items():
        if name in _LENGTH:
            length[name] = text
        elif not name.startswith(_FREE):
            fixed[name] = text
    return fixed, length


def validate(config: ConfigDict) -> None:
    """Raises `UserError` for a config that cannot be meant, whatever the task."""
    flat = flatten(config)

    def need(holds, name, what):
        if not holds:
            raise UserError(f"config.{name} = {flat[name]!r}: must be {what}")

    evaluators = config.get("evaluators", {})
    required = [
        f"evaluators.{name}.{field}" for name in evaluators for field in _OF_EVALUATORS
    ]
    for name in (*_REQUIRED, *required):
        if name not in flat:
            raise UserError(f"config.{name} is missing: start from configs/common.py")
    for name in ("batch_size", "log_every", "keep_checkpoints"):
        need(flat[name] >= 1, name, "at least 1")
    for name in ("steps", "eval_every", "checkpoint_every", "keep_every", "keep_best"):
        need(flat[name] >= 0, name, "0 or more")
    if flat["steps"] == 0:
        need(flat["epochs"] >= 0, "epochs", "0 or more (0: only evaluate)")
    need(0 <= flat["seed"] < 2**31, "seed", "0 or more and below 2**31")
    named = flat["keep_best_by"].removeprefix("-") != ""
    need(named or not flat["keep_best"], "keep_best", "0 unless keep_best_by is set")
    need(0 <= flat["data.max_bad"] <= 1, "data.max_bad", "in [0, 1]")
    need(flat["data.stall_after"] > 0, "data.stall_after", "above 0")
    for name in evaluators:
        for field in ("every", "videos"):
            field = f"evaluators.{name}.{field}"
            need(flat[field] >= 0, field, "0 or more")
    _validate_optimizer(flat, need)
    if "model.dtype" in flat:
        need(flat["model.dtype"] in _DTYPES, "model.dtype", f"one of {list(_DTYPES)}")


def _validate_optimizer(flat, need) -> None:
    kind = flat["optimizer.name"]
    known = f"one of {list(OPTIMIZERS)}, or a module outside this package, with a dot"
    need(kind in OPTIMIZERS or "." in kind, "optimizer.name", known)
    for name in ("learning_rate", "epsilon", "trust_coefficient"):
        need(flat[f"optimizer.{name}"] > 0, f"optimizer.{name}", "above 0")
    for name in ("weight_decay", "clip_norm", "base_batch_size", "warmup_steps"):
        need(flat[f"optimizer.{name}"] >= 0, f"optimizer.{name}", "0 or more")
    for name in ("optimizer.momentum", "optimizer.beta1", "optimizer.beta2", "ema"):
        need(0 <= flat[name] < 1, name, "in [0, 1)")
    if flat["optimizer.nesterov"]:
        has_momentum = kind not in ("adam", "adamw") and flat["optimizer.momentum"] > 0
        what = "False for adam, adamw and without config.optimizer.momentum"
        need(has_momentum, "optimizer.nesterov", what)
    parts = flat["optimizer.accumulate"]
    what = f"1 or more, and divide config.batch_size = {flat['batch_size']}"
    divides = parts >= 1 and flat["batch_size"] % parts == 0
    need(divides, "optimizer.accumulate", what)
    for name in ("decay", "warmup_factor"):
        need(0 <= flat[f"optimizer.{name}"] <= 1, f"optimizer.{name}", "in [0, 1]")
    name = "optimizer.schedule"
    need(flat[name] in SCHEDULES, name, f"one of {list(SCHEDULES)}")
    milestones = list(flat["optimizer.milestones"])
    rising = all(a < b for a, b in itertools.pairwise(milestones))
    rising = rising and all(milestone > 0 for milestone in milestones)
    need(rising, "optimizer.milestones", "epochs above 0 that increase")


_OF_EVALUATORS = ("module", "split", "videos", "every")
_REQUIRED = ("task", "seed", "batch_size", "epochs", "steps", "init_from", "init_head")
_REQUIRED += ("log_every", "eval_every", "checkpoint_every", "keep_checkpoints")
_REQUIRED += ("keep_every", "keep_best", "keep_best_by", "ema")
_REQUIRED += ("data.name", "data.split", "data.eval_split", "data.fraction")
_REQUIRED += ("data.max_bad", "data.stall_after")
_REQUIRED += ("probe.gallery_videos",)
_REQUIRED += tuple(
    f"optimizer.{name}"
    for name in (
        "name",
        "learning_rate",
        "base_batch_size",
        "schedule",
        "milestones",
        "decay",
        "warmup_steps",
        "warmup_factor",
        "momentum",
        "nesterov",
        "beta1",
        "beta2",
        "epsilon",
        "trust_coefficient",
        "weight_decay",
        "exclude_norms_and_biases",
        "clip_norm",
        "accumulate",
    )
)
