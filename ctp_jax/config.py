"""Flattens, compares and validates configs.

Only the fields that all tasks share are validated here; a task validates its own fields
when it is constructed.
"""

import difflib
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

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
"""Prefixes of fields that do not change the results of a run."""

# Fields that may change on resume, because training does not depend on them.
_FREE = (*PLUMBING, "data.eval_", "evaluators.", "probe.", "test.")
# The length may change too. This is printed, because a cosine schedule depends on it.
_LENGTH = ("epochs", "steps")

OPTIMIZERS = ("sgd", "adam", "adamw", "lars")
SCHEDULES = ("step", "cosine", "constant")
_DTYPES = ("auto", "float32", "bfloat16")


def as_dict(config: Mapping | ConfigDict) -> dict[str, Any]:
    """Plain data as JSON would return it: tuples become lists."""
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
    """The most similar name, or None; also compares the last parts of dotted names."""
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
    """Splits `differences` into (fields fixed for a run, its length); drops the rest."""
    fixed, length = {}, {}
    for name, text in texts.items():
        if name in _LENGTH:
            length[name] = text
        elif not name.startswith(_FREE):
            fixed[name] = text
    return fixed, length


class _Fields(dict):
    """The fields of a config by dotted name."""

    def __missing__(self, name: str) -> NoReturn:
        raise UserError(f"config.{name} is missing: start from configs/common.py")


def validate(config: ConfigDict) -> None:
    """Raises `UserError` for a missing field or a value that no task accepts."""
    flat = _Fields(flatten(config))

    def need(holds, name, what):
        if not holds:
            raise UserError(f"config.{name} = {flat[name]!r}: must be {what}")

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
    for name in config.get("evaluators", {}):
        for field in ("every", "videos"):
            field = f"evaluators.{name}.{field}"
            need(flat[field] >= 0, field, "0 or more")
    _validate_optimizer(flat, need)
    if "model.dtype" in flat:
        need(flat["model.dtype"] in _DTYPES, "model.dtype", f"one of {list(_DTYPES)}")


def _validate_optimizer(flat, need) -> None:
    kind = flat["optimizer.name"]
    known = f"one of {list(OPTIMIZERS)} or a dotted module outside this package"
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
