r"""Unpickles what torch.save writes; runs nothing in it.

Unpickling calls what the pickle names. Here these calls are replaced: those of `_CALLS` by
functions of this module, those of `_PLAIN` by an empty `Thing`, and everything else is
refused. No memory is reserved for a size that the pickle only claims to have.
"""

import dataclasses
import io
import math
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import ml_dtypes  # with it, NumPy has bfloat16
import numpy as np

from ctp_jax.formatting import one_line

NAME = 500
"""Longest key of a mapping that is kept."""

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


# The one of Python: that of C reserves memory for the numbers of its memo.
class Unpickler(pickle._Unpickler):
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
