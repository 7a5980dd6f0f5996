"""Which clips an encoder wants, as files for PyTorch say it: some fields of its config."""

from collections.abc import Mapping
from typing import Any

from ctp_jax import config as config_lib
from ctp_jax import ranges
from ctp_jax.errors import UserError
from ctp_jax.storage import untrusted

_FIELDS = {
    "clip": ("num_frames", "size"),
    "probe": ("num_clips", "stride", "scales", "pool", "pooling"),
    "test": ("num_clips", "stride", "scales"),
}


def of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, by group, that an encoder's provenance knows and that can be.

    Args:
        provenance: has the `config` of a run, or the `clips` of a file that it came from.

    Returns:
        {'clip': {'num_frames': 16, ...}, ...}; empty if neither is there, or is no config's.
    """
    config = provenance.get("config", provenance.get("clips"))
    try:
        untrusted.check_shape(config, {str: object})
        groups = {group: config[group] for group in _FIELDS if group in config}
        untrusted.check_shape(groups, {str: dict})
        clips = {
            group: {
                name: groups[group][name] for name in names if name in groups[group]
            }
            for group, names in _FIELDS.items()
            if group in groups
        }
        ranges.check(config_lib.from_json(clips))
    except (ValueError, UserError):
        return {}
    return clips


def parse(text: str) -> dict[str, Any]:
    """The fields in a file's text; empty if it is no JSON, or not of these fields."""
    try:
        return of({"clips": untrusted.parse_json(text)})
    except ValueError:
        return {}
