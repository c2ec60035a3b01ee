"""Reading a pickle as data: the opcodes are carried out here, and nothing that the pickle names is imported or run."""

from __future__ import annotations

import io
import mmap
import pickletools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ldm.checkpoint.source import DamagedFileError


class ForbiddenCallError(Exception):
    """The pickle wants something called (or named) that no weight file needs; holds the dotted name."""


@dataclass(frozen=True)
class Name:
    """Something that a pickle refers to by module and name; only ever a pair of strings."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def is_class_like(self) -> bool:
        """Written the way classes are (``ModelCheckpoint``), not the way functions are."""
        return self.name.rpartition(".")[2].lstrip("_")[:1].isupper()

    @property
    def is_standard_library(self) -> bool:
        """Belongs to Python itself, of any version: where the dangerous callables live."""
        return self.module.partition(".")[0] in _STANDARD_MODULES


_STANDARD_MODULES = sys.stdlib_module_names | {"__builtin__", "commands", "copy_reg", "cPickle", "os2", "popen2", "nt"}


@dataclass(eq=False)
class StandIn:
    """What is left of an object whose class is not known here: the class name and the data, without behaviour."""

    kind: Name
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def set_state(self, state: Any) -> None:
        """Keep the state that ``__setstate__`` would have received."""
        self.state = state

    def __repr__(self) -> str:
        return f"<stand-in for {self.kind}>"


class ParameterMapping(dict[Any, Any]):
    """The entries of a pickled ``torch.nn.ParameterDict`` or ``ParameterList``."""

    def set_state(self, state: Any) -> None:
        """Take the parameters out of the module's ``__dict__``."""
        parameters = state.get("_parameters") if isinstance(state, Mapping) else None
        if isinstance(parameters, Mapping):
            self.update(parameters)


class Budget:
    """What a pickle may make out of what it holds: each call of it copies its arguments, which may be large and shared.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.copied = 0
        self.tensors = 0

    def spend(self, args: Any) -> None:
        """Count what a call is about to copy.

        Raises:
            DamagedFileError: far more was copied by now than the file holds.
        """
        self.copied += 1 + sum(len(arg) for arg in _flat(args) if isinstance(arg, _SIZED))
        if self.copied > 4 * self.size + (1 << 20):
            raise DamagedFileError("its pickle copies what it holds again and again")

    def claim(self, tensor: torch.Tensor) -> None:
        """Count a tensor, which may be a view of memory that others share or that it repeats.

        Raises:
            DamagedFileError: as tensors of their own they would need far more memory than the file has.
        """
        self.tensors += tensor.nbytes
        if self.tensors > 16 * self.size + (1 << 26):
            raise DamagedFileError(f"its tensors claim {self.tensors} bytes of a file of {self.size}")


_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


def _flat(args: Any) -> Iterator[Any]:
    """The arguments of a call, and what lies in those that are tuples (the state of an array)."""
    for arg in args if isinstance(args, tuple) else (args,):
        yield arg
        if isinstance(arg, tuple) and len(arg) <= 8:
            yield from arg


@dataclass(frozen=True)
class Vocabulary:
    """What a pickle may do: the names it may call, and the names it may mention although they look like calls."""

    calls: Mapping[str, Callable[..., Any]]
    values: Mapping[str, Any]
    inert: frozenset[str]
    change: Callable[[Any, Any], None]
    budget: Budget

    def look_up(self, name: Name) -> Any:
        """The value behind a name: data for a few of torch's and numpy's, otherwise the name itself.

        Raises:
            ForbiddenCallError: a function of the standard library that is not on the list.
        """
        text = str(name)
        if text in self.values:
            return self.values[text]
        known = text in self.calls or text in self.inert or name.module == "typing"
        if name.is_standard_library and not known and not name.is_class_like:
            raise ForbiddenCallError(text)
        return name

    def call(self, target: Any, args: Any) -> Any:
        """What REDUCE stands for, for callables of the list; classes of strangers become stand-ins.

        Raises:
            ForbiddenCallError: any other callable.
            DamagedFileError: the arguments are no tuple.
        """
        if not isinstance(target, Name):
            raise ForbiddenCallError(f"a value of type {type(target).__name__}")
        if not isinstance(args, tuple):
            raise DamagedFileError("the arguments of a call are not a tuple")
        if str(target) in self.calls:
            return self._called(target, args)
        if str(target) in self.inert or (target.is_class_like and not target.is_standard_library):
            return StandIn(target, args)
        raise ForbiddenCallError(str(target))

    def create(self, target: Any, args: Any) -> Any:
        """What NEWOBJ stands for: an object without running its constructor.

        Raises:
            ForbiddenCallError: what is to be made is not named, or its arguments are no tuple.
        """
        if not isinstance(target, Name) or not isinstance(args, tuple):
            raise ForbiddenCallError(f"a value of type {type(target).__name__}")
        if str(target) in self.calls:
            return self._called(target, args)
        return StandIn(target, args)

    def _called(self, target: Name, args: tuple[Any, ...]) -> Any:
        self.budget.spend(args)
        made = self.calls[str(target)](*args)
        if isinstance(made, torch.Tensor):
            self.budget.claim(made)
        return made

    def set_state(self, target: Any, state: Any) -> None:
        """What BUILD stands for."""
        self.budget.spend((state,))
        self.change(target, state)


_MARK = object()
_LONGEST_KEY = 4  # parts
_LARGEST_KEY = (1 << 61) - 1  # Python's hash is the number itself below it; numbers beyond can be made to collide
_LARGEST_PART = 1 << 31
_MOST_BITS = 8192  # of a number; Python prints none of more than 4300 digits
_FLAT_KEYS = (str, bytes, int, float, bool, type(None), Name, StandIn, torch.dtype, torch.device)


def check_key(key: Any) -> None:
    """Let only flat and small values be keys or members of a set.

    Hashing deeply shared tuples would take for ever, and so would a dictionary whose keys all have the same hash.

    Raises:
        DamagedFileError: any other.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(part, _FLAT_KEYS) for part in parts):
        raise DamagedFileError(f"a dictionary key is of type {type(key).__name__}")
    largest = _LARGEST_PART if isinstance(key, tuple) else _LARGEST_KEY
    if len(parts) > _LONGEST_KEY or any(isinstance(part, int) and abs(part) >= largest for part in parts):
        raise DamagedFileError("a dictionary key is a number or a list of numbers without measure")


class PickleMachine:
    """The stack machine of the pickle format, with a fixed vocabulary in place of imports.

    Args:
        vocabulary: what may be called and named.
        persistent: turns a persistent id (torch's reference to a storage) into a value.
    """

    def __init__(self, vocabulary: Vocabulary, persistent: Callable[[Any], Any]) -> None:
        self.vocabulary = vocabulary
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO | mmap.mmap) -> Any:
        """Carry out one pickle; the stream is left behind its last byte.

        Raises:
            ForbiddenCallError: the pickle names or calls something outside the vocabulary.
            DamagedFileError: this is not a pickle, or not a whole one.
        """
        self.stack, self.memo = [], {}
        try:
            for opcode, arg, _ in pickletools.genops(stream):  # type: ignore[arg-type]
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, arg)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, RuntimeError) as error:
            raise DamagedFileError(f"its pickle is broken ({error})") from error
        raise DamagedFileError("its pickle has no end")

    def _step(self, name: str, arg: Any) -> None:
        if name in _LITERALS:
            if isinstance(arg, int) and arg.bit_length() > _MOST_BITS:
                raise ValueError("a number of thousands of digits")
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _PUTS:
            self.memo[len(self.memo) if arg is None else arg] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[arg])
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, arg)
        elif name not in ("PROTO", "FRAME"):
            raise ForbiddenCallError(f"the pickle opcode {name}")

    def _pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError("no mark on the stack")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _pop(self) -> Any:
        if self.stack[-1] is _MARK:
            raise IndexError("a mark where a value should be")
        return self.stack.pop()

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def _set_items(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, StandIn) else target
        if not isinstance(items, dict):
            raise TypeError(f"items set on a {type(target).__name__}")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            check_key(key)
            items[key] = value

    def _add_elements(self, new: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            for element in new:
                check_key(element)
            target.update(new)
            return
        elements = target.elements if isinstance(target, StandIn) else target
        if not isinstance(elements, list):
            raise TypeError(f"elements appended to a {type(target).__name__}")
        elements.extend(new)

    def _make_dict(self, flat: list[Any]) -> None:
        self.stack.append({})
        self._set_items(flat)

    def _make_frozenset(self, items: list[Any]) -> None:
        for item in items:
            check_key(item)
        self.stack.append(frozenset(items))

    def _global(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name is not text")
        self.stack.append(self.vocabulary.look_up(Name(module, name)))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _reduce(self) -> None:
        args, target = self._pop(), self._pop()
        self.stack.append(self.vocabulary.call(target, args))

    def _new_object(self, keywords: bool) -> None:
        extra = self._pop() if keywords else {}
        args, target = self._pop(), self._pop()
        made = self.vocabulary.create(target, args)
        if extra and isinstance(made, StandIn):
            made.state = extra
        self.stack.append(made)

    def _instance(self, arg: str) -> None:
        args = tuple(self._pop_to_mark())
        self._global(*arg.split(" ", 1))
        self.stack.append(self.vocabulary.call(self._pop(), args))

    def _object(self) -> None:
        target, *args = self._pop_to_mark()
        self.stack.append(self.vocabulary.call(target, tuple(args)))

    def _build(self) -> None:
        state = self._pop()
        self.vocabulary.set_state(self.stack[-1], state)


_LITERAL_NAMES = (
    "INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_LITERALS = frozenset(_LITERAL_NAMES.split())
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_OPERATIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "POP": lambda m, _: m.stack.__delitem__(-1),
    "POP_MARK": lambda m, _: m._pop_to_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "LIST": lambda m, _: m.stack.append(m._pop_to_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m._pop_to_mark())),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "DICT": lambda m, _: m._make_dict(m._pop_to_mark()),
    "FROZENSET": lambda m, _: m._make_frozenset(m._pop_to_mark()),
    "APPEND": lambda m, _: m._add_elements([m._pop()]),
    "APPENDS": lambda m, _: m._add_elements(m._pop_to_mark()),
    "ADDITEMS": lambda m, _: m._add_elements(m._pop_to_mark()),
    "SETITEM": lambda m, _: m._set_items([m._pop(), m._pop()][::-1]),
    "SETITEMS": lambda m, _: m._set_items(m._pop_to_mark()),
    "GLOBAL": lambda m, arg: m._global(*arg.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m._stack_global(),
    "REDUCE": lambda m, _: m._reduce(),
    "NEWOBJ": lambda m, _: m._new_object(keywords=False),
    "NEWOBJ_EX": lambda m, _: m._new_object(keywords=True),
    "INST": lambda m, arg: m._instance(arg),
    "OBJ": lambda m, _: m._object(),
    "BUILD": lambda m, _: m._build(),
    "PERSID": lambda m, arg: m.stack.append(m.persistent(arg)),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m._pop())),
}


def ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    """``collections.OrderedDict`` from the pairs that a pickle gives it."""
    made: OrderedDict[Any, Any] = OrderedDict()
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        check_key(key)
        made[key] = value
    return made
