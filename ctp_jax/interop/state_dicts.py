"""Files with state dicts: those of torch.save and torch.jit.save, and .safetensors.

No code in a file is ever run, see `ctp_jax.interop.unpickling`. Only writing needs torch.
"""

import contextlib
import hashlib
import pathlib
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import ml_dtypes  # with it, NumPy has bfloat16
import numpy as np
import safetensors.numpy

from ctp_jax.errors import UserError, refusal
from ctp_jax.interop import torch_files, unpickling
from ctp_jax.storage import files, untrusted

SAFETENSORS = ".safetensors"
SUFFIXES = (".pth", ".pt", ".pyth", ".pth.tar", ".tar", ".bin", ".ckpt", SAFETENSORS)

_OTHERS = {  # how files begin that are often taken for checkpoints
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself, git lfs pull",
    b"<": "a web page: download the file that it offers",
    b"\x1f\x8b": "a compressed archive: unpack it",
    b"\x89HDF": "an HDF5 file: save the state_dict() with torch.save",
}


class StateDict(NamedTuple):
    """The contents of a file.

    Attributes:
        tensors: NumPy arrays by name; those of floating-point types are float32. The
            tensors of an entry of the file are called `entry.name`, at any depth.
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
            would have to be run.
    """
    try:
        with untrusted.opened(path, sys.maxsize) as file:
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
    try:
        tensors, about = torch_files.read(path)
    except unpickling.CodeError as error:
        raise UserError(
            f"{path}: reading it would run code ({error}): save only the state_dict() with "
            "torch.save, and convert that file"
        ) from error
    except torch_files.ClaimError as error:
        raise UserError(f"{path}: {error}: needs a file of torch.save") from error
    except Exception as error:  # pickles and archives fail in many ways
        raise _damaged(path, "torch") from error
    if not tensors:
        raise UserError(
            f"{path}: contains no state dict (tensors by name): name another file"
        )
    return {name: _widened(tensor) for name, tensor in tensors.items()}, about


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
            # Not `save_file`: its files could be read by their owner only.
            new.write_bytes(safetensors.numpy.save(dict(tensors), dict(about)))
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
    with path.open("rb") as file:
        begins = file.read(32)
    for magic, what in _OTHERS.items():
        if begins.startswith(magic):
            return UserError(f"{path}: not a {kind} file, but {what}")
    return UserError(
        f"{path}: not a {kind} file, or damaged or incomplete: download it again"
    )
