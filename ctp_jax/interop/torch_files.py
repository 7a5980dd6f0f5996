r"""Reads the tensors in files of torch.save and torch.jit.save; runs nothing in them.

Such a file is a pickle with the *storages* of its tensors: a zip archive with `data.pkl`
and `data/KEY`, or, as before PyTorch 1.6, pickles and storages one after the other.
Unpickling calls what the pickle names. Here these calls are replaced: those of `_CALLS` by
functions of this module, those of `_PLAIN` by an empty `Thing`, and everything else is
refused. No memory is reserved for a size that the file only claims to have.
"""

import dataclasses
import io
import math
import pathlib
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import ml_dtypes  # with it, NumPy has bfloat16
import numpy as np

from ctp_jax.formatting import one_line

DEPTH, NAME, TENSORS, ALIASES = 32, 500, 100_000, 16
"""Limits: levels of nesting, length of a name, tensors in a file, and how many times the
size of the file its tensors may have together (tensors can share their storage)."""

_LEGACY = 0x1950A86A20F9469CFC6C
"""The number with which files from before PyTorch 1.6 begin, as a pickle."""

_STORAGES = {
    "Double": "f8",
    "Float": "f4",
    "Half": "f2",
    "BFloat16": ml_dtypes.bfloat16,
}
_STORAGES |= {"Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1"}
_STORAGES |= {"Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16"}
_DTYPES = {f"torch.{name}Storage": np.dtype(kind) for name, kind in _STORAGES.items()}
_DTYPES |= {"torch.storage.UntypedStorage": np.dtype("u1")}
_DTYPES |= {f"torch.{name}": np.dtype(name) for name in ("uint16", "uint32", "uint64")}

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Old names of modules, which pickles have for the sake of Python 2."""

_PLAIN = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|typing\.Any|collections\.(deque|Counter)"
    r"|builtins\.(set|frozenset|complex|bytearray|slice|range|object)"
    r"|copyreg\._reconstructor|_codecs\.encode|decimal\.Decimal|uuid\.UUID"
    r"|pathlib\.\w*Path|datetime\.\w+"
    r"|numpy\.(dtype|ndarray|u?int\d+|float\d+|bool_?|dtypes\.\w+)"
    r"|numpy\._?core\.multiarray\.(scalar|_reconstruct)"
    r"|torch\.(Size|device|dtype|layout|memory_format|\w*Storage|\w*Tensor|[a-z]+\d\w*)"
    r"|torch\.(_utils\._rebuild_\w+|nn\.parameter\.\w+|serialization\._get_layout)"
    r"|(addict|easydict|lightning\w*|mmcv|mmengine|omegaconf|pytorch_lightning|yacs)\."
    r"[\w.]*(Buffer|Checkpoint|Config|Container|Dict|Metadata|Node)\w*"
)
"""Names of what only holds values: metrics, flags and configs beside the weights."""


class CodeError(Exception):
    """The file names something that would have to be run; the message is its name."""


class ClaimError(Exception):
    """The file claims to hold more than it can; the message says what."""


class Thing:
    """Stands for an object that is neither a mapping nor a tensor; remembers nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def append(self, *_) -> None:
        """Takes the items of a collection, which are dropped."""

    extend = append


class Module(Thing):
    """A module of TorchScript; `state` is {attribute: value}."""

    state: Any = None


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor whose elements have not been looked at.

    Attributes:
        storage: key of its storage.
        dtype: of the elements.
        offset, shape, strides: in the storage, in elements.
    """

    storage: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, storage: bytes) -> np.ndarray:
        """A view of the storage. Raises `ValueError` if it is too small."""
        if not self.nbytes:
            return np.zeros(self.shape, self.dtype)
        size = self.dtype.itemsize
        strides = [step * size for step in self.strides]
        return np.ndarray(self.shape, self.dtype, storage, self.offset * size, strides)


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every tensor of a file, at any depth.

    Returns:
        (arrays by name, `state_dict.conv1.weight` for the entry `conv1.weight` of the
        entry `state_dict`; the text in the entry `meta`). Arrays are views, read-only.

    Raises:
        CodeError, ClaimError: see there.
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
    loaded = _Unpickler(io.BytesIO(read["data.pkl"])).load()
    return loaded, lambda key: read[f"data/{key}"]


def _read_legacy(path: pathlib.Path) -> tuple[Any, Callable[[str], bytes]]:
    file = io.BytesIO(path.read_bytes())
    if _Unpickler(file).load() != _LEGACY:
        raise ValueError("another pickle")
    for _ in range(2):  # a version, and the sizes of C's types
        _Unpickler(file).load()
    reader = _Unpickler(file)
    loaded, storages = reader.load(), {}
    for key in _Unpickler(file).load():
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


# The one of Python: that of C reserves memory for the numbers of its memo.
class _Unpickler(pickle._Unpickler):
    """Makes mappings, lists, numbers, text, `Tensor` and `Thing`."""

    # Of the base class, whose type stubs lack them.
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="utf-8", errors="replace")
        self.sizes: dict[str, int] = {}
        """Bytes of a number of every storage."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{_RENAMED.get(module, module)}.{name}"
        known = _CALLS.get(full) or _DTYPES.get(full)
        if known is None and module.startswith("__torch__"):
            return Module
        if known is None and not _PLAIN.fullmatch(full):
            raise CodeError(one_line(full)[:100])
        return Thing if known is None else known

    def persistent_load(self, pid: Any) -> tuple[str, Any]:
        """A storage: its key and the type of its numbers."""
        kind, dtype, key, *_, view = (*pid, None) if len(pid) == 5 else pid
        if kind != "storage" or view is not None or not isinstance(key, str):
            raise ValueError("an unknown kind of storage")
        if isinstance(dtype, np.dtype):
            self.sizes[key] = dtype.itemsize
        return key, dtype

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Module):
            self.stack[-1].state = state

    def load_dict(self) -> None:
        self.append(_mapping(_pairs(self.pop_mark())))

    def load_setitems(self) -> None:
        pairs = _pairs(self.pop_mark())
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_mapping(pairs))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_mapping([(key, value)]))

    def load_set(self) -> None:
        self.append(Thing())

    def drop_items(self) -> None:
        self.pop_mark()

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.append(Thing())

    def load_bytearray(self) -> None:
        self.read(struct.unpack("<Q", self.read(8))[0])  # reserves only what is there
        self.append(Thing())

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.EMPTY_SET[0]: load_set,
        pickle.ADDITEMS[0]: drop_items,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray,
    }


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))


def _mapping(*arguments: Any) -> dict[Any, Any]:
    """A mapping with its ordinary keys: hashing nested tuples can crash Python."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else ()
    return {
        key: value
        for key, value in pairs
        if (isinstance(key, str) and len(key) <= NAME)
        or (isinstance(key, int) and abs(key) < 1 << 64)
    }


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *rest: Any) -> Any:
    key, dtype = storage
    if len(rest) == 4:  # version 3: its storage has no type
        dtype = rest[2]
    if not isinstance(key, str):
        raise TypeError("no storage")
    if not isinstance(dtype, np.dtype):
        return Thing()  # quantized, or of 8 bits: no weights that can be used here
    return Tensor(
        key, dtype, int(offset), tuple(map(int, shape)), tuple(map(int, strides))
    )


def _first(value: Any, *_: Any) -> Any:
    return value


_CALLS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "builtins.dict": _mapping,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": lambda make, _, items, *__: make(*items),
    **{
        f"torch.jit._pickle.{name}": _first
        for name in (
            "build_intlist",
            "build_tensorlist",
            "build_doublelist",
            "build_boollist",
            "restore_type_tag",
        )
    },
}
