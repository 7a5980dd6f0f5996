"""What every field of a config may hold, in the order of `configs/common.py`.

The defaults are there and the ranges are here, because a config is also read back from a
run's `config.json`, without `configs/`. A test holds the two together: a field of one has
an entry in the other. A field that is not in the table, of a task outside this package,
may hold anything that is finite.
"""

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ctp_jax.errors import UserError

DTYPES = ("auto", "float32", "bfloat16")
CONVOLUTIONS = ("auto", "direct", "folded", "onednn", "taps", "winograd")
OPTIMIZERS = ("sgd", "adam", "adamw", "lars")

LARGEST = 2**31 - 1
"""Devices count in int32."""


class Range(NamedTuple):
    """What a field may hold: a test, and the words for it."""

    holds: Callable[[Any], bool]
    needs: str


def _number(word: str, interval: str, *types: type) -> Range:
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def holds(value):
        # True and False are no numbers.
        if not isinstance(value, types) or isinstance(value, bool):
            return False
        above = low < value if interval[0] == "(" else low <= value
        return above and (value < high if interval[-1] == ")" else value <= high)

    return Range(holds, f"a {word} in {interval}")


def whole(interval: str) -> Range:
    """A whole number in an interval such as '[1, 8]'."""
    return _number("whole number", interval, int)


def number(interval: str) -> Range:
    """A number in an interval such as '(0, 1]'; never NaN or infinity."""
    return _number("number", interval, int, float)


def items(each: Range, low: int, high: int | None = None) -> Range:
    """A tuple or list of `low` items, or of `low` to `high`."""
    counts = range(low, (low if high is None else high) + 1)
    return Range(
        lambda value: (
            isinstance(value, (tuple, list))
            and len(value) in counts
            and all(map(each.holds, value))
        ),
        f"{low}" + f" to {high}" * (high is not None) + f" items, each {each.needs}",
    )


def also(base: Range, holds: Callable[[Any], bool], needs: str) -> Range:
    """A range with a second condition, on values that meet the first."""
    return Range(
        lambda value: base.holds(value) and holds(value), f"{base.needs}, {needs}"
    )


def either(first: Range, second: Range) -> Range:
    """What one of two ranges holds."""
    return Range(
        lambda value: first.holds(value) or second.holds(value),
        f"{first.needs}; or {second.needs}",
    )


def choice(*names: str) -> Range:
    """One of some words."""
    return Range(lambda value: value in list(names), f"one of {list(names)}")


def _matches(pattern: str, needs: str) -> Range:
    fits = re.compile(pattern).fullmatch
    return Range(lambda value: isinstance(value, str) and bool(fits(value)), needs)


def _is_pattern(text: str) -> bool:
    with contextlib.suppress(re.error, RecursionError, OverflowError):
        return bool(re.compile(text))
    return False


FLAG = Range(lambda value: isinstance(value, bool), "True or False")
TEXT = _matches(r"[^\x00-\x1f]{0,4096}", "one line of text")
_MODULE = r"(?!.{256})[^\W\d]\w*(\.[^\W\d]\w*)*"
MODULE = _matches(_MODULE, "a name, or the path of a module outside the package")
COUNT = whole(f"[0, {LARGEST}]")
AT_LEAST_1 = whole(f"[1, {LARGEST}]")
SHARE = number("[0, 1]")
BELOW_1 = number("[0, 1)")
EPOCHS_BETWEEN = also(
    number("[0, 1e6]"), lambda every: every == 0 or every >= 1e-6, "0 or at least 1e-6"
)
INCREASING = also(
    items(number("(0, 1e6]"), 0, 100),
    lambda values: all(a < b for a, b in itertools.pairwise(values)),
    "in increasing order",
)
CLIPS = whole("[1, 100]")
INIT_STD = number("[0, 10]")
SCALE = either(whole("[1, 8192]"), items(whole("[1, 8192]"), 2))
SCALES = items(SCALE, 1, 100)
STRIDES = also(
    items(whole("[1, 16]"), 4), lambda strides: strides[0] == 1, "the first of them 1"
)
PAIR_OF_SHARES = also(
    items(SHARE, 2), lambda pair: pair[0] <= pair[1], "the smaller one first"
)


def probabilities(low: int, high: int | None = None) -> Range:
    """Shares that add up to 1."""
    return also(
        items(SHARE, low, high),
        lambda shares: math.isclose(sum(shares), 1.0, abs_tol=1e-6),
        "which add up to 1",
    )


SHARED = {
    "task": MODULE,
    "seed": COUNT,
    "data.name": TEXT,
    "data.data_dir": TEXT,
    "data.split": TEXT,
    "data.fraction": number("(0, 1]"),
    "data.eval_split": TEXT,
    "data.eval_videos": COUNT,
    "data.min_frames": AT_LEAST_1,
    "data.skip_short": FLAG,
    "data.workers": whole("[0, 1024]"),
    "data.prefetch": whole("[0, 64]"),
    "data.max_bad": SHARE,
    "data.stall_after": number("[0.01, 1e9]"),
    "batch_size": whole("[1, 65536]"),
    "epochs": number("[0, 1e6]"),
    "steps": COUNT,
    "optimizer.name": either(
        choice(*OPTIMIZERS), _matches(rf"{_MODULE}\.\w+", "a dotted module")
    ),
    "optimizer.learning_rate": number("[1e-12, 1000]"),
    "optimizer.base_batch_size": COUNT,
    "optimizer.schedule": choice("step", "cosine", "constant"),
    "optimizer.milestones": INCREASING,
    "optimizer.decay": SHARE,
    "optimizer.warmup_steps": COUNT,
    "optimizer.warmup_factor": SHARE,
    "optimizer.momentum": BELOW_1,
    "optimizer.nesterov": FLAG,
    "optimizer.beta1": BELOW_1,
    "optimizer.beta2": BELOW_1,
    "optimizer.epsilon": number("[1e-30, 1]"),
    "optimizer.trust_coefficient": number("[1e-12, 1000]"),
    "optimizer.weight_decay": number("[0, 1000]"),
    "optimizer.exclude_norms_and_biases": FLAG,
    "optimizer.clip_norm": number("[0, 1e9]"),
    "optimizer.accumulate": whole("[1, 65536]"),
    "ema": BELOW_1,
    "init_from": TEXT,
    "init_head": FLAG,
    "log_every": AT_LEAST_1,
    "eval_every": EPOCHS_BETWEEN,
    "checkpoint_every": EPOCHS_BETWEEN,
    "keep_checkpoints": AT_LEAST_1,
    "keep_best": COUNT,
    "keep_best_by": TEXT,
    "keep_every": EPOCHS_BETWEEN,
}
"""Every config has these."""

_CLASSIFIERS = [
    "recognition",
    "rotation",
    "speednet",
    "vcop",
    "vcp",
    "prp",
    "pace",
    "temptrans",
]

RANGES = SHARED | {
    "profile": _matches(
        r"([1-9]\d{0,8}:[1-9]\d{0,3})?",
        "empty, or the first step to trace and how many, as in 100:5",
    ),
    "metrics_to": either(choice(""), MODULE),
    "data.stream": choice("rgb", "flow"),
    "evaluators.*.module": either(choice(""), MODULE),
    "evaluators.*.split": TEXT,
    "evaluators.*.videos": COUNT,
    "evaluators.*.every": EPOCHS_BETWEEN,
    "evaluators.*.kcf": FLAG,
    "probe.num_clips": CLIPS,
    "probe.stride": whole("[1, 1000]"),
    "probe.scales": SCALES,
    "probe.spatial_strides": STRIDES,
    "probe.pool": items(whole("[1, 64]"), 3),
    "probe.pooling": choice("average", "max"),
    "probe.gallery_videos": COUNT,
    "model.name": MODULE,
    "model.width": number("(0, 8]"),
    "model.spatial_strides": STRIDES,
    "model.temporal_strides": STRIDES,
    "model.epsilon": number("[1e-12, 1]"),
    "model.batch_norm_groups": whole("[1, 65536]"),
    "model.mid_per_block": FLAG,
    "model.batch_norm": FLAG,
    "model.dtype": choice(*DTYPES),
    "model.conv": choice(*CONVOLUTIONS),
    "clip.num_frames": whole("[1, 512]"),
    "ctp: clip.num_frames": whole("[2, 512]"),
    "clip.strides": items(whole("[-1000, 1000]"), 1, 100),
    "clip.jitter": FLAG,
    # Their frames are chosen one by one, and shifted ones would not be what they learn.
    **{
        f"{task}: clip.jitter": Range(lambda value: value is False, "False")
        for task in ("cep", "pace", "prp", "temptrans")
    },
    **{
        f"{task}: clip.strides": Range(
            items(whole("[1, 1]"), 1, 100).holds, "(1,): it shows consecutive frames"
        )
        for task in ("cep", "vcp")
    },
    "clip.gap": whole("[0, 100000]"),
    "clip.size": whole("[1, 1024]"),
    "clip.scales": SCALES,
    "clip.flip": SHARE,
    "blocks.count": whole("[2, 100]"),
    "blocks.predicted": whole("[1, 99]"),
    "negatives_of": whole("[1, 65536]"),
    "test.num_clips": CLIPS,
    "test.stride": whole("[1, 1000]"),
    "test.scales": SCALES,
    "game.num_trajectories": whole("[1, 100]"),
    "game.scales": items(number("(0, 8192]"), 1, 100),
    "game.ratios": items(number("[0.001, 1000]"), 1, 100),
    "game.box_jitter": number("[0, 10]"),
    "game.key_frames": probabilities(1, 16),
    "game.speed": number("[0, 1000]"),
    "game.size_change": number("[0, 10]"),
    "game.interpolation": probabilities(3),
    "game.shapes": probabilities(3),
    "game.soft_edge": SHARE,
    "game.soft_edge_start": also(
        PAIR_OF_SHARES, lambda pair: pair[1] <= 0.5, "at most 0.5"
    ),
    "game.opacity": PAIR_OF_SHARES,
    "game.visible": SHARE,
    "game.points": whole("[2, 1000]"),
    "game.smoothness": number("[0.01, 1000]"),
    "game.reach": PAIR_OF_SHARES,
    "game.rotation": number("[0, 360]"),
    "game.shear": number("[0, 10]"),
    "truth.preset": whole("[0, 100]"),
    "truth.real": whole("[0, 100]"),
    "truth.teacher": whole("[0, 100]"),
    "truth.cycle": whole("[0, 100]"),
    "truth.cycle_loss": number("[0, 1000]"),
    "colour.hue_saturation": SHARE,
    "colour.hue": number("[0, 360]"),
    "colour.saturation": number("[0, 10]"),
    "colour.brightness": SHARE,
    "colour.brightness_delta": number("[0, 255]"),
    "colour.contrast": SHARE,
    "colour.contrast_delta": number("[0, 10]"),
    "colour.key_frames": probabilities(1, 16),
    "colour.interpolation": probabilities(3),
    "contrast.queue": whole("[1, 10000000]"),
    "contrast.momentum": SHARE,
    "contrast.temperature": number("[0.001, 1000]"),
    "contrast.dim": whole("[1, 8192]"),
    "contrast.hidden": whole("[0, 8192]"),
    "contrast.positives": choice("own", "label"),
    "contrast.same_clip": SHARE,
    "contrast.strong": SHARE,
    "contrast.blur": SHARE,
    "coclr.sampler": TEXT,
    "coclr.nearest": whole("[0, 8192]"),
    "coclr.leave_own": SHARE,
    "coclr.source_of": also(TEXT, _is_pattern, "a regular expression"),
    "jitter.brightness": number("[0, 10]"),
    "jitter.contrast": number("[0, 10]"),
    "jitter.saturation": number("[0, 10]"),
    "jitter.hue": number("[0, 0.5]"),
    "jitter.offset": number("[0, 255]"),
    "jitter.probability": SHARE,
    "jitter.grey": SHARE,
    "jitter.per_frame": FLAG,
    "rotation.leaking_border": FLAG,
    "rotation.all_four": FLAG,
    "pace.wrap": FLAG,
    "pace.contrast": number("[0, 1000]"),
    "pace.temperature": number("[1e-6, 1000]"),
    "pace.dim": whole("[1, 8192]"),
    "head.channels": whole("[1, 8192]"),
    "head.hidden": whole("[1, 8192]"),
    "head.roi_size": whole("[1, 32]"),
    "head.sampling_ratio": whole("[1, 16]"),
    # Of one layer, or of both of Catch-the-Patch, also in a task of the user's own.
    "head.init_std": either(INIT_STD, items(INIT_STD, 2)),
    "ctp: head.init_std": items(INIT_STD, 2),
    **{f"{task}: head.init_std": INIT_STD for task in _CLASSIFIERS},
    "head.squeeze": FLAG,
    "head.target_scale": items(number("[1e-6, 1e6]"), 4),
    "head.dropout": BELOW_1,
    "head.project": FLAG,
    "head.memory": whole("[1, 1000000]"),
    "head.init_gain": number("(0, 100]"),
    "vcp.distance": whole("[0, 100000]"),
    "vcp.both_sides": FLAG,
    "prp: clip.strides": also(
        items(whole("[1, 1000]"), 2, 100),
        lambda rates: len(set(rates)) == len(rates),
        "all different",
    ),
    "prp.classification": number("[0, 1e6]"),
    "prp.classifier_rate": number("[0, 1e6]"),
    "prp.mask": items(number("[0, 1e6]"), 2),
    "cep.prediction": number("[0, 1e6]"),
    "cep.cycle": number("[0, 1e6]"),
    "cep.layers": whole("[1, 16]"),
    "cep.hidden": whole("[1, 65536]"),
    "num_classes": whole("[0, 1000000]"),
    "freeze": TEXT,
}
"""By field; `ctp: head.init_std` is for the task `ctp` alone."""

_GROUPS = {"evaluators"} | {name.rpartition(".")[0] for name in RANGES}


def check(config: Mapping[str, Any] | ConfigDict, group: str = "") -> None:
    """Raises `UserError` for the first field of a config that holds what it may not.

    Args:
        config: a config, or one of its groups.
        group: the name of the group and a dot, e.g. `model.`; empty for a config.
    """
    task = config.get("task", "")
    _check({"task": task} if "task" in config else {}, group, "")
    _check(config, group, f"{task}: ")


def _check(config: Mapping[str, Any] | ConfigDict, group: str, task: str) -> None:
    for own, value in config.items():
        name, needs = f"{group}{own}", ""
        known = re.sub(r"^evaluators\.[^.]+", "evaluators.*", name)
        allowed = RANGES.get(task + known) or RANGES.get(known)
        if allowed is not None:
            needs = "" if allowed.holds(value) else allowed.needs
        elif isinstance(value, (Mapping, ConfigDict)):
            _check(value, f"{name}.", task)
        elif known in _GROUPS:
            needs = f"fields, config.{name}.x"
        elif isinstance(value, float) and not math.isfinite(value):
            needs = "a finite number"
        if needs:
            raise UserError(f"config.{name} = {_shown(value)}: needs {needs}")


def _shown(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(dict(value) if isinstance(value, ConfigDict) else value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
