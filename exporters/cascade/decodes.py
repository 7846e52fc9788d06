"""Decodes written into a graph: a detector's own outputs -> boxes_xyxy and class_scores.

Boxes are (N, A, 4) float32, corners in pixels of the input tensor; scores (N, A, C) float32 in
[0, 1] for the detector's own classes. Nothing is suppressed here: the runtime does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx_ir import DataType, Value

from dyninfer.exporters.cascade.options import BoxFormat, BoxUnit, Decode, DetectorPlan
from dyninfer.exporters.graphs import GraphBuilder
from dyninfer.types import Float32Array

Pair = tuple[Value, Value]
"""Boxes and class scores in a graph."""


def write_decode(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    """Add the decode of ``plan`` to a graph; ``outputs`` are its tensors as float32.

    Returns:
        The boxes (N, A, 4) and the scores (N, A, classes of the bundle).
    """
    boxes, scores = _DECODES[plan.decode](graph, plan, outputs)
    return boxes, _reorder_classes(graph, plan, scores)


def _reorder_classes(graph: GraphBuilder, plan: DetectorPlan, scores: Value) -> Value:
    """The bundle's classes in its order; a column of zeros for what the detector lacks."""
    if not plan.columns or plan.columns == tuple(range(plan.classes)):
        return scores
    if -1 in plan.columns:
        widths = graph.constant([0, 0, 0, 0, 0, 1])
        scores = graph.apply("Pad", scores, widths)
    places = [plan.classes if column < 0 else column for column in plan.columns]
    return graph.gather(scores, places, axis=2)


def _corners(graph: GraphBuilder, boxes: Value, kind: BoxFormat) -> Value:
    """(N, A, 4) in any format -> corners x1, y1, x2, y2."""
    if kind is BoxFormat.XYXY:
        return boxes
    if kind is BoxFormat.YXYX:
        return graph.gather(boxes, [1, 0, 3, 2], axis=2)
    first, second = graph.part(boxes, 2, 0, 2), graph.part(boxes, 2, 2, 4)
    if kind is BoxFormat.XYWH:
        return graph.concat([first, graph.apply("Add", first, second)], axis=2)
    half = graph.scale(second, np.array(0.5, np.float32))
    corners = [graph.apply("Sub", first, half), graph.apply("Add", first, half)]
    return graph.concat(corners, axis=2)


def _in_pixels(graph: GraphBuilder, plan: DetectorPlan, boxes: Value) -> Value:
    if plan.boxes is BoxUnit.PIXELS:
        return boxes
    sides = np.array([plan.image.width, plan.image.height] * 2, np.float32)
    return graph.scale(boxes, sides)


def _yolov5(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    """Centre, size, objectness, class probabilities: (N, A, 5 + C)."""
    rows = outputs[0]
    boxes = _corners(graph, graph.part(rows, 2, 0, 4), BoxFormat.CXCYWH)
    scores = graph.part(rows, 2, 5, 5 + plan.classes)
    return boxes, graph.apply("Mul", scores, graph.part(rows, 2, 4, 5))


def _yolov8(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    """Centre, size, class probabilities: (N, 4 + C, A) or (N, A, 4 + C)."""
    rows = outputs[0] if plan.rows_last else graph.apply("Transpose", outputs[0], perm=[0, 2, 1])
    boxes = _corners(graph, graph.part(rows, 2, 0, 4), BoxFormat.CXCYWH)
    return boxes, graph.part(rows, 2, 4, 4 + plan.classes)


def _one_hot(graph: GraphBuilder, confidences: Value, class_ids: Value, classes: int) -> Value:
    """(N, A, 1) confidences and class numbers -> (N, A, classes), zero but at the class."""
    numbers = graph.constant(np.arange(classes, dtype=np.int64))
    same = graph.apply("Equal", graph.cast(class_ids, DataType.INT64), numbers)
    return graph.apply("Mul", graph.cast(same, DataType.FLOAT), confidences)


def _rows(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    """(N, K, 6): corners, confidence, class."""
    rows = outputs[0]
    boxes = _in_pixels(graph, plan, graph.part(rows, 2, 0, 4))
    confidences, class_ids = graph.part(rows, 2, 4, 5), graph.part(rows, 2, 5, 6)
    return boxes, _one_hot(graph, confidences, class_ids, plan.classes)


def _end2end(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    if plan.row_width == 6:
        return _rows(graph, plan, outputs)
    return _rows_of_one(graph, plan, outputs) if plan.row_width else _four(graph, plan, outputs)


def _rows_of_one(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    """(D, 7): batch, corners, class, confidence; the surest A rows, filled up with zeros."""
    nothing = graph.constant(np.zeros((plan.anchors, 7), np.float32))
    rows = graph.concat([outputs[0], nothing], axis=0)
    confidences = graph.reshape(graph.part(rows, 1, 6, 7), [-1])
    top = graph.largest(confidences, plan.anchors)
    rows = graph.reshape(graph.apply("Gather", rows, top, axis=0), [1, plan.anchors, 7])
    boxes = _in_pixels(graph, plan, graph.part(rows, 2, 1, 5))
    confidence, class_id = graph.part(rows, 2, 6, 7), graph.part(rows, 2, 5, 6)
    return boxes, _one_hot(graph, confidence, class_id, plan.classes)


def _four(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    """Count (N, 1), boxes (N, A, 4), confidences and classes (N, A): the first ``count`` rows."""
    count, boxes, confidences, class_ids = outputs
    places = graph.constant(np.arange(plan.anchors, dtype=np.float32))
    valid = graph.apply("Less", places, graph.reshape(count, [-1, 1]))
    kept = graph.apply("Mul", confidences, graph.cast(valid, DataType.FLOAT))
    columns = [graph.reshape(value, [0, plan.anchors, 1]) for value in (kept, class_ids)]
    boxes = _in_pixels(graph, plan, _corners(graph, boxes, plan.box_format))
    return boxes, _one_hot(graph, columns[0], columns[1], plan.classes)


def _boxes_scores(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    """Boxes (N, A, 4) or (N, A, 1, 4), and class scores (N, A, C)."""
    boxes = graph.reshape(outputs[0], [0, plan.anchors, 4])
    return _in_pixels(graph, plan, _corners(graph, boxes, plan.box_format)), outputs[1]


def _nanodet(graph: GraphBuilder, plan: DetectorPlan, outputs: Sequence[Value]) -> Pair:
    """Class scores and distributions over distances; a side is its expectation times the stride.

    Li et al., "Generalized Focal Loss", NeurIPS 2020, section 3 (as in NanoDet).
    """
    if len(outputs) == 1:
        scores = graph.part(outputs[0], 2, 0, plan.classes)
        sides = graph.part(outputs[0], 2, plan.classes, plan.classes + 4 * plan.bins)
    else:
        scores, sides = (graph.concat(outputs[start::2], axis=1) for start in (0, 1))
    shares = graph.apply("Softmax", graph.reshape(sides, [0, plan.anchors * 4, plan.bins]), axis=2)
    bins = graph.constant(np.arange(plan.bins, dtype=np.float32)[:, None])
    cells = graph.reshape(graph.apply("MatMul", shares, bins), [0, plan.anchors, 4])
    centres, strides = cell_centres(plan)
    signed = np.array([-1, -1, 1, 1], np.float32) * strides
    offsets = graph.scale(cells, signed)
    return graph.apply("Add", offsets, graph.constant(np.tile(centres, 2))), scores


def cell_centres(plan: DetectorPlan) -> tuple[Float32Array, Float32Array]:
    """Centres (A, 2) as x, y in pixels, and strides (A, 1), of all cells row by row."""
    centres, strides = [], []
    for stride in plan.strides:
        rows, columns = (-(-side // stride) for side in (plan.image.height, plan.image.width))
        y, x = np.mgrid[:rows, :columns]
        centres.append((np.stack([x, y], -1).reshape(-1, 2) + plan.cell_offset) * stride)
        strides.append(np.full((rows * columns, 1), stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)


_DECODES: Mapping[Decode, Callable[[GraphBuilder, DetectorPlan, Sequence[Value]], Pair]] = {
    Decode.YOLOV5: _yolov5,
    Decode.YOLOV8: _yolov8,
    Decode.YOLO_END2END: _end2end,
    Decode.NANODET: _nanodet,
    Decode.DETECTIONS: _rows,
    Decode.BOXES_SCORES: _boxes_scores,
}
