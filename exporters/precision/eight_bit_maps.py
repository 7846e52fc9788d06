"""Feature maps that travel from stage to stage in 8 bits.

Where all who read a map round it to the same 8 bits at once, its maker does so. ONNX Runtime then
computes the same numbers; OpenVINO fuses rounding in other ways, and some may be a step off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
import onnx_ir as ir

from dyninfer.builds.spec import Travelling
from dyninfer.bundle.manifest import EightBits
from dyninfer.exporters.precision.graph import DEQUANTIZE, QUANTISED_INPUTS, QUANTIZE
from dyninfer.types import AnyArray


def maps_in_8_bits(
    maps: Sequence[tuple[str, str]], stages: Mapping[str, ir.Model]
) -> dict[str, EightBits]:
    """Which of these maps, each with a stage that makes it, all readers round so at once."""
    found = {}
    for name in dict.fromkeys(name for _, name in maps):
        makers = (stages[stage].graph for stage, made in maps if made == name)
        made = [value for graph in makers for value in graph.outputs if value.name == name]
        reads = [v for stage in stages.values() for v in stage.graph.inputs if v.name == name]
        uses = {_bits_of(node) for value in reads for node, _ in value.uses()}
        passed_on = any(value.is_graph_output() for value in reads)
        bits = uses.pop() if len(uses) == 1 and not passed_on else None
        if bits is not None and all(value.dtype is ir.DataType.FLOAT for value in made):
            found[name] = EightBits(scale=bits[0], zero_point=bits[1])
    return found


def hand_on(graph: ir.Graph, value: ir.Value, bits: EightBits) -> None:
    """Put the 8 bits of an output in its place: those that are there already, or new ones."""
    name, maker, key = str(value.name), value.producer(), (bits.scale, bits.zero_point)
    value.name = f"{name}_float"
    there = [node.outputs[0] for node, _ in value.uses() if _bits_of(node) == key]
    if maker is not None and _bits_of(maker, DEQUANTIZE) == key:
        there = [source for source in maker.inputs[:1] if source is not None]
    made = there[0] if there else _apply(graph, QUANTIZE, value, bits)
    made.name, made.shape, made.type = name, value.shape, ir.TensorType(ir.DataType.UINT8)
    graph.outputs[graph.outputs.index(value)] = made


def take(value: ir.Value) -> None:
    """Let an input come in the 8 bits that all its readers make of it."""
    value.type = ir.TensorType(ir.DataType.UINT8)
    for node, _ in value.uses():
        node.outputs[0].replace_all_uses_with(value)


def restore(graph: ir.Graph, types: Mapping[str, Travelling]) -> bool:
    """Undo :func:`hand_on` and :func:`take`; whether there was anything to undo."""
    bits = {name: kind for name, kind in types.items() if isinstance(kind, EightBits)}
    reads = [value for value in graph.inputs if value.name in bits]
    makes = [value for value in graph.outputs if value.name in bits]
    for value in reads:
        uses = value.uses()
        value.type = ir.TensorType(ir.DataType.FLOAT)
        rounded = _apply(graph, QUANTIZE, value, bits[str(value.name)])
        for node, place in uses:
            node.replace_input_with(place, rounded)
    for value in makes:
        name = str(value.name)
        value.name = f"{name}_8_bits"
        meant = _float_of(value, f"{name}_float") or _apply(graph, DEQUANTIZE, value, bits[name])
        meant.name, meant.shape, meant.type = name, value.shape, ir.TensorType(ir.DataType.FLOAT)
        graph.outputs[graph.outputs.index(value)] = meant
    if reads or makes:
        graph.sort()
    return bool(reads or makes)


def _float_of(value: ir.Value, name: str) -> ir.Value | None:
    """The output that :func:`hand_on` gave this name, before or behind its 8 bits."""
    maker = value.producer()
    before = () if maker is None else maker.inputs[:1]
    behind = (output for node, _ in value.uses() for output in node.outputs)
    return next((v for v in (*before, *behind) if v is not None and v.name == name), None)


def _apply(graph: ir.Graph, operator: str, value: ir.Value, bits: EightBits) -> ir.Value:
    """A tensor in 8 bits, or what 8 bits mean."""
    names = {v.name for node in graph for v in node.outputs} | {*graph.initializers}
    stems = (f"{value.name}_{operator}_{number}" for number in count())
    stem = next(s for s in stems if names.isdisjoint({s, f"{s}_scale"}))
    numbers: dict[str, AnyArray] = {
        f"{stem}_scale": np.array(bits.scale, np.float32),
        f"{stem}_zero_point": np.array(bits.zero_point, np.uint8),
    }
    constants = [ir.val(n, const_value=ir.tensor(a, name=n)) for n, a in numbers.items()]
    for constant in constants:
        graph.register_initializer(constant)
    node = ir.node(operator, [value, *constants], outputs=[ir.val(stem)], name=stem)
    graph.append(node)
    return node.outputs[0]


def _bits_of(node: ir.Node, kind: str = QUANTIZE) -> tuple[float, int] | None:
    """Scale and zero point of a node of this kind, if it has one of each, for uint8."""
    if node.op_type != kind or len(node.inputs) != QUANTISED_INPUTS:
        return None
    scale, zero_point = (None if v is None else v.const_value for v in node.inputs[1:])
    if scale is None or zero_point is None or scale.size != 1:
        return None
    if zero_point.dtype is not ir.DataType.UINT8 or scale.dtype is not ir.DataType.FLOAT:
        return None
    step = float(scale.numpy().item())
    return (step, int(zero_point.numpy().item())) if 0 < step < math.inf else None
