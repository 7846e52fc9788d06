"""Changing a stage's graph, and giving it back as a whole model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

from dyninfer.errors import ExportError
from dyninfer.exporters.precision.graph import STANDARD_DOMAINS


def finished(model: ModelProto, source: ModelProto, what: str) -> ModelProto:
    """The converted model with the source's versions, checked; traces of the tools are dropped.

    Raises:
        ExportError: inputs or outputs changed, or ONNX's checker finds a fault.
    """
    used = {node.domain for node in model.graph.node}
    opsets = [o for o in model.opset_import if o.domain in STANDARD_DOMAINS or o.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.ir_version = source.ir_version
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    del model.metadata_props[:]
    del model.graph.value_info[:]
    _drop_unused(model.graph)
    _check_borders(model, source, what)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"a stage cannot be written in {what}: {reason}") from None
    return model


def _drop_unused(graph: GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    for subgraph in _subgraphs(graph):
        used |= {name for node in subgraph.node for name in node.input}
        used |= {value.name for value in subgraph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + [*attribute.graphs]:
                yield inner
                yield from _subgraphs(inner)


def _check_borders(model: ModelProto, source: ModelProto, what: str) -> None:
    def border(graph: GraphProto) -> list[tuple[str, int]]:
        return [(v.name, v.type.tensor_type.elem_type) for v in (*graph.input, *graph.output)]

    found, expected = border(model.graph), border(source.graph)
    if found != expected:
        raise ExportError(
            f"a stage in {what} would have other inputs or outputs ({found}) than in float32 "
            f"({expected}); keep it in fp32"
        )


def part_outputs(model: ModelProto) -> dict[str, str]:
    """Put a node that passes its input on before every output, named ``<output>_out``.

    Converters treat outputs like any tensor inside: one rounds an output that a kept node makes and
    leaves an output's readers with the wrong type, the other quantises an output because somebody
    inside reads it. Behind these nodes they do neither.

    Returns:
        Output -> the name that its tensor has inside now.
    """
    graph = model.graph
    inside = {}
    for value in graph.output:
        inner = f"{value.name}_inside"
        rename(graph, value.name, inner)
        graph.node.append(
            helper.make_node("Identity", [inner], [value.name], name=f"{value.name}_out")
        )
        graph.value_info.add().CopyFrom(value)
        graph.value_info[-1].name = inner
        inside[value.name] = inner
    return inside


def bypass(
    graph: GraphProto, makers: Mapping[str, NodeProto], node: NodeProto, source: str, output: str
) -> None:
    """Let ``source`` be ``output``, which ``node`` made before."""
    if source not in makers:  # an input or a constant, which keeps its name
        node.CopyFrom(helper.make_node("Identity", [source], [output], name=node.name))
        return
    graph.node.remove(node)
    rename(graph, source, output)


def rename(graph: GraphProto, old: str, new: str) -> None:
    """Give a tensor another name wherever it is made or read."""
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new


def drop_unread(graph: GraphProto, op_types: Collection[str]) -> None:
    """Remove nodes of these types whose outputs nobody reads, from the end to the start."""
    read = {name for node in graph.node for name in node.input}
    read |= {value.name for value in graph.output}
    for node in reversed(graph.node):
        if node.op_type in op_types and not read.intersection(node.output):
            graph.node.remove(node)
            read = {name for other in graph.node for name in other.input}
            read |= {value.name for value in graph.output}
