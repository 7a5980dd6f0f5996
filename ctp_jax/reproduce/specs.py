"""Configs as an experiment names them: `configs/x.py:arguments`, and fields to override."""

import ast
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax import modules
from ctp_jax.data.batch import ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.reproduce import experiments


def with_arguments(spec: str, arguments: str) -> str:
    """The spec with more arguments."""
    if not arguments:
        return spec
    return f"{spec}{',' if ':' in spec else ':'}{arguments}"


def small_form(spec: str, data: Mapping[str, str]) -> str:
    """The small config in place of one of the paper's size.

    Args:
        spec: `configs/x.py:arguments`.
        data: see `Settings`.

    Raises:
        UserError: the config has no small form.
    """
    path, _, arguments = spec.partition(":")
    items = [item for item in arguments.split(",") if item]
    if "small" in items:
        return spec
    common = experiments.shared()
    target = common["SMALL"].get(path.removeprefix("configs/"))
    if target is None:
        raise UserError(
            f"{path}: has no small form: give the run a 'small' entry "
            "(docs/experiments.md)"
        )
    kept = []
    for item in items:
        name, _, value = item.partition("=")
        if name == "backbone":
            kept.append(f"backbone={common['SMALL_NETWORKS'].get(value, value)}")
        elif name not in ("data", "split", "train", "test"):
            kept.append(item)
    if target == path:  # small itself
        return spec
    roles = {name: _chosen(name, data) for name in re.findall(r"{(\w+)}", target)}
    roles["data"] = chosen(spec, data)
    return with_arguments(target.format_map(roles), ",".join(kept))


def chosen(spec: str, data: Mapping[str, str]) -> str:
    """Arguments that name the data chosen for those that a config takes, `data=...`.

    Args:
        spec: `configs/x.py:arguments`.
        data: see `Settings`.
    """
    _, _, arguments = spec.partition(":")
    named = [item[5:] for item in arguments.split(",") if item.startswith("data=")]
    return _chosen(named[-1] if named else "ucf101", data)


def _chosen(role: str, data: Mapping[str, str]) -> str:
    """Arguments of a config that name the data set for one of the paper's.

    `ucf101_flow` and `ucf101_tracks` are what was prepared from that for `ucf101`.
    """
    base = re.sub("_(flow|tracks)$", "", role)
    name, *splits = data.get(base, data.get("", "moving_shapes")).split(":")
    train, test = splits or ("train", "test")
    return f"data={name}{role.removeprefix(base)},train={train},test={test}"


def path(spec: str) -> str:
    """The spec with the path of its file: here, or else in the checkout."""
    path, colon, arguments = spec.partition(":")
    if not pathlib.Path(path).is_file():
        inside = experiments.checkout() / path
        path = str(inside) if inside.is_file() else path
    return f"{path}{colon}{arguments}"


def assign(config: ConfigDict, field: str, value: Any, spec: str) -> bool:
    """Sets a field; False if it has this value already."""
    known = config_lib.flatten(config)
    if field not in known:
        hint = config_lib.suggestion(field, list(known))
        raise UserError(f"{spec}: field {field!r}: no such field; {hint}")
    try:
        config.update_from_flattened_dict({field: value})
    except (TypeError, ValueError) as error:
        kind = type(known[field])
        needed = _KINDS.get(kind, kind.__name__)
        raise UserError(
            f"{spec}: field {field!r} = {value!r}: needs {needed}"
        ) from error
    return config_lib.flatten(config)[field] != known[field]


_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}


def parse(config: ConfigDict, field: str, text: str) -> Any:
    """The value of a text from the command line, of the field's type."""
    if isinstance(config_lib.flatten(config)[field], str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UserError(
            f"--override={field}={text}: needs a value as Python writes it: 0.1, True, "
            '"(1, 2)"'
        ) from None


def frames_per_video(config: ConfigDict) -> int:
    """Frames that a training step draws of each video."""
    spec = clip_spec(config)
    return spec.num_clips * spec.num_frames


def clip_spec(config: ConfigDict) -> ClipSpec:
    """The clips that a config's task trains on."""
    rest = ("data", "optimizer", "evaluators", "probe", "init_from", "seed")
    fields = {k: v for k, v in config_lib.as_dict(config).items() if k not in rest}
    key = json.dumps(fields)
    if key not in _SPECS:
        from ctp_jax.tasks import base  # not above: it imports JAX

        modules.allow_named_by(config)
        if "coclr" in config:  # what it samples with does not matter here
            config = config.copy_and_resolve_references()
            config.coclr.sampler = "random"
        _SPECS[key] = base.load(config).clip_spec(train=True)
    return _SPECS[key]


_SPECS: dict[str, ClipSpec] = {}
"""`clip_spec` of configs, which takes a while."""
