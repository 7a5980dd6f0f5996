"""Encoders of a model hub: `hf://OWNER/NAME`, with `@REVISION` if need be.

This is the only file that imports huggingface_hub. It keeps what it has downloaded, and says
where the hub is (HF_ENDPOINT) and what to do without a network (HF_HUB_OFFLINE).
"""

import pathlib
import re

from ctp_jax.errors import UserError, reason

_FILES = ["encoder.json", "arrays/**"]


def is_address(path: str) -> bool:
    """Whether a path is an address of a hub."""
    return path.startswith("hf://")


def download(address: str) -> pathlib.Path:
    """The folder of an encoder, downloaded unless it is there.

    Args:
        address: hf://OWNER/NAME or hf://OWNER/NAME@REVISION.

    Raises:
        UserError: another form of address, no such model, no network, or huggingface_hub
            is not installed.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/?", address)
    if not match:
        raise UserError(
            f"{address}: needs hf://OWNER/NAME, or hf://OWNER/NAME@REVISION"
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"{address}: needs huggingface_hub: pip install huggingface_hub"
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            match[1], revision=match[2], allow_patterns=_FILES
        )
    except Exception as error:  # of many kinds, of several packages
        raise UserError(
            f"{address}: cannot be downloaded ({reason(error)}): check the name and the "
            "network"
        ) from error
    return pathlib.Path(folder)
