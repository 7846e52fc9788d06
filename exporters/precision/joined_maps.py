"""Maps that are rounded before they are joined or moved, and not behind.

OpenVINO joins maps of 8 bits, and pools or repeats their values, in 8 bits. A QuantizeLinear
behind that is a pass over the whole map more, and what was rounded before is rounded again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from dyninfer.exporters.graphs import GraphBuilder
from dyninfer.exporters.precision.graph import DEQUANTIZE, QUANTIZE, same_bits

LEAST_SHARE = 0.5
"""Of the range that tensors would share, for one to share it: it loses one of 8 bits at most."""
Range = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
_JOIN, _SPLIT = "Concat", "Split"
_COORDINATES = "coordinate_transformation_mode"
_IN_8_BITS = frozenset({"half_pixel", "pytorch_half_pixel", "asymmetric"})


def shared_ranges(
    graph: ir.Graph, ranges: Mapping[str, Range], chosen: Collection[str]
) -> dict[str, Range]:
    """The range of all of them for tensors that are joined, and for what they are joined to.

    Only for a layer that reads them in 8 bits. Not for a tensor that would lose more than a bit by
    it, nor for a stage's inputs and outputs, which other stages round, too.

    Args:
        graph: a stage, before anything is quantised.
        ranges: lowest and highest value of tensors by name.
        chosen: names of the nodes that will be quantised.

    Returns:
        New ranges, of those tensors that have another one then.
    """
    shared: dict[str, Range] = {}
    for names in _joined(graph, chosen):
        alike = _alike({name: ranges[name] for name in names if name in ranges})
        if len(alike) > 1:
            shared |= dict.fromkeys(alike, _union(alike.values()))
    return shared


def _alike(ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Those that lose at most a bit in the range of all that are left: the narrowest go first."""
    alike = dict(sorted(ranges.items(), key=lambda item: _width([item[1]])))
    for name, own in [*alike.items()]:
        if _width([own]) < LEAST_SHARE * _width(alike.values()):
            del alike[name]
    return alike


def _union(ranges: Iterable[Range]) -> Range:
    """The range of all, with 0, which 8 bits always stand for."""
    zero = np.float32(0)
    lows, highs = zip((zero, zero), *ranges, strict=True)
    return np.array(min(lows)), np.array(max(highs))


def _width(ranges: Iterable[Range]) -> float:
    low, high = _union(ranges)
    return float(high - low)


def _joined(graph: ir.Graph, chosen: Collection[str]) -> list[set[str]]:
    """Sets of names of tensors that are joined to each other or moved before, directly or not."""
    border = {*graph.inputs, *graph.outputs}
    joins: list[ir.Node] = []
    groups: list[set[str]] = []
    for node in reversed(graph):
        made = node.outputs[0]
        read = any(reader.name in chosen or reader in joins for reader in made.consumers())
        if node.op_type != _JOIN or made in border or not read:
            continue
        joins.append(node)
        parts = [value for value in node.inputs if value is not None]
        moved = {made, *(source for part in parts for source in _sources(part))}
        group = {str(value.name) for value in moved - border}
        for known in [known for known in groups if known & group]:
            group |= known
            groups.remove(known)
        groups.append(group)
    return groups


def round_before(graph: ir.Graph) -> None:
    """Move each QuantizeLinear, with what follows it, from behind such nodes to their inputs.

    It stays where anybody else reads what it rounds. What was rounded before it is pooled or
    repeated stays as it is; of what is joined all is to be rounded alike, so that ranges should be
    alike before: see :func:`shared_ranges`.
    """
    builder = GraphBuilder(graph, "rounded before")
    waiting = deque(node for node in graph if node.op_type == QUANTIZE)
    while waiting:
        quantize = waiting.popleft()
        value = quantize.inputs[0]
        maker = None if value is None else value.producer()
        if value is None or maker is None or not _is_alone(quantize, value):
            continue
        places = _to_round(maker, value)
        if places is None:
            continue
        for place in places:
            part = maker.inputs[place]
            assert part is not None  # ONNX's checker has looked
            rounded = _rounded(builder, part, quantize)
            maker.replace_input_with(place, rounded)
            waiting.extend(node for node in part.consumers() if node.op_type == QUANTIZE)
        for restore in [*quantize.outputs[0].consumers()]:
            restore.outputs[0].replace_all_uses_with(value)
            graph.remove(restore, safe=True)
        graph.remove(quantize, safe=True)
    graph.sort()


def is_rounded(value: ir.Value) -> bool:
    """Whether a tensor comes from a DequantizeLinear, at once or by what moves or joins values."""
    maker = _sources(value)[-1].producer()
    if maker is not None and maker.op_type == _JOIN:
        return all(part is not None and is_rounded(part) for part in maker.inputs)
    return maker is not None and maker.op_type == DEQUANTIZE


def _to_round(maker: ir.Node, value: ir.Value) -> Collection[int] | None:
    """Which inputs of a node are to be rounded in place of ``value``, which it makes.

    No input where what it moves was rounded already; None where the rounding has to stay behind it:
    it makes other values, or it splits a tensor whose parts may be rounded in different ways.
    """
    if maker.op_type == _JOIN:
        return range(len(maker.inputs))
    if not _moves(maker):
        return None
    if _rounding(value) is not None:
        return ()
    return None if maker.op_type == _SPLIT else (0,)


def _is_alone(quantize: ir.Node, value: ir.Value) -> bool:
    """Whether a node alone reads a tensor, and others at once make floats of it again."""
    made = quantize.outputs[0]
    behind = [*made.consumers()]
    inner = not any(v.is_graph_output() for v in (value, made, *(n.outputs[0] for n in behind)))
    floats = all(n.op_type == DEQUANTIZE and same_bits(n, quantize) for n in behind)
    return inner and floats and bool(behind) and [*value.consumers()] == [quantize]


def _moves(node: ir.Node) -> bool:
    """Whether a node makes values of those that it reads, in 8 bits where these are.

    OpenVINO pools with gaps, or telling places, and resizes by other coordinates, some of which
    make values of their own, in float32 or not at all.
    """
    of = node.attributes
    if node.op_type == "Resize":
        repeats = of.get_string("mode", "nearest") == "nearest"
        return repeats and of.get_string(_COORDINATES, "half_pixel") in _IN_8_BITS
    if node.op_type == "MaxPool":
        dense = all(step == 1 for step in of.get_ints("dilations", [1]))
        return dense and len(node.outputs) == 1
    return node.op_type == _SPLIT


def _sources(value: ir.Value) -> list[ir.Value]:
    """A tensor, and those whose values it has, moved; the last one is moved from nowhere."""
    found = [value]
    while (maker := found[-1].producer()) is not None and _moves(maker):
        source = maker.inputs[0]
        assert source is not None  # ONNX's checker has looked
        found.append(source)
    return found


def _rounding(value: ir.Value) -> ir.Node | None:
    """What makes floats of the 8 bits that a tensor's values were rounded to, if they were."""
    maker = _sources(value)[-1].producer()
    return maker if maker is not None and maker.op_type == DEQUANTIZE else None


def _rounded(builder: GraphBuilder, part: ir.Value, quantize: ir.Node) -> ir.Value:
    """A tensor rounded as another node does, and in floats again."""
    there = _rounding(part)
    if there is not None and same_bits(there, quantize):
        return part
    alike = (node for node in part.consumers() if node.op_type == QUANTIZE)
    known = [r for node in alike if same_bits(node, quantize) for r in node.outputs[0].consumers()]
    if known:
        return known[0].outputs[0]
    bits = quantize.inputs[1:]
    return builder.apply(DEQUANTIZE, builder.apply(QUANTIZE, part, *bits), *bits)
