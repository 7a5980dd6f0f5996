"""Files with state dicts: .pth (and .pt, .pth.tar) of torch, and .safetensors.

No code in a file is ever run: torch reads with `weights_only=True`.
"""

import argparse
import contextlib
import hashlib
import pathlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes  # with it, NumPy has bfloat16
import numpy as np
import safetensors.numpy

from ctp_jax import files
from ctp_jax.errors import UserError, refusal

SAFETENSORS = ".safetensors"
SUFFIXES = (".pth", ".pt", ".pth.tar", SAFETENSORS)

# Keys under which training code stores the state dict; the first one found is taken.
_PLACES = ("state_dict", "model", "model_state_dict", "net", "network")


class StateDict(NamedTuple):
    """The contents of a file.

    Attributes:
        tensors: NumPy arrays by name; those of floating-point types are float32.
        about: text about them that the file contains, by name; may be empty.
        sha256: of the file, in hexadecimal.
    """

    tensors: dict[str, np.ndarray]
    about: dict[str, str]
    sha256: str


def is_file_name(path: str | pathlib.Path) -> bool:
    """Whether the name has a suffix of files with state dicts."""
    return str(path).endswith(SUFFIXES)


def read(path: pathlib.Path) -> StateDict:
    """Reads a state dict.

    Raises:
        UserError: the file is missing, damaged, of another kind or contains code that
            would have to be run; or torch is needed and missing.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if not file.tell():
                raise UserError(f"{path}: the file is empty")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if path.name.endswith(SAFETENSORS):
        tensors, about = _read_safetensors(path)
    else:
        tensors, about = _read_torch(path)
    return StateDict(tensors, about, sha256)


def _read_safetensors(path):
    try:
        with safetensors.safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
    except Exception as error:
        raise _damaged(path, "safetensors") from error
    return {name: _widened(tensor) for name, tensor in tensors.items()}, about


def _widened(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16:
        return np.asarray(array, np.float32)
    return array


def _read_torch(path):
    torch = _torch(path)
    try:
        with torch.serialization.safe_globals(_harmless()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no class for damaged files
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UserError(
                f"{path}: reading it would run code ({refused[1]}): save only the "
                "state_dict() with torch.save, and convert that file"
            ) from error
        raise _damaged(path, "torch") from error
    tensors = _find_tensors(loaded, torch.Tensor)
    if not tensors:
        raise UserError(
            f"{path}: contains no state dict (tensors by name): name another file"
        )
    about = loaded.get("meta")
    about = about if isinstance(about, Mapping) else {}
    about = {k: v for k, v in about.items() if isinstance(v, str)}
    return {name: _array(tensor) for name, tensor in tensors.items()}, about


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _find_tensors(loaded: Any, kind: type) -> dict[str, Any]:
    """The tensors of a state dict at the top level or one level below."""
    if not isinstance(loaded, Mapping):
        return {}
    places = [loaded]
    places += [loaded[name] for name in _PLACES if name in loaded]
    places += [value for key, value in loaded.items() if key not in _PLACES]
    for place in places:
        if isinstance(place, Mapping):
            found = {
                name: value
                for name, value in place.items()
                if isinstance(name, str) and isinstance(value, kind)
            }
            if found:
                return found
    return {}


def _harmless() -> list[Any]:
    """Harmless types that old checkpoints contain: NumPy's numbers, parsed flags."""
    pickled: list[Any] = [np.float64(0), np.zeros(1)]
    types = [type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]
    # NumPy 2 renamed its core; old pickles have the old name.
    moved = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in (example.__reduce__()[0] for example in pickled)
        for core in ("core", "_core")
    ]
    return [*moved, *types, np.dtype, np.ndarray, argparse.Namespace]


def write(
    path: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    about: Mapping[str, str],
    bare: bool,
) -> None:
    """Writes a state dict atomically; replaces an existing file.

    Args:
        path: its suffix chooses the format.
        tensors: by name, in the order to write.
        about: text to store with them.
        bare: write only the state dict to a .pth file, without `about`; otherwise the
            file contains {'meta': about, 'state_dict': ...}.

    Raises:
        UserError: it cannot be written, or torch is needed and missing.
    """
    with _replacing(path) as new:
        if path.name.endswith(SAFETENSORS):
            safetensors.numpy.save_file(dict(tensors), new, dict(about))
        else:
            torch = _torch(path)
            state = OrderedDict(
                (name, torch.from_numpy(array)) for name, array in tensors.items()
            )
            whole = {"meta": dict(about), "state_dict": state}
            torch.save(state if bare else whole, new)


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path to write to, which replaces `path` if nothing fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as new:
            yield new
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        # torch and safetensors wrap errors of the system in errors of their own.
        explained = refusal(error, path)
        raise explained or UserError(f"{path}: cannot be written: {error}") from error


def _torch(path: pathlib.Path):
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f'{path}: needs PyTorch: pip install torch, or pip install -e ".[torch]"; '
            f"{SAFETENSORS} files do not need it"
        ) from error
    return torch


def _damaged(path: pathlib.Path, kind: str) -> UserError:
    return UserError(
        f"{path}: not a {kind} file, or damaged or incomplete: download it again"
    )
