"""What of an ONNX file may become far larger than the file before any limit on tensors holds.

ONNX Runtime computes what depends on no input while it opens a file, in memory that the limit of
:mod:`dyninfer.engines.ort.memory` does not cover. It can limit each such value, so their number
must be known. Sparse tensors are filled in without any limit, and text is outside of tensors.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from dyninfer.engines.protobuf import BYTES, VARINT, fields, varint
from dyninfer.errors import EngineBuildError
from dyninfer.foreign_errors import let_through

MAX_NODES = 1_000_000
"""Nodes that calls of functions may become; the largest detectors have some thousands."""
_MAX_DEPTH = 40
_TEXT = 8  # a tensor's type
_SPECIAL = re.compile(rb"string|[\x2a\x32\x52\x5a\xaa\xb2\xba\xd2\xda]")
"""In the bytes of every attribute that holds text, tensors or graphs: the tags of their fields."""
Data = mmap.mmap | bytes
Span = tuple[int, int]


class UnboundedError(ValueError):
    """Nothing tells how much memory a file takes when it is opened."""

    def __init__(self, what: str) -> None:
        super().__init__(f"it has {what}, of which nothing tells how much memory is needed")


def computed_when_opened(data: Data) -> int:
    """The largest number of values that ONNX Runtime may compute while it opens a file.

    Raises:
        UnboundedError: it holds sparse tensors, text, or functions that become too many nodes.
        ValueError: it is no ONNX file.
    """
    graphs, functions = [], {}
    for number, kind, begin, end in fields(data, 0, len(data)):
        if kind == BYTES and number == 7:
            graphs.append((begin, end))
        elif kind == BYTES and number == 25:
            functions[_named(data, (begin, end), 1)] = (begin, end)
    sizes = _sizes_of_functions(data, functions)
    return sum(_count(data, graph, set(), sizes, 0) for graph in graphs)


@contextmanager
def reading(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of an ONNX file, to be looked at.

    Raises:
        EngineBuildError: nothing tells how much memory it takes, or it is no ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except UnboundedError as error:
        raise EngineBuildError(
            f"{path} is not opened: {error}; export it from a model without"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: it is empty
        let_through(error)
        raise EngineBuildError(f"{path} cannot be read as an ONNX file: {error}") from error


def _count(
    data: Data, graph: Span, varying: set[bytes], sizes: dict[bytes, int], depth: int
) -> int:
    """Values of a graph that are computed from constants alone.

    ``varying`` are the names that depend on an input, to which this graph's are added. A node that
    reads what no node before it has made counts as one too: they may stand in any order.
    """
    if depth > _MAX_DEPTH:
        raise UnboundedError(f"graphs within graphs, more than {_MAX_DEPTH} deep")
    nodes, inputs, weights = [], set(), set()
    for number, kind, begin, end in fields(data, *graph):
        if kind != BYTES:
            continue
        if number == 1:
            nodes.append((begin, end))
        elif number == 5:
            weights.add(_tensor(data, (begin, end)))
        elif number == 11:
            inputs.add(_named(data, (begin, end), 1))
        elif number == 15:
            raise UnboundedError("sparse tensors")
    varying |= inputs - weights
    total = 0
    for node in nodes:
        reads, makes, operator, inner = _read_node(data, node)
        # the sizes of a tensor may be known where its values are not
        changes = operator not in (b"Shape", b"Size") and not varying.isdisjoint(reads)
        for body in inner:
            total += _count(data, body, varying, sizes, depth + 1)
        if changes:
            varying.update(makes)
        total += sizes.get(operator, 0 if changes or operator == b"Constant" else 1)
        if total > MAX_NODES:
            raise UnboundedError(f"functions that become more than {MAX_NODES:,} nodes")
    return total


def _read_node(data: Data, node: Span) -> tuple[list[bytes], list[bytes], bytes, list[Span]]:
    """What a node reads and makes, its operator, and the graphs in its attributes."""
    reads, makes, operator = [], [], b""
    inner: list[Span] = []
    attributes: list[Span] = []
    for number, kind, begin, end in fields(data, *node):
        if kind != BYTES:
            continue
        if number == 1:
            reads.append(data[begin:end])
        elif number == 2:
            makes.append(data[begin:end])
        elif number == 4:
            operator = data[begin:end]
        elif number == 5:
            attributes.append((begin, end))
            if _SPECIAL.search(data, begin, end):
                inner += _graphs_of(data, (begin, end))
    casts = operator == b"Cast" and any(_is_text(data, attribute, 3) for attribute in attributes)
    if casts or operator.startswith(b"String") or operator == b"TfIdfVectorizer":
        raise UnboundedError("text")
    if operator == b"ZipMap":
        raise UnboundedError("maps")
    return reads, makes, operator, inner


def _graphs_of(data: Data, attribute: Span) -> Iterator[Span]:
    """The graphs in an attribute, whose tensors are looked at too."""
    for number, kind, begin, end in fields(data, *attribute):
        if kind != BYTES:
            continue
        if number == 1 and b"string" in data[begin:end]:
            raise UnboundedError("text")
        if number in (5, 10):
            _tensor(data, (begin, end))
        elif number in (6, 11):
            yield begin, end
        elif number in (22, 23):
            raise UnboundedError("sparse tensors")


def _tensor(data: Data, tensor: Span) -> bytes:
    """The name of a tensor of numbers."""
    name = b""
    for number, kind, begin, end in fields(data, *tensor):
        if number == 8 and kind == BYTES:
            name = data[begin:end]
    if _is_text(data, tensor, 2):
        raise UnboundedError("text")
    return name


def _is_text(data: Data, message: Span, number: int) -> bool:
    """Whether the field of this number is the type of text."""
    return any(
        found == number and kind == VARINT and varint(data, begin, end)[0] & 0xFFFFFFFF == _TEXT
        for found, kind, begin, end in fields(data, *message)
    )


def _named(data: Data, message: Span, name: int) -> bytes:
    """The last field of this number, as every reader of protobuf takes it."""
    found = b""
    for number, kind, begin, end in fields(data, *message):
        if number == name and kind == BYTES:
            found = data[begin:end]
    return found


def _sizes_of_functions(data: Data, functions: dict[bytes, Span]) -> dict[bytes, int]:
    """How many nodes a call of each function becomes, by the function's name."""
    calls = {name: list(_operators(data, span, 7, 0)) for name, span in functions.items()}
    sizes: dict[bytes, int] = {}

    def size(name: bytes, above: Collection[bytes]) -> int:
        if name in above or len(above) > _MAX_DEPTH:
            raise UnboundedError(f"functions that call each other, more than {_MAX_DEPTH} deep")
        if name not in sizes:
            within = {*above, name}
            sizes[name] = sum(size(n, within) if n in calls else 1 for n in calls[name])
        return sizes[name]

    for name in calls:
        size(name, ())
    return sizes


def _operators(data: Data, graph: Span, nodes: int, depth: int) -> Iterator[bytes]:
    """The operators of a function or graph whose nodes are the fields of this number."""
    if depth > _MAX_DEPTH:
        raise UnboundedError(f"graphs within graphs, more than {_MAX_DEPTH} deep")
    for number, kind, begin, end in fields(data, *graph):
        if kind == BYTES and number == nodes:
            _, _, operator, inner = _read_node(data, (begin, end))
            yield operator
            for body in inner:
                yield from _operators(data, body, 1, depth + 1)
