"""How much single layers of a stage lose in 8 bits: a float32 stage with those layers beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnx import ModelProto

from dyninfer.exporters.graphs import GraphBuilder, add_prefix, closed, editable
from dyninfer.exporters.precision.graph import DEQUANTIZE, QUANTIZE, layer_groups
from dyninfer.exporters.precision.joined_maps import is_rounded
from dyninfer.exporters.precision.ranges import StageInputs, open_session
from dyninfer.exporters.precision.settings import Int8Target
from dyninfer.types import AnyArray

_PREFIX = "int8/"
_GATES = "gates"


class _Layer(NamedTuple):
    """A layer of the source, what it makes in a graph of both, and what it makes in 8 bits."""

    layer: ir.Node
    made: ir.Value
    rounded: ir.Value


def own_errors(
    model: ir.Model, quantised: ModelProto, target: Int8Target, inputs: StageInputs
) -> dict[ir.Node, float]:
    """The error that every layer adds by itself, relative to what it makes, as root mean squares.

    Each reads what it reads in float32. A layer is taken with the activation behind it
    (:func:`layer_groups`), and on the CPU with the rounding of what that makes.

    Args:
        model: the stage in float32.
        quantised: the same from ``to_int8``.
        target: of ``quantised``.
        inputs: of one picture.

    Returns:
        The error of every layer that is in 8 bits.
    """
    both, layers = _side_by_side(model, quantised, target)
    if not layers:
        return {}
    builder = GraphBuilder(both.graph, "error")
    sums = []
    for layer in layers:
        error = builder.apply("Sub", layer.rounded, layer.made)
        for value in (error, layer.made):
            sums.append(builder.reshape(builder.apply("ReduceSumSquare", value, keepdims=0), [1]))
    both.graph.outputs[:] = [builder.reshape(builder.concat(sums, 0), [len(layers), 2])]
    both.graph.sort()
    ((errors, sizes),) = (found.T for found in open_session(closed(both)).run(None, dict(inputs)))
    relative = np.sqrt(errors / np.maximum(sizes, np.finfo(np.float32).tiny))
    nodes = (layer.layer for layer in layers)
    return dict(zip(nodes, np.nan_to_num(relative, nan=np.inf).tolist(), strict=True))


def each_alone(
    model: ir.Model,
    quantised: ModelProto,
    target: Int8Target,
    chosen: Sequence[ir.Node],
    inputs: StageInputs,
) -> Iterator[dict[str, AnyArray]]:
    """The stage's outputs with one of the chosen layers in 8 bits, for each of these in turn.

    All of it is one session: what a layer makes is m + gate (r - m), where m is in float32 and r in
    8 bits, and the gate an input.

    Args:
        model: the stage in float32.
        quantised: the same from ``to_int8``.
        target: of ``quantised``.
        chosen: layers that are in 8 bits there.
        inputs: of one picture.
    """
    both, layers = _side_by_side(model, quantised, target)
    gates = ir.val(_GATES, dtype=ir.DataType.FLOAT, shape=ir.Shape([len(chosen)]))
    both.graph.inputs.append(gates)
    builder = GraphBuilder(both.graph, "gated")
    places = {layer.layer: layer for layer in layers}
    for number, node in enumerate(chosen):
        _, made, rounded = places[node]
        readers = made.uses()
        change = builder.apply("Sub", rounded, made)
        change = builder.apply("Mul", change, builder.gather(gates, [number], 0))
        gated = builder.apply("Add", made, change)
        for reader, place in readers:
            reader.replace_input_with(place, gated)
        _hand_on(both.graph, made, gated)
    both.graph.sort()
    session, names = open_session(closed(both)), [str(value.name) for value in both.graph.outputs]
    for row in np.eye(len(chosen), dtype=np.float32):
        found = session.run(names, {**inputs, _GATES: row})
        yield dict(zip(names, found, strict=True))


def _hand_on(graph: ir.Graph, made: ir.Value, gated: ir.Value) -> None:
    """Give out what is gated where a graph gives out what was made."""
    for place, value in enumerate(graph.outputs):
        if value is made:
            gated.name, made.name = made.name, f"{made.name}_exact"
            gated.type, gated.shape = made.type, made.shape
            graph.outputs[place] = gated


def _side_by_side(
    model: ir.Model, quantised: ModelProto, target: Int8Target
) -> tuple[ir.Model, list[_Layer]]:
    """The stage in float32, and beside its layers the same in 8 bits, which read what they do."""
    both, groups = model.clone(), layer_groups(model.graph)
    exact = ir.convenience.create_value_mapping(both.graph, include_subgraphs=False)
    ends = {layer: _end(model.graph, group) for layer, group in groups.items()}
    within = {
        str(value.name)
        for layer, group in groups.items()
        for node in group - {ends[layer]}
        for value in node.outputs
    }
    nodes = _move(both.graph, quantised, lambda name: None if name in within else exact.get(name))
    builder, layers = GraphBuilder(both.graph, "rounded"), []
    for layer, end in ends.items():
        reads = nodes[str(layer.name)].inputs[:2] if str(layer.name) in nodes else ()
        if reads and all(value is not None and is_rounded(value) for value in reads):
            # ONNX Runtime leaves out a ReLU that the range of what it makes stands for
            last = nodes.get(str(end.name), nodes[str(layer.name)])
            made, rounded = exact[str(end.outputs[0].name)], last.outputs[0]
            if target is Int8Target.CPU:  # it rounds what a layer makes, whatever reads it
                rounded = _as_read(builder, rounded, made)
            layers.append(_Layer(layer, made, rounded))
    return both, layers


def _as_read(builder: GraphBuilder, value: ir.Value, like: ir.Value) -> ir.Value:
    """A tensor rounded as another one is, if that is."""
    for node in like.consumers():
        if node.op_type == QUANTIZE:
            scale, zero = node.inputs[1:]
            return builder.apply(
                DEQUANTIZE,
                builder.apply(QUANTIZE, value, scale, zero),
                scale,
                zero,
            )
    return value


def _end(graph: ir.Graph, group: frozenset[ir.Node]) -> ir.Node:
    return [node for node in graph if node in group][-1]


def _move(
    graph: ir.Graph, quantised: ModelProto, source: Callable[[str], ir.Value | None]
) -> dict[str, ir.Node]:
    """Move a quantised stage into a graph; what it rounds is read from ``source``, if that has it.

    Returns:
        Its nodes by the names that they had.
    """
    other = editable(quantised).graph
    nodes = {str(node.name): node for node in other}
    for node in nodes.values():
        value = node.inputs[0] if node.op_type == QUANTIZE else None
        if value is not None and (exact := source(str(value.name))) is not None:
            node.replace_input_with(0, exact)
    for value in other.inputs:
        if (exact := source(str(value.name))) is not None:
            value.replace_all_uses_with(exact)
    add_prefix(other, _PREFIX)
    for name, value in [*other.initializers.items()]:
        del other.initializers[name]
        graph.register_initializer(value)
    other.outputs.clear()
    other.remove(nodes.values())
    graph.extend(nodes.values())
    return nodes
