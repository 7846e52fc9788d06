"""Guards before operators that keep far more beside their tensors than in them.

ONNX Runtime's CPU kernels of a few operators collect what they find in containers of C++, which no
limit on tensors covers (:mod:`dyninfer.engines.ort.memory`). How large these get follows from
shapes or values that only a run knows. A model that has such operators is therefore opened with
nodes before each of them that count it: what is too much is an index out of bounds, and ends the
run. They cost microseconds, or nothing where ONNX Runtime can compute them while it opens a model.
"""

from __future__ import annotations

import mmap
import secrets
import struct
from collections.abc import Callable, Mapping
from functools import cached_property

from dyninfer.engines.onnx_growth import UnboundedError
from dyninfer.engines.protobuf import BYTES, VARINT, fields, varint, written
from dyninfer.hardware import usable_cores

GUARD = b" guard of "
"""What the nodes that end a run are called, before the operator."""
Data = mmap.mmap | bytes
Span = tuple[int, int]
_INT64, _FLOAT = 7, 1  # types of tensors
_NODES = {"graph": 1, "function": 7}  # numbers of the fields that hold nodes
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_SHORTEST = 20  # bytes of an attribute that holds a graph with one of the operators
_REFERS = 21  # the field of an attribute that is taken from a function's call


def with_guards(data: Data, allowed: int) -> bytes | None:
    """A model whose operators take at most so many bytes each beside their tensors.

    None where it has no operator that may take far more than its tensors.

    Raises:
        UnboundedError: it is written in a way in which nothing can be counted.
        ValueError: it is no ONNX file.
    """
    prefix = secrets.token_hex(8).encode() + GUARD  # no file can have names of ours
    guards = Guards(data, prefix, allowed)
    kinds = {7: "graph", 25: "function"}

    def part(number: int, span: Span) -> bytes | None:
        content = guards.graph(kinds[number], span) if number in kinds else None
        return None if content is None else written(number, content)

    return guards.changed((0, len(data)), part)


class Node:
    """A node as it is written; its operator is none where it is not one of ONNX Runtime's."""

    def __init__(self, data: Data, span: Span) -> None:
        self._data = data
        self.inputs: list[bytes] = []
        self.attributes: list[Span] = []
        self.operator = domain = ""
        for number, kind, begin, end in fields(data, *span):
            if kind == BYTES and number == 1:
                self.inputs.append(data[begin:end])
            elif kind == BYTES and number == 4:
                self.operator = data[begin:end].decode("utf-8", "replace")
            elif kind == BYTES and number == 7:
                domain = data[begin:end].decode("utf-8", "replace")
            elif kind == BYTES and number == 5:
                self.attributes.append((begin, end))
        if domain not in _DOMAINS:
            self.operator = ""  # a function

    def has(self, place: int) -> bool:
        """Whether this input is given."""
        return place < len(self.inputs) and self.inputs[place] != b""

    @cached_property
    def _values(self) -> Mapping[bytes, Mapping[int, tuple[int, int, int]]]:
        """By attribute and number of field: kind and place of its value."""
        found: dict[bytes, dict[int, tuple[int, int, int]]] = {}
        for attribute in self.attributes:
            parts = {n: (kind, b, e) for n, kind, b, e in fields(self._data, *attribute)}
            _, begin, end = parts.get(1, (0, 0, 0))
            if _REFERS in parts or found.setdefault(self._data[begin:end], parts) is not parts:
                raise UnboundedError(f"a {self.operator} whose attributes are said elsewhere")
        return found

    def whole(self, name: bytes, default: int) -> int:
        """An attribute that is a whole number."""
        kind, begin, end = self._values.get(name, {}).get(3, (None, 0, 0))
        if kind != VARINT:
            return default
        value = varint(self._data, begin, end)[0] & (1 << 64) - 1
        return value - (value >> 63 << 64)

    def real(self, name: bytes, default: float) -> float:
        """An attribute that is a number."""
        _, begin, end = self._values.get(name, {}).get(2, (None, 0, 0))
        return struct.unpack("<f", self._data[begin:end])[0] if end - begin == 4 else default


class Guards:
    """Writes a model anew, with nodes added to it. All names are those of tensors."""

    def __init__(self, data: Data, prefix: bytes, allowed: int) -> None:
        self._data = data
        self._prefix = prefix
        self._allowed = allowed
        self._nodes: list[bytes] = []
        self._made = 0

    def changed(self, span: Span, part: Callable[[int, Span], bytes | None]) -> bytes | None:
        """A message with those fields anew of which ``part`` gives bytes; None if it gave none."""
        parts, copied, before = [], span[0], span[0]
        for number, kind, begin, end in fields(self._data, *span):
            if kind == BYTES and (content := part(number, (begin, end))) is not None:
                parts += [self._data[copied:before], content]
                copied = end
            before = end
        return b"".join([*parts, self._data[copied : span[1]]]) if parts else None

    def graph(self, kind: str, span: Span, states: int | None = None) -> bytes | None:
        """A graph or function with guards; one with so many ``states`` is the body of a loop."""
        nodes = _NODES[kind]
        content = self.changed(span, lambda n, s: self._node(nodes, s) if n == nodes else None)
        if states is None:
            return content
        inputs, outputs = (self._spans(span, number) for number in (11, 12))
        names = self._spans(inputs[0], 1) if inputs else []
        if len(outputs) <= 1 + states or not names:  # of no turn a tensor is kept
            return content
        self._end("Loop", self._data[slice(*names[-1])])
        whole = self._data[slice(*span)] if content is None else content
        return whole + self._added(nodes)

    def _spans(self, span: Span, wanted: int) -> list[Span]:
        found = fields(self._data, *span)
        return [(begin, end) for n, kind, begin, end in found if kind == BYTES and n == wanted]

    def _node(self, field: int, span: Span) -> bytes | None:
        """The fields of a node and of what guards it."""
        node = Node(self._data, span)
        own = self._bodies(node)
        guarded, rule = _RULES.get(node.operator, (-1, None))
        name = b""
        if rule is not None and node.has(guarded) and (count := rule(self, node)) is not None:
            read = node.inputs[guarded]
            shape = self.add("Add", self.add("Shape", read), self._end(node.operator, count))
            name = self.add("Reshape", read, shape)
        if not own and not name:
            return None
        places = iter(range(len(node.inputs)))

        def part(number: int, inner: Span) -> bytes | None:
            if number == 1 and next(places) == guarded and name:
                return written(1, name)
            return own.get(inner) if number == 5 else None

        content = self.changed(span, part)
        assert content is not None  # what is to be written anew is there
        return self._added(field) + written(field, content)

    def _bodies(self, node: Node) -> dict[Span, bytes]:
        """Attributes, as fields, by the place of those whose graphs need guards."""
        states = max(0, len(node.inputs) - 2) if node.operator == "Loop" else None
        if states is not None and sum(len(self._spans(a, 6)) for a in node.attributes) != 1:
            raise UnboundedError("a Loop whose body is said elsewhere")

        def part(number: int, span: Span) -> bytes | None:
            content = self.graph("graph", span, states) if number in (6, 11) else None
            return None if content is None else written(number, content)

        long = [(begin, end) for begin, end in node.attributes if end - begin >= _SHORTEST]
        found = {attribute: self.changed(attribute, part) for attribute in long}
        return {span: written(5, content) for span, content in found.items() if content is not None}

    def _added(self, field: int) -> bytes:
        """The nodes that were added since, as fields of what they are in."""
        nodes, self._nodes = self._nodes, []
        return b"".join(written(field, node) for node in nodes)

    def _end(self, operator: str, count: bytes) -> bytes:
        """Zero for what is allowed; otherwise the run ends."""
        too_many = self.constant(self._allowed // BYTES_EACH[operator] + 1)
        index = self.add("Div", count, too_many)
        return self.add("Gather", self.constant(0, dims=1), index, name=operator.encode())

    def add(
        self,
        operator: str,
        *inputs: bytes,
        name: bytes = b"",
        other: bytes = b"",
        **whole: int,
    ) -> bytes:
        """Add a node with attributes, whole numbers or one as it is written; what it makes."""
        self._made += 1
        output = self._prefix + str(self._made).encode()
        parts = [written(1, each) for each in inputs] + [written(2, output)]
        if name:
            # ONNX Runtime's own rewriting refuses names that two nodes have
            parts.append(written(3, str(self._made).encode() + self._prefix + name))
        parts.append(written(4, operator.encode()) + other)
        for key, value in whole.items():
            parts.append(written(5, written(1, key.encode()) + written(3, value) + written(20, 2)))
        self._nodes.append(b"".join(parts))
        return output

    def constant(self, value: float, dims: int = 0) -> bytes:
        """A tensor of one number, int64 or float32, with no axis or one."""
        kind, layout = (_INT64, "<q") if isinstance(value, int) else (_FLOAT, "<f")
        tensor = dims * written(1, 1) + written(2, kind) + written(9, struct.pack(layout, value))
        attribute = written(1, b"value") + written(5, tensor) + written(20, 4)
        return self.add("Constant", other=written(5, attribute))


def _size(place: int) -> Callable[[Guards, Node], bytes]:
    """Values of an input."""
    return lambda guards, node: guards.add("Size", node.inputs[place])


def _places(guards: Guards, node: Node) -> bytes:
    """Numbers that tell where each value is: its axes."""
    add, read = guards.add, node.inputs[0]
    return add("Mul", add("Size", read), add("Size", add("Shape", read)))


def _selected(guards: Guards, node: Node) -> bytes | None:
    """Boxes that may be selected: of each image and class as many as asked for, or as there are."""
    if not node.has(2):
        return None
    add, most = guards.add, node.inputs[2]
    shape = add("Shape", node.inputs[1])
    images, classes, boxes = (add("Gather", shape, guards.constant(axis)) for axis in range(3))
    each = add("Where", add("Less", boxes, most), boxes, most)
    return add("Mul", add("Mul", images, classes), each)


def _pieces(guards: Guards, node: Node) -> bytes:
    """Tensors of a sequence: as many as are named, or as the axis has places."""
    axis = guards.constant(node.whole(b"axis", 0))
    count = guards.add("Gather", guards.add("Shape", node.inputs[0]), axis)
    if node.has(1):
        count = guards.add("Add", count, guards.add("Size", node.inputs[1]))
    return count


def _plane(guards: Guards, node: Node) -> bytes:
    """Points of a grid for one image; the size is that of a tensor of images."""
    first, last = (guards.constant(place, dims=1) for place in (2, 2**31))
    return guards.add("ReduceProd", guards.add("Slice", node.inputs[1], first, last), keepdims=0)


def _points(guards: Guards, node: Node) -> bytes:
    """Points that are read of one region, in all threads: by its size where they follow from it."""
    height, width = (node.whole(key, 1) for key in (b"output_height", b"output_width"))
    threads, ratio = usable_cores(), node.whole(b"sampling_ratio", 0)
    if ratio > 0:
        return guards.constant(min(abs(ratio * ratio * height * width * threads), 2**62))
    add, constant = guards.add, guards.constant
    row = add("Reshape", add("Cast", node.inputs[1], to=_FLOAT), constant(-1, dims=1))
    row = add("Concat", row, constant(0.0, dims=1), axis=0)  # there may be no region
    largest, smallest = (add(name, row, keepdims=0) for name in ("ReduceMax", "ReduceMin"))
    unless_nan = add("ReduceSum", add("Mul", row, constant(0.0)), keepdims=0)
    extent = add("Add", add("Sub", largest, smallest), unless_nan)
    side = add("Mul", extent, constant(abs(node.real(b"spatial_scale", 1.0))))
    area = add("Mul", *(add("Add", side, constant(1.0 + size)) for size in (height, width)))
    return add("Cast", add("Mul", area, constant(float(threads))), to=_INT64)


_RULES: dict[str, tuple[int, Callable[[Guards, Node], bytes | None]]] = {
    "NonZero": (0, _places),
    "Unique": (0, _size(0)),
    "NonMaxSuppression": (1, _selected),
    "GridSample": (1, _size(1)),
    "AffineGrid": (1, _plane),
    "SplitToSequence": (0, _pieces),
    "RoiAlign": (1, _points),
}
"""Which input of an operator waits for the guard, and what is counted."""
BYTES_EACH = {
    "NonZero": 8,
    "Unique": 256,  # measured: 161, along an axis 209
    "NonMaxSuppression": 72,  # measured: 25; three times that while they are moved
    "GridSample": 32,  # measured: 28
    "AffineGrid": 40,  # measured: 33
    "SplitToSequence": 768,  # measured: 672
    "RoiAlign": 48,
    "Loop": 768,  # a turn of which a tensor is kept; measured: 664
}
"""Bytes that ONNX Runtime takes beside its tensors for each that is counted, at most."""
