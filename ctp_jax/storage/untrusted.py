"""Reads files that may be damaged or a stranger's, with checks of what is in them.

Everything that is read out of a workdir, an encoder or a data set goes through `opened`,
JSON and arrays through `parse_json` and `read_arrays`: no pipe is waited for, nothing is
allocated that is larger than its file, and every error is one of two kinds.
"""

import errno
import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ctp_jax.errors import UserError, reason

JSON_BYTES = 1 << 24
"""Limit of files of JSON."""

_DEPTH = 50  # of lists and objects within each other in JSON
_WORDS = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
_WORDS |= {int: "a whole number", float: "a number"}


def opened(path: str | os.PathLike, limit: int = JSON_BYTES) -> io.BufferedReader:
    """Opens a file to read; never waits for the writer of a pipe.

    Raises:
        OSError: it is missing, unreadable, not a regular file, or larger than `limit`
            bytes; `strerror` says which.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    about, wrong = os.fstat(descriptor), None
    if stat.S_ISDIR(about.st_mode):
        wrong = errno.EISDIR, "is a folder, not a file"
    elif not stat.S_ISREG(about.st_mode):
        wrong = errno.EINVAL, "is not a file"
    elif about.st_size > limit:
        wrong = errno.EFBIG, f"is larger than {limit:,} bytes"
    if wrong:
        os.close(descriptor)
        raise OSError(*wrong, os.fspath(path))
    return open(descriptor, "rb")


def read_bytes(path: str | os.PathLike, limit: int = JSON_BYTES) -> bytes:
    """The contents of a file; raises as `opened`."""
    with opened(path, limit) as file:
        return file.read()


def parse_json(text: bytes | str, shape: Any = dict) -> Any:
    """The value of a JSON text that has the given shape.

    Args:
        text: in UTF-8.
        shape: see `check_shape`.

    Raises:
        ValueError: it is no JSON, has another shape, or is nested too deeply.
    """
    deep = ValueError("is nested too deeply")
    try:
        value = json.loads(text)
    except RecursionError:
        raise deep from None
    level = [value]
    for _ in range(_DEPTH):
        nested = [item for item in level if isinstance(item, (dict, list))]
        level = [
            inner
            for item in nested
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    if level:
        raise deep
    check_shape(value, shape)
    return value


def check_shape(value: Any, shape: Any, place: str = "") -> None:
    """Raises `ValueError` unless a value from JSON has a shape.

    Args:
        value: what JSON gave.
        shape: a type (float also accepts whole numbers); `[shape]` for a list of such;
            `{str: shape}` for an object with any names; `{name: shape, ...}` for one
            that has at least these names; `object` for anything.
        place: of the value, for the message.
    """
    kind = shape if isinstance(shape, type) else type(shape)
    if not _is_a(value, kind):
        raise ValueError(f"{place or 'the whole'} is not {_WORDS[kind]}")
    if isinstance(shape, list):
        for item in value:
            check_shape(item, shape[0], f"an item of {place or 'the list'}")
    elif isinstance(shape, dict):
        shapes = dict.fromkeys(value, shape[str]) if str in shape else shape
        for name, inner in shapes.items():
            inside = f"{place}.{name}".lstrip(".")
            if name not in value:
                raise ValueError(f"{inside} is missing")
            check_shape(value[name], inner, inside)


def _is_a(value: Any, kind: type) -> bool:
    """As `isinstance`, but true is no number, and a whole number is one."""
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, (int, float) if kind is float else kind)


def read_json(
    path: str | os.PathLike,
    remedy: str,
    shape: Any = dict,
    open_file: Callable[..., Any] = opened,
) -> Any:
    """The value of a JSON file, see `parse_json`.

    Raises:
        UserError: it cannot be used; the message ends with the remedy.
    """
    try:
        return load_json(path, shape, open_file)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {reason(error)}: {remedy}") from error


def load_json(
    path: str | os.PathLike, shape: Any = dict, open_file: Callable[..., Any] = opened
) -> Any:
    """As `read_json`; raises what `opened` and `parse_json` raise."""
    with open_file(path) as file:
        return parse_json(file.read(), shape)


def json_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of an object of JSON, apart from its own entry `sha256`."""
    rest = {name: inner for name, inner in value.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_arrays(
    file: Any, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """Arrays of an .npz file that `numpy.savez` wrote; they cannot be written to.

    An array is never larger than its bytes in the file, whatever its header declares.

    Args:
        file: binary, open and seekable.
        wanted: whether to read the array of a name.

    Raises:
        ValueError: a damaged file, or one that is compressed or contains objects.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(file) as archive:
            size = file.seek(0, os.SEEK_END)
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if not wanted(name):
                    continue
                size -= entry.file_size
                if entry.compress_type != zipfile.ZIP_STORED or size < 0:
                    raise ValueError(f"{name} is not stored as it is")
                arrays[name] = _array(archive.read(entry), name)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"is damaged ({error})") from error
    return arrays


def _array(data: bytes, name: str) -> np.ndarray:
    """The array in the bytes of an .npy file."""
    header = io.BytesIO(data)
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError(f"{name} is of another version of NumPy's format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(header)
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} has a negative length")
    # Takes the bytes as they are: nothing is allocated, and objects are refused.
    array = np.frombuffer(data, dtype, offset=header.tell())
    return array.reshape(shape, order="F" if is_fortran else "C")
