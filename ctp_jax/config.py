"""Flattens, compares and validates configs; `ranges.py` has the range of each field."""

import difflib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ctp_jax import ranges
from ctp_jax.errors import UserError

PLUMBING = (
    "log_every",
    "profile",
    "metrics_to",
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


def as_dict(config: Mapping | ConfigDict) -> dict[str, Any]:
    """Plain data as JSON would return it: tuples become lists."""
    return json.loads(json.dumps(config, default=lambda nested: nested.to_dict()))


def from_json(stored: Mapping[str, Any]) -> ConfigDict:
    """The inverse of `as_dict` after JSON, which has lists where configs have tuples."""
    return ConfigDict(_with_tuples(stored))


def _with_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return (
        tuple(map(_with_tuples, value)) if isinstance(value, (list, tuple)) else value
    )


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


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """'; did you mean X?' with the most similar name; empty if none is similar."""
    found = closest(name, names)
    return f"; did you mean {shlex.quote(found)}?" if found else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """What may have been meant by the name of a field that is not there.

    Args:
        name: dotted.
        known: the dotted names of the fields that are there.
    """
    known, last = list(known), name.rpartition(".")[2]
    meant = {word: field for field, words in _MEANT.items() for word in words.split()}
    elsewhere = [each for each in known if each.rpartition(".")[2] == last]
    found = meant.get(last.lower(), "") if not elsewhere else ""
    if " " in found:
        return found
    if found not in known:
        found = closest(name, elsewhere or known) or next(iter(elsewhere), None)
    if found:
        return f"did you mean --config.{found}?"
    groups = dict.fromkeys(each.partition(".")[0] for each in known)
    return f"there are {', '.join(groups)}"


# Fields, and other remedies, by what others call them.
_MEANT = {
    "optimizer.learning_rate": "lr base_lr initial_lr",
    "optimizer.name": "optim opt",
    "optimizer.schedule": "scheduler lr_schedule lr_scheduler lr_policy decay_type",
    "optimizer.milestones": "lr_steps lr_milestones step_size",
    "optimizer.decay": "gamma lr_decay",
    "optimizer.warmup_steps": "warmup warmup_iters warmup_epochs",
    "optimizer.weight_decay": "wd weightdecay",
    "optimizer.clip_norm": "grad_clip clip_grad max_grad_norm gradient_clipping",
    "optimizer.accumulate": "accum accum_steps grad_accum gradient_accumulation update_freq",
    "optimizer.epsilon": "eps",
    "optimizer.beta1": "betas",
    "batch_size": "bs batch batchsize videos_per_gpu samples_per_gpu",
    "epochs": "epoch num_epochs max_epochs total_epochs n_epochs",
    "steps": "num_steps max_steps iters iterations max_iters total_steps",
    "seed": "random_seed rng_seed",
    "ema": "ema_decay moving_average",
    "init_from": "pretrained checkpoint ckpt weights load_from finetune_from restore",
    "checkpoint_every": "save_every save_freq save_interval",
    "eval_every": "val_every eval_freq eval_interval validate_every",
    "log_every": "print_freq log_freq log_interval",
    "data.name": "dataset data_set dataset_name",
    "data.data_dir": "root data_root data_path dataset_dir path",
    "data.workers": "num_workers threads num_threads",
    "data.eval_split": "val_split test_split valid_split",
    "data.fraction": "label_fraction subset percent",
    "clip.num_frames": "frames clip_len clip_length num_segments sequence_length",
    "clip.size": "crop crop_size image_size img_size input_size resolution res",
    "clip.strides": "stride frame_stride sampling_rate frame_interval",
    "clip.flip": "hflip mirror",
    "game.num_trajectories": "patches num_patches trajectories num_boxes",
    "model.name": "arch architecture backbone network encoder net",
    "model.dtype": "amp fp16 bf16 precision half",
    "num_classes": "classes n_classes nb_classes",
    "freeze": "frozen linear linear_probe frozen_stages",
    "devices are chosen by CUDA_VISIBLE_DEVICES and JAX_PLATFORMS": (
        "gpu gpus gpu_id gpu_ids num_gpus device devices cuda tpu"
    ),
    "say --workdir=DIR": "work_dir workdir output output_dir out save_dir log_dir logdir",
    "the same command resumes the run in --workdir": "resume auto_resume resume_from",
}


COLOUR_CHANGES = (
    *("colour.hue_saturation", "colour.brightness", "colour.contrast"),
    *("jitter.probability", "jitter.grey"),
)
"""Probabilities of changes of colour: of several tasks, each where it has the group."""


def changes(old: Mapping, new: Mapping) -> Iterator[tuple[str, Any, Any]]:
    """(name, old, new) of the entries that differ; one that is not there is 'absent'."""
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name, "absent"), new.get(name, "absent")
        if was != now:
            yield name, was, now


def differences(old: Mapping, new: Mapping | ConfigDict) -> dict[str, str]:
    """{field: 'old -> new'} for the fields that differ."""
    old, new = flatten(old), flatten(as_dict(new))
    return {name: f"{was} -> {now}" for name, was, now in changes(old, new)}


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


def other_results(texts: Mapping[str, str]) -> str:
    """Of `differences`, those by which a trained network gives other results; or ''."""
    free = (*PLUMBING, *_LENGTH)
    return ", ".join(f"{k} {v}" for k, v in texts.items() if not k.startswith(free))


def validate(config: ConfigDict) -> None:
    """Raises `UserError` for a missing field, or a value or pair of values that cannot be.

    Needs no data, no devices and no network; what depends on these is checked when they
    are opened.
    """
    ranges.check(config)
    flat = flatten(config)
    for name in ranges.SHARED:
        if name not in flat:
            raise UserError(f"config.{name} is missing: start from configs/common.py")

    def need(holds, name, what):
        if not holds:
            raise UserError(f"config.{name} = {flat[name]!r}: needs {what}")

    named = flat["keep_best_by"].removeprefix("-") != ""
    need(named or not flat["keep_best"], "keep_best", "config.keep_best_by, a metric")
    if flat["optimizer.nesterov"]:
        adaptive = flat["optimizer.name"] in ("adam", "adamw")
        what = "config.optimizer.momentum, and not adam or adamw"
        has_momentum = flat["optimizer.momentum"] > 0 and not adaptive
        need(has_momentum, "optimizer.nesterov", what)
    parts, batch = flat["optimizer.accumulate"], flat["batch_size"]
    what = f"a divisor of config.batch_size = {batch}"
    need(batch % parts == 0, "optimizer.accumulate", what)
    if flat.get("data.stream") == "flow":
        for name in COLOUR_CHANGES:
            what = "0: the colours of flow are motions, config.data.stream = 'flow'"
            need(not flat.get(name), name, what)
    if "truth" in config:
        check_truth(config)
    if batch % (flat.get("negatives_of", 1) * parts):
        held = f" / {parts} (config.optimizer.accumulate)" * (parts > 1)
        need(False, "negatives_of", f"a divisor of config.batch_size = {batch}{held}")
    for name in ("clip.scales", "test.scales"):
        if name in flat:
            check_scales(config, name)


def check_truth(config: ConfigDict) -> None:
    """Raises `UserError` unless every batch can have clips of all sources (Table 1)."""
    names = ("preset", "real", "teacher", "cycle")
    shares = {name: config.truth[name] for name in names}
    period, parts = sum(shares.values()), config.optimizer.accumulate
    if not period:
        raise UserError(
            f"config.truth has only zeros: set one of {', '.join(shares)} to 1 or more"
        )
    if config.truth.cycle_loss and not config.truth.cycle:
        raise UserError(
            f"config.truth.cycle_loss = {config.truth.cycle_loss}: needs clips with "
            "cycles, config.truth.cycle"
        )
    # The way back of cycles is normalised by itself, in as many groups.
    groups = config.model.get("batch_norm_groups", 1) if config.truth.cycle else 1
    if config.batch_size % (period * parts * groups):
        sources = ", ".join(f"{name} {n}" for name, n in shares.items() if n)
        raise UserError(
            f"config.batch_size = {config.batch_size}: needs a multiple of {period}, the "
            f"clips of config.truth ({sources})"
            + f", times {parts}, config.optimizer.accumulate" * (parts > 1)
            + f", times {groups}, config.model.batch_norm_groups" * (groups > 1)
        )


def check_scales(config: ConfigDict, name: str) -> None:
    """Raises `UserError` unless a clip can be cut out of frames of every scale.

    Args:
        config: has `clip.size`.
        name: of the field with the scales, see `ctp_jax.data.batch.ClipSpec`.
    """
    scales, size = flatten(config)[name], config.clip.size
    sides = [
        min(scale) if isinstance(scale, (tuple, list)) else scale for scale in scales
    ]
    if min(sides) < size:
        raise UserError(
            f"config.{name} = {scales!r}: a side of {min(sides)} pixels is smaller than "
            f"the crop, config.clip.size = {size}: use larger scales or a smaller crop"
        )
