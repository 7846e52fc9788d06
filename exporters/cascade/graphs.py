"""What is done to whole graphs: leaving out what nothing reads, and renaming."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx import AttributeProto, GraphProto, NodeProto


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """The branches and bodies of a node."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of its inner graphs."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from all_nodes(inner)


def _reads(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, inside its inner graphs too."""
    yield from node.input
    for inner in inner_graphs(node):
        for inner_node in inner.node:
            yield from _reads(inner_node)
        yield from (output.name for output in inner.output)


def prune(graph: GraphProto, outputs: Sequence[str]) -> GraphProto:
    """Only what the named outputs need; weights are no inputs."""
    needed, kept = set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(_reads(node))
    weights = {tensor.name for tensor in graph.initializer}
    pruned = GraphProto()
    pruned.CopyFrom(graph)
    for field, values in (
        (pruned.node, list(reversed(kept))),
        (pruned.initializer, [t for t in graph.initializer if t.name in needed]),
        (pruned.input, [v for v in graph.input if v.name not in weights]),
        (pruned.output, [v for v in graph.output if v.name in outputs]),
    ):
        del field[:]
        field.extend(values)
    return pruned


def add_prefix(graph: GraphProto, prefix: str) -> None:
    """Rename every tensor and node, in inner graphs too, which may read tensors of outer ones.

    (``onnx.compose.add_prefix`` leaves out what an inner graph reads from outside.)
    """
    for node in graph.node:
        node.name = prefix + node.name if node.name else ""
        for names in (node.input, node.output):
            names[:] = [prefix + name if name else name for name in names]  # "" is an absent one
        for inner in inner_graphs(node):
            add_prefix(inner, prefix)
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        named.name = prefix + named.name
    for sparse in graph.sparse_initializer:
        sparse.values.name = prefix + sparse.values.name
    del graph.quantization_annotation[:]  # names tensors as well, and no runtime reads it
