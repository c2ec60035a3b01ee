"""What a weight file's pickle may contain: tensors, arrays, plain containers; everything else stays inert.

No function of torch or NumPy that a pickle names is called by that name: each entry is a short function of our own that
checks what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.checkpoint.pickle_machine import Budget, Name, ParameterMapping, StandIn, Vocabulary, check_key, ordered
from ldm.checkpoint.source import DamagedFileError

_DTYPE_NAMES = (
    "float64 float32 float16 bfloat16 complex64 complex128 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool "
    "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz"
)
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _DTYPE_NAMES.split()}
STORAGE_DTYPES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
    }.items()
}  # fmt: skip
STORAGE_DTYPES |= {key.replace("torch.", "torch.cuda."): dtype for key, dtype in STORAGE_DTYPES.items()}
UNTYPED_STORAGES = ("torch.storage.UntypedStorage", "torch.UntypedStorage")
_PARAMETER_CONTAINERS = ("torch.nn.modules.container.ParameterDict", "torch.nn.modules.container.ParameterList")
_NUMPY_DTYPE = re.compile(r"[<|=]?([biufcSU]\d{0,4}|(?:float|u?int|complex)\d+|bool_?)")
_MAX_ELEMENTS = 1 << 40


@dataclass(frozen=True)
class Storage:
    """A run of bytes in the file, one-dimensional, seen as ``data.dtype``."""

    data: Tensor


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: Any = None) -> Tensor:
    """A strided view of a storage, inside its bounds."""
    size, stride = _integers(size), _integers(stride)
    if not isinstance(storage, Storage) or type(offset) is not int or len(size) != len(stride):
        raise DamagedFileError("a tensor has no storage or no shape")
    data = storage.data if dtype is None else storage.data.view(dtype)
    empty = 0 in size
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset < 0 or (not empty and last >= data.numel()):
        raise DamagedFileError(f"a tensor of shape {tuple(size)} reaches beyond its storage of {data.numel()} elements")
    if not empty and _product(size) > max(data.numel(), 1 << 24):
        raise DamagedFileError(f"a tensor of shape {tuple(size)} claims more elements than are stored")
    return torch.empty(size, dtype=data.dtype) if empty else data.as_strided(size, stride, offset)


def _rebuild_tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any,
                       *rest: Any) -> Tensor:  # fmt: skip
    return _rebuild_tensor(storage, offset, size, stride, dtype=dtype)


def _rebuild_parameter(data: Any, *rest: Any) -> Tensor:
    """Parameters are read as plain tensors; whoever wants to train them makes parameters again."""
    if not isinstance(data, Tensor):
        raise DamagedFileError("a parameter without a tensor")
    return data


def _rebuild_from_type(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """A tensor with extra attributes or of a subclass: the tensor alone."""
    if not isinstance(function, Name) or str(function) not in _TENSOR_CALLS or not isinstance(args, tuple):
        raise DamagedFileError("a tensor should be rebuilt by something unknown")
    return _TENSOR_CALLS[str(function)](*args)


def _integers(values: Any) -> list[int]:
    if not isinstance(values, (tuple, list)) or not all(type(v) is int and 0 <= v < _MAX_ELEMENTS for v in values):
        raise DamagedFileError("a shape is not a list of whole numbers")
    return list(values)


def _product(values: Sequence[int]) -> int:
    total = 1
    for value in values:
        total *= value
    return total


def _numpy_dtype(code: Any = "f8", *rest: Any) -> np.dtype[Any]:
    """Numbers, booleans and text only: no objects, no records."""
    if isinstance(code, Name):  # numpy.dtype(numpy.float64)
        code = code.name
    if not isinstance(code, str) or not _NUMPY_DTYPE.fullmatch(code):
        raise DamagedFileError("a NumPy array of a type that holds no numbers")
    return np.dtype(code.rstrip("_"))


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    """A NumPy number as a Python one."""
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise DamagedFileError("a NumPy number of the wrong size")
    return np.frombuffer(data, dtype=dtype, count=1)[0].item()


def _numpy_reconstruct(*_: Any) -> np.ndarray[Any, Any]:
    return np.empty(0, dtype=np.uint8)


def _numpy_from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray[Any, Any]:
    array = np.empty(0, dtype=np.uint8)
    _fill_array(array, (1, tuple(shape), dtype, order == "F", bytes(data)))
    return array


def _fill_array(array: np.ndarray[Any, Any], state: Any) -> None:
    """The state of a NumPy array: version, shape, type, column order, bytes."""
    version, shape, dtype, fortran, data = state if len(state) == 5 else (1, *state)
    shape = _integers(shape)
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(data, bytes):
        raise DamagedFileError("a NumPy array of Python objects")
    if len(data) != _product(shape) * dtype.itemsize:
        raise DamagedFileError(f"a NumPy array of shape {tuple(shape)} has {len(data)} bytes")
    array.__setstate__((version, tuple(shape), dtype, bool(fortran), data))  # type: ignore[arg-type]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as protocol 2 writes them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "ascii", "utf-8", "utf8"):
        raise DamagedFileError("bytes in an unknown encoding")
    return text.encode(encoding)


def _bytes(data: Any = b"", encoding: Any = "latin1") -> bytes:
    return _encode(data, encoding) if isinstance(data, str) else bytes(_elements(data))


def _elements(values: Any = ()) -> Any:
    """Contents of a container that the pickle itself holds; a bare number would be a size."""
    if not isinstance(values, (list, tuple, dict, set, frozenset, bytes, bytearray)):
        raise DamagedFileError(f"a container is made from a {type(values).__name__}")
    return values


def _members(values: Any) -> Any:
    for value in _elements(values):
        check_key(value)
    return values


def _reconstruct(kind: Any, base: Any, state: Any) -> Any:
    """``copyreg._reconstructor``: an object of old pickle protocols."""
    if not isinstance(kind, Name):
        raise DamagedFileError("an object without a class")
    return ParameterMapping() if str(kind) in _PARAMETER_CONTAINERS else StandIn(kind, (state,))


def _size(values: Any = ()) -> torch.Size:
    return torch.Size(_integers(values))


def _device(kind: Any = "cpu", index: Any = None) -> torch.device:
    """Where a tensor once was; everything is read into main memory all the same."""
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise DamagedFileError("a device without a name")
    return torch.device(kind) if index is None else torch.device(kind, index)


def _refuse_layout(*_: Any) -> Tensor:
    raise DamagedFileError("it holds sparse, quantised or meta tensors, which no model here uses;")


_TENSOR_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}
_CALLS: dict[str, Callable[..., Any]] = {
    **_TENSOR_CALLS,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    **{
        f"torch._utils._rebuild_{kind}": _refuse_layout
        for kind in ("sparse_tensor", "sparse_csr_tensor", "nested_tensor", "qtensor", "meta_tensor_no_storage")
    },
    "torch.Size": _size,
    "torch.device": _device,
    **{kind: lambda *_: ParameterMapping() for kind in _PARAMETER_CONTAINERS},
    "collections.OrderedDict": ordered,
    "collections.defaultdict": lambda factory=None, pairs=(): dict(ordered(pairs)),
    "collections.Counter": lambda pairs=(): dict(ordered(pairs)),
    "collections.deque": lambda values=(), limit=None: list(_elements(values)),
    "_codecs.encode": _encode,
    "numpy.dtype": _numpy_dtype,
    "numpy.ndarray": _numpy_reconstruct,
    "copyreg._reconstructor": _reconstruct,
    "copy_reg._reconstructor": _reconstruct,
}
for _core in ("numpy.core", "numpy._core"):
    _CALLS[f"{_core}.multiarray.scalar"] = _numpy_scalar
    _CALLS[f"{_core}.multiarray._reconstruct"] = _numpy_reconstruct
    _CALLS[f"{_core}.numeric._frombuffer"] = _numpy_from_buffer
for _builtins in ("builtins", "__builtin__"):
    _CALLS[f"{_builtins}.list"] = lambda values=(): list(_elements(values))
    _CALLS[f"{_builtins}.tuple"] = lambda values=(): tuple(_elements(values))
    _CALLS[f"{_builtins}.set"] = lambda values=(): set(_members(values))
    _CALLS[f"{_builtins}.frozenset"] = lambda values=(): frozenset(_members(values))
    _CALLS[f"{_builtins}.dict"] = lambda pairs=(): dict(ordered(pairs))
    _CALLS[f"{_builtins}.bytes"] = _bytes
    _CALLS[f"{_builtins}.bytearray"] = lambda *args: bytearray(_bytes(*args))
    _CALLS[f"{_builtins}.complex"] = lambda real=0.0, imag=0.0: complex(float(real), float(imag))

# Classes with a small first letter, and functions that pickles mention as plain values: never called, so never harmful.
_INERT = frozenset(
    f"{module}.{name}"
    for module, names in {
        "builtins": "int float str bool object type slice range",
        "__builtin__": "int float str bool object type unicode long slice xrange",
        "datetime": "datetime date time timedelta timezone",
        "functools": "partial",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "uuid": "UUID",
        "argparse": "Namespace",
        "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
        "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    }.items()
    for name in names.split()
)


def _set_state(target: Any, state: Any) -> None:
    """What BUILD may change: stand-ins, parameter containers and arrays; attributes of other things are dropped."""
    if isinstance(target, (StandIn, ParameterMapping)):
        target.set_state(state)
    elif isinstance(target, np.ndarray):
        _fill_array(target, state)
    elif isinstance(target, np.dtype) and isinstance(state, tuple) and state[1:2] == (">",):
        raise DamagedFileError("it was written on a big-endian machine, which is not supported;")


def make_vocabulary(load_from_bytes: Callable[[Any], Any], size: int) -> Vocabulary:
    """The vocabulary of weight files.

    Args:
        load_from_bytes: reads a torch file that lies inside the pickle as bytes (how plain pickles hold tensors).
        size: bytes of the file, which bounds what may be made out of it.
    """
    calls = {**_CALLS, "torch.storage._load_from_bytes": load_from_bytes}
    values = {f"torch.{name}": dtype for name, dtype in DTYPES.items()}
    return Vocabulary(calls, values, _INERT, _set_state, Budget(size))
