"""Reading a pickle without unpickling: opcodes of plain data, and names from a closed table."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# arrays beside the weights stand in the pickle; without them, checkpoints have below one million
LARGEST_PICKLE = 256 << 20  # bytes
MOST_OPCODES = 8 << 20
_LONGEST_NAME = 200  # characters of a global's name that are shown
_LARGEST_INTEGER_BITS = 128  # of seeds, and of nothing larger
# dict keys up to here have a hash of their own; larger ones can all be given the same
_LARGEST_KEY = (1 << 61) - 2
_LITERALS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINSTRING"),
        *("SHORT_BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
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


class RefusedGlobalsError(ValueError):
    """A pickle names classes or functions that nothing may stand for; each as ``module.name``."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


@dataclass(frozen=True)
class Omitted:
    """Stands where something was left out of what a pickle holds: a value of this class."""

    name: str


def read_pickle(data: bytes, named: Callable[[str], Any], persistent: Callable[[Any], Any]) -> Any:
    """What a pickle of protocol 2, which ``torch.save`` writes, to 5 holds.

    Nothing is imported: numbers, texts, lists, tuples and dicts are made here, and all else is
    what ``named`` gives. Entries of dicts are left out whose key is no text and no whole number.

    Args:
        data: the pickle, of at most :data:`LARGEST_PICKLE` bytes and :data:`MOST_OPCODES` steps.
        named: ``module.name`` -> what stands for it: an :class:`Omitted`, which takes whatever
            the file does with it, a function, which must expect any arguments, or None, by which
            it is refused.
        persistent: makes the object of a persistent id.

    Raises:
        RefusedGlobalsError: it names what is refused; the names are those of the whole pickle.
        ValueError: it is damaged, too large, or holds what such a file has no use for.
    """
    if len(data) > LARGEST_PICKLE:
        raise ValueError(f"its pickle has {len(data)} bytes, expected at most {LARGEST_PICKLE}")
    machine = _Machine(named, persistent)
    try:
        content = machine.run(data)
    except (IndexError, KeyError) as error:
        machine.check_names()
        raise ValueError(f"its pickle reads what it has not stored ({error})") from None
    except ValueError:
        machine.check_names()
        raise
    machine.check_names()
    return content


class _Machine:
    """A stack, its marks and a memo, as the format has them (see :mod:`pickletools`)."""

    def __init__(self, named: Callable[[str], Any], persistent: Callable[[Any], Any]) -> None:
        self._named, self._persistent = named, persistent
        self._refused: dict[str, None] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """All opcodes; the content."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name == "STOP":
                return self._stack.pop()
            if count == MOST_OPCODES:
                raise ValueError(f"its pickle has more than {MOST_OPCODES} steps")
            self.step(opcode.name, argument)
        raise ValueError("its pickle has no end")

    def check_names(self) -> None:
        """Refuse what the opcodes so far have named without leave."""
        if self._refused:
            raise RefusedGlobalsError(list(self._refused))

    def _global(self, name: str) -> Any:
        """What stands for a name; something that is refused is read over first, to name all."""
        found = self._named(name)
        if found is None:
            found = Omitted(name[:_LONGEST_NAME])
            self._refused[found.name] = None
        return found

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
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "POP":
            stack.pop()
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
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
            case "EMPTY_SET":
                stack.append(Omitted("set"))
            case "FROZENSET":
                self._pop_to_mark()
                stack.append(Omitted("frozenset"))
            case "ADDITEMS":
                self._extend(self._pop_to_mark())
            case "GLOBAL":
                stack.append(self._global(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                last, module = stack.pop(), stack.pop()
                if not isinstance(last, str) or not isinstance(module, str):
                    raise ValueError(f"its pickle names a global by {_kind(last)}")
                stack.append(self._global(f"{module}.{last}"))
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                if not isinstance(stack[-1], Omitted):
                    stack.append(_call(stack.pop(), arguments))
            case "NEWOBJ" | "NEWOBJ_EX":  # an object of a class, by its arguments (and keywords)
                del stack[-1 if name == "NEWOBJ" else -2 :]
                if not isinstance(stack[-1], Omitted):
                    raise ValueError(f"its pickle makes an object of {_kind(stack[-1])}")
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
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, int) and abs(key) > _LARGEST_KEY:
                raise ValueError(f"its pickle has the key {key}, expected numbers below 2^61")
            if isinstance(key, (str, int)):
                target[key] = value


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
