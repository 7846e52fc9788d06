"""Reading a pickle without unpickling: opcodes of plain data, and names from a closed table."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LARGEST_PICKLE = 8 << 20  # bytes; published checkpoints have below one million, without tensors
_LARGEST_INTEGER_BITS = 128  # of seeds, and of nothing larger
# dict keys up to here have a hash of their own; larger ones can all be given the same
_LARGEST_KEY = (1 << 61) - 2
_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
)
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedGlobalError(ValueError):
    """A pickle names a class or a function that is in no table; the message is its name."""


@dataclass(frozen=True)
class Omitted:
    """Stands where something was left out of what a pickle holds: a value of this class."""

    name: str


def read_pickle(data: bytes, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
    """What a pickle of protocol 2, which ``torch.save`` writes, holds.

    Nothing is imported: numbers, texts, lists, tuples and dicts are made here, and all else is
    taken from ``names``.

    Args:
        data: the pickle, of at most :data:`LARGEST_PICKLE` bytes.
        names: ``module.name`` -> what stands for it: an :class:`Omitted`, which takes whatever
            the file does with it, or a function, which must expect any arguments.
        persistent: makes the object of a persistent id.

    Raises:
        RefusedGlobalError: it names what is not in ``names``.
        ValueError: it is damaged, too large, or holds what such a file has no use for.
    """
    if len(data) > LARGEST_PICKLE:
        raise ValueError(f"its pickle has {len(data)} bytes, expected at most {LARGEST_PICKLE}")
    machine = _Machine(names, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (IndexError, KeyError) as error:
        raise ValueError(f"its pickle reads what it has not stored ({error})") from None
    raise ValueError("its pickle has no end")


class _Machine:
    """A stack, its marks and a memo, as the format has them (see :mod:`pickletools`)."""

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> None:
        self._names, self._persistent = names, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
        stack = self._stack
        if name in _LITERALS:
            stack.append(_plain(argument))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "PROTO":
            pass
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "POP":
            stack.pop()
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        else:
            self._step_with_objects(name, argument)

    def _step_with_objects(self, name: str, argument: Any) -> None:
        """Opcodes that fill containers, and those that name what is not plain data."""
        stack = self._stack
        match name:
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._pop_to_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._update([key, value])
            case "SETITEMS":
                self._update(self._pop_to_mark())
            case "GLOBAL":
                full = argument.replace(" ", ".")
                if full not in self._names:
                    raise RefusedGlobalError(full)
                stack.append(self._names[full])
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                if not isinstance(stack[-1], Omitted):
                    stack.append(_call(stack.pop(), arguments))
            case "BUILD":  # state beside the content: notes of a state dict, and of what is omitted
                stack.pop()
                if not isinstance(stack[-1], (dict, Omitted)):
                    raise ValueError(f"its pickle sets the state of {_kind(stack[-1])}")
            case _:
                raise ValueError(f"its pickle uses {name}, which no file of weights needs")

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Omitted):
            raise ValueError(f"its pickle appends to {_kind(target)}")

    def _update(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Omitted):
            return
        if not isinstance(target, dict) or len(pairs) % 2:
            raise ValueError(f"its pickle sets entries of {_kind(target)}")
        for key in pairs[::2]:
            if not isinstance(key, str) and not (isinstance(key, int) and abs(key) <= _LARGEST_KEY):
                raise ValueError(
                    f"its pickle has a key of {_kind(key)}, expected a text or a number below 2^61"
                )
        target.update(zip(pairs[::2], pairs[1::2], strict=True))


def _plain(value: Any) -> Any:
    """A number, text or bytes, unless it is of a kind that only an attack has."""
    if isinstance(value, int) and value.bit_length() > _LARGEST_INTEGER_BITS:
        raise ValueError(f"its pickle holds a number of {value.bit_length()} bits")
    if isinstance(value, str):
        value.encode()  # UnicodeEncodeError, a ValueError, for lone surrogates
    return value


def _call(function: Any, arguments: Any) -> Any:
    if not callable(function) or not isinstance(arguments, tuple):
        raise ValueError(f"its pickle calls {_kind(function)}")
    return function(*arguments)


def _kind(value: Any) -> str:
    return type(value).__name__
