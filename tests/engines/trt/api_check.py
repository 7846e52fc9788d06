"""Compares protocols with the libraries that they describe.

A protocol has the name of a library's class and those of its members that are used. Each member
is looked up in a real module, by introspection of what pybind11 wrote into the docstrings.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol


@dataclass(frozen=True)
class Member:
    """A member that code uses; ``parameters`` is None for what is not called."""

    owner: str
    name: str
    parameters: int | None

    @property
    def key(self) -> str:
        return f"{self.owner}.{self.name}"


@dataclass(frozen=True)
class Takes:
    """How many parameters a function takes, without ``self``."""

    least: int
    most: int

    def __contains__(self, count: object) -> bool:
        return isinstance(count, int) and self.least <= count <= self.most


def members(described: ModuleType) -> list[Member]:
    """Every member of every protocol that a module of protocols defines."""
    return [
        member
        for value in vars(described).values()
        if isinstance(value, type)
        and value.__module__ == described.__name__
        and Protocol in value.__mro__
        for member in _of_protocol(value)
    ]


def _of_protocol(protocol: type) -> Iterator[Member]:
    owner = "Module" if protocol.__name__.endswith("Module") else protocol.__name__
    for name in protocol.__annotations__:
        yield Member(owner, name, None)
    for name, value in vars(protocol).items():
        # of all classes' own dunder methods, only those that a protocol writes itself count
        if inspect.isfunction(value) and value.__qualname__ == f"{protocol.__name__}.{name}":
            if name in ("__init__", "__subclasshook__"):
                continue
            yield Member(owner, name, len(inspect.signature(value).parameters) - 1)


def problem_in_module(member: Member, module: ModuleType) -> str | None:
    """What is wrong with a member in a real module; None if it is there and fits."""
    owner: Any = module if member.owner == "Module" else getattr(module, member.owner, None)
    if owner is None:
        return f"{module.__name__} has no class {member.owner}"
    if not hasattr(owner, member.name):
        return f"{module.__name__} has no {member.key}"
    if member.parameters is None:
        return None
    return _fits(member, signatures(getattr(owner, member.name).__doc__ or "", member.name))


def signatures(docstring: str, name: str) -> list[Takes]:
    """The signatures that pybind11 writes at the start of a docstring, one for each overload."""
    found = re.findall(rf"^(?:\d+\. )?{re.escape(name)}\((.*)\)(?: -> .*)?$", docstring, re.M)
    return [_takes(text) for text in found if text != "*args, **kwargs"]


def _takes(parameters: str) -> Takes:
    """How many parameters ``self: A, b: C[D, E], f: G = h`` is."""
    depth, parts, current = 0, [], ""
    for letter in parameters:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    parts = [part for part in [*parts, current] if part.strip() and part.strip() not in "*/"]
    parts = [part for part in parts if not re.match(r"\s*self\b", part)]
    return Takes(sum("=" not in part for part in parts), len(parts))


def _fits(member: Member, found: list[Takes]) -> str | None:
    if not found or any(member.parameters in takes for takes in found):
        return None
    takes = " or ".join(f"{t.least} to {t.most}" for t in found)
    return f"{member.key} takes {takes} parameters, the protocol says {member.parameters}"


def attributes_used(path: Path, base: str) -> set[str]:
    """Names after ``base.`` in a source file, for example of functions of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == base
    }


def calls_of(path: Path, functions: set[str]) -> list[int]:
    """Lines of a source file that call one of these builtin functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in functions
    ]
