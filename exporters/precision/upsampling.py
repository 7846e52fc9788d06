"""Nearest neighbours of 8-bit maps, found by copying whole pixels.

ONNX Runtime takes several times as long to resize an 8-bit map as to copy it. Its 8-bit
convolutions have a pixel's channels beside each other, and in that layout a pixel is repeated by
copying all of them at once. What comes out is the same, bit for bit.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from dyninfer.exporters.graphs import GraphBuilder
from dyninfer.exporters.precision.graph import DEQUANTIZE, QUANTIZE, same_bits
from dyninfer.types import AnyArray

LEAST_VALUES = 1 << 18
"""Of a result that is worth it. With those of Dy-YOLOv7, of up to 6.6 million, its second stage
took 0.94 of the time with ONNX Runtime and as long as before with OpenVINO; that of the embedded
model, with 70,000 at most, 0.99 and 1.04."""
_MODES = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}
"""Of a Resize that repeats pixels where its scales are whole numbers, as PyTorch exports it."""


def upsample_by_copies(converted: ir.Graph, prepared: ir.Graph) -> None:
    """Let every Resize of an 8-bit map that only repeats pixels copy them, if there are many.

    Args:
        converted: a stage in 8 bits, changed in place.
        prepared: the stage as it was before, under the same names, with its shapes.
    """
    resized = {node.name: node.inputs[0] for node in prepared if node.op_type == "Resize"}
    for node in [node for node in converted if node.name in resized]:
        value, factors, ends = resized[node.name], _factors(node), _ends(node)
        if value is None or value.shape is None or factors is None or ends is None:
            continue
        sides = [axis for axis in list(value.shape)[1:] if isinstance(axis, int)]
        if len(sides) == 3 and math.prod(sides) * math.prod(factors) >= LEAST_VALUES:
            source, quantizer = ends
            copies = _copies(GraphBuilder(converted, f"{node.name}_copies"), source, sides, factors)
            quantizer.outputs[0].replace_all_uses_with(copies)
            converted.remove([quantizer, node], safe=True)
    converted.sort()


def _factors(node: ir.Node) -> tuple[int, int] | None:
    """How often a Resize repeats rows and columns, if that is all it does."""
    if any(node.attributes.get_string(name, "") != value for name, value in _MODES.items()):
        return None
    scales = _constant(node, 2)
    if scales is None or scales.shape != (4,) or (scales[:2] != 1).any():
        return None
    rows, columns = scales[2:].tolist()
    whole = min(rows, columns) >= 1 and rows.is_integer() and columns.is_integer()
    return (int(rows), int(columns)) if whole else None


def _ends(node: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """The 8-bit map that a node resizes, and what makes 8 bits of the result by the same scale."""
    value, readers = node.inputs[0], [*node.outputs[0].consumers()]
    source = None if value is None else value.producer()
    if source is None or source.op_type != DEQUANTIZE or node.outputs[0].is_graph_output():
        return None
    if len(readers) != 1 or readers[0].op_type != QUANTIZE:
        return None
    (quantizer,), made = readers, source.inputs[0]
    if made is None or quantizer.outputs[0].is_graph_output():
        return None
    return (made, quantizer) if same_bits(source, quantizer) else None


def _constant(node: ir.Node, place: int) -> AnyArray | None:
    value = node.inputs[place] if place < len(node.inputs) else None
    stored = None if value is None else value.const_value
    return None if stored is None else stored.numpy()


def _copies(
    builder: GraphBuilder, source: ir.Value, sides: list[int], factors: tuple[int, int]
) -> ir.Value:
    """A map (N, C, H, W) with its rows and columns repeated."""
    (channels, height, width), (rows, columns) = sides, factors
    pixels = builder.apply("Transpose", source, perm=[0, 2, 3, 1])
    apart = builder.reshape(pixels, [-1, height, 1, width, 1, channels])
    repeated = builder.apply("Expand", apart, builder.constant([1, 1, rows, 1, columns, 1]))
    whole = builder.reshape(repeated, [-1, rows * height, columns * width, channels])
    return builder.apply("Transpose", whole, perm=[0, 3, 1, 2])
