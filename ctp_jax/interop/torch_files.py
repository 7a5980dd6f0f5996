"""Reads the tensors in files of torch.save and torch.jit.save, without PyTorch.

Such a file is a pickle with the *storages* of its tensors: a zip archive with `data.pkl`
and `data/KEY`, or, as before PyTorch 1.6, pickles and storages one after the other.
"""

import io
import pathlib
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ctp_jax.interop.unpickling import NAME, Module, Tensor, Unpickler

DEPTH, TENSORS, ALIASES = 32, 100_000, 16
"""Limits: levels of nesting, tensors in a file, and how many times the size of the file its
tensors may have together (tensors can share their storage)."""

_LEGACY = 0x1950A86A20F9469CFC6C
"""The number with which files from before PyTorch 1.6 begin, as a pickle."""


class ClaimError(Exception):
    """The file claims to hold more than it can; the message says what."""


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every tensor of a file, at any depth.

    Returns:
        (arrays by name, `state_dict.conv1.weight` for the entry `conv1.weight` of the
        entry `state_dict`; the text in the entry `meta`). Arrays are views, read-only.

    Raises:
        ClaimError: see there.
        unpickling.CodeError: the file names something that would have to be run.
        Exception: of many types, for damaged and other files.
    """
    with path.open("rb") as file:
        legacy = file.read(1) == pickle.PROTO
    loaded, storages = (_read_legacy if legacy else _read_zip)(path)
    found = dict(_tensors(loaded))
    if sum(tensor.nbytes for tensor in found.values()) > ALIASES * path.stat().st_size:
        raise ClaimError("its tensors would be many times larger than the file")
    arrays = {
        name: tensor.array(storages(tensor.storage)) for name, tensor in found.items()
    }
    meta = loaded.get("meta") if isinstance(loaded, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    return arrays, {str(k): v for k, v in meta.items() if isinstance(v, str)}


def _read_zip(path: pathlib.Path) -> tuple[Any, Callable[[str], bytes]]:
    with zipfile.ZipFile(path) as archive:
        contents = {
            entry.filename.partition("/")[2]: entry
            for entry in archive.infolist()
            if re.fullmatch(r"[^/]+/(data\.pkl|byteorder|data/[^/]+)", entry.filename)
        }
        # torch.save does not compress: what it wrote is no larger than the file.
        if sum(e.file_size for e in contents.values()) > path.stat().st_size:
            raise ClaimError("is compressed, which torch.save never does")
        read = {name: archive.read(entry) for name, entry in contents.items()}
    if read.get("byteorder", b"little") != b"little":
        raise ValueError("of a big-endian machine")
    loaded = Unpickler(io.BytesIO(read["data.pkl"])).load()
    return loaded, lambda key: read[f"data/{key}"]


def _read_legacy(path: pathlib.Path) -> tuple[Any, Callable[[str], bytes]]:
    file = io.BytesIO(path.read_bytes())
    if Unpickler(file).load() != _LEGACY:
        raise ValueError("another pickle")
    for _ in range(2):  # a version, and the sizes of C's types
        Unpickler(file).load()
    reader = Unpickler(file)
    loaded, storages = reader.load(), {}
    for key in Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(count * reader.sizes[key])
    return loaded, storages.__getitem__


def _tensors(loaded: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, in the order of the file; a container is entered once."""
    waiting, seen, count = [("", loaded, 0)], set(), 0
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
            count += 1
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if depth > DEPTH or count > TENSORS:
            raise ClaimError(f"has more than {DEPTH} levels or {TENSORS:,} tensors")
        value = value.state if isinstance(value, Module) else value
        if isinstance(value, (list, tuple)):
            value = dict(enumerate(value))
        inner = [
            (f"{name}.{key}" if name else str(key), item, depth + 1)
            for key, item in (value.items() if isinstance(value, dict) else ())
            if isinstance(item, (dict, list, tuple, Module, Tensor))
        ]
        waiting += reversed([item for item in inner if len(item[0]) <= NAME])
