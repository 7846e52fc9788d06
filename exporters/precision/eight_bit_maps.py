"""Feature maps that travel from stage to stage in 8 bits.

Where all who read a map round it to the same 8 bits at once, its maker does so. ONNX Runtime then
computes the same numbers; OpenVINO fuses rounding in other ways, and some may be a step off.

Their channels are last, as in the 8-bit convolutions of both libraries: a pass over the map less
where it is made, and one where it is read.
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

_TRANSPOSE = "Transpose"
_CHANNELS_LAST, _CHANNELS_SECOND = (0, 2, 3, 1), (0, 3, 1, 2)


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
        passed_on = any(value.is_graph_output() for value in _with_copies(reads))
        bits = uses.pop() if len(uses) == 1 and not passed_on else None
        if bits is not None and all(value.dtype is ir.DataType.FLOAT for value in made):
            found[name] = EightBits(scale=bits[0], zero_point=bits[1], channels_last=True)
    return found


def _with_copies(values: Sequence[ir.Value]) -> list[ir.Value]:
    """Tensors, their 8 bits and what is made of these at once."""
    bits = [made for value in values for node in value.consumers() for made in node.outputs]
    floats = [made for value in bits for node in value.consumers() for made in node.outputs]
    return [*values, *bits, *floats]


def hand_on(graph: ir.Graph, value: ir.Value, bits: EightBits) -> None:
    """Put the 8 bits of an output in its place: those that are there already, or new ones."""
    name, maker, key = str(value.name), value.producer(), (bits.scale, bits.zero_point)
    value.name = f"{name}_float"
    there = [node.outputs[0] for node, _ in value.uses() if _bits_of(node) == key]
    if maker is not None and _bits_of(maker, DEQUANTIZE) == key:
        there = [source for source in maker.inputs[:1] if source is not None]
    made = there[0] if there else _apply(graph, QUANTIZE, value, bits)
    made.shape, made.type = value.shape, ir.TensorType(ir.DataType.UINT8)
    if bits.channels_last:
        made = _turned(graph, made, _CHANNELS_LAST)
    made.name = name
    graph.outputs[graph.outputs.index(value)] = made


def take(graph: ir.Graph, value: ir.Value, bits: EightBits) -> None:
    """Let an input come in the 8 bits that all its readers make of it."""
    value.type = ir.TensorType(ir.DataType.UINT8)
    readers: list[tuple[ir.Node, int]] = []
    for rounder in [*value.consumers()]:
        readers += rounder.outputs[0].uses()
        rounder.outputs[0].replace_all_uses_with(value)
        graph.remove(rounder, safe=True)
    if bits.channels_last:
        value.shape = _shape(value, _CHANNELS_LAST)
        for node, place in readers:
            _turn_back(graph, node, place)


def _turn_back(graph: ir.Graph, node: ir.Node, place: int) -> None:
    """Let a node read the channels of a map where they were; OpenVINO takes that behind floats."""
    if node.op_type != DEQUANTIZE:
        value = node.inputs[place]
        assert value is not None
        node.replace_input_with(place, _turned(graph, value, _CHANNELS_SECOND))
        return
    floats, uses = node.outputs[0], node.outputs[0].uses()
    floats.shape = _shape(floats, _CHANNELS_LAST)
    planes = _turned(graph, floats, _CHANNELS_SECOND)
    for reader, where in uses:
        reader.replace_input_with(where, planes)


def restore(graph: ir.Graph, types: Mapping[str, Travelling]) -> bool:
    """Undo :func:`hand_on` and :func:`take`; whether there was anything to undo."""
    bits = {name: kind for name, kind in types.items() if isinstance(kind, EightBits)}
    reads = [value for value in graph.inputs if value.name in bits]
    makes = [value for value in graph.outputs if value.name in bits]
    for value in reads:
        _take_floats(graph, value, bits[str(value.name)])
    for value in makes:
        _hand_on_floats(graph, value, bits[str(value.name)])
    if reads or makes:
        graph.sort()
    return bool(reads or makes)


def _take_floats(graph: ir.Graph, value: ir.Value, bits: EightBits) -> None:
    uses = value.uses()
    value.type = ir.TensorType(ir.DataType.FLOAT)
    if bits.channels_last:
        value.shape = _shape(value, _CHANNELS_SECOND)
    rounded = _apply(graph, QUANTIZE, value, bits)
    for node, place in uses:
        node.replace_input_with(place, rounded)
    for node in [node for node, _ in uses if bits.channels_last]:
        for turn in node.outputs[0].consumers() if node.op_type == DEQUANTIZE else [node]:
            (source,), (planes,) = turn.inputs, turn.outputs
            assert source is not None
            source.shape, source.type = planes.shape, planes.type
            planes.replace_all_uses_with(source)


def _hand_on_floats(graph: ir.Graph, value: ir.Value, bits: EightBits) -> None:
    name, made = str(value.name), value
    value.name = f"{name}_8_bits"
    if bits.channels_last:
        maker = value.producer()
        turned = None if maker is None or maker.op_type != _TRANSPOSE else maker.inputs[0]
        made = turned or _turned(graph, value, _CHANNELS_SECOND)
    meant = _float_of(made, f"{name}_float") or _apply(graph, DEQUANTIZE, made, bits)
    meant.name, meant.shape, meant.type = name, made.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.outputs[graph.outputs.index(value)] = meant


def _float_of(value: ir.Value, name: str) -> ir.Value | None:
    """The output that :func:`hand_on` gave this name, before or behind its 8 bits."""
    maker = value.producer()
    before = () if maker is None else maker.inputs[:1]
    behind = (output for node, _ in value.uses() for output in node.outputs)
    return next((v for v in (*before, *behind) if v is not None and v.name == name), None)


def _apply(graph: ir.Graph, operator: str, value: ir.Value, bits: EightBits) -> ir.Value:
    """A tensor in 8 bits, or what 8 bits mean."""
    stem = _unused(graph, f"{value.name}_{operator}")
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


def _turned(graph: ir.Graph, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """A map with its axes in another order."""
    stem = _unused(graph, f"{value.name}_{_TRANSPOSE}")
    turned = ir.val(stem, type=value.type, shape=_shape(value, axes))
    graph.append(ir.node(_TRANSPOSE, [value], {"perm": axes}, outputs=[turned], name=stem))
    return turned


def _shape(value: ir.Value, axes: Sequence[int]) -> ir.Shape | None:
    """The shape of a tensor with its axes in another order."""
    return None if value.shape is None else ir.Shape([value.shape[axis] for axis in axes])


def _unused(graph: ir.Graph, stem: str) -> str:
    """A name that begins so, for a node and what it makes and reads."""
    names = {v.name for node in graph for v in node.outputs} | {*graph.initializers}
    stems = (f"{stem}_{number}" for number in count())
    return next(s for s in stems if names.isdisjoint({s, f"{s}_scale"}))


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
