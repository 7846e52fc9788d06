"""Decodes written into a graph: a detector's own outputs -> boxes_xyxy and class_scores.

Boxes are (N, A, 4) float32, corners in pixels of the input tensor; scores (N, A, C) float32 in
[0, 1] for the bundle's classes. Nothing is suppressed here: the runtime does that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx_ir import DataType, Value

from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Coding,
    DetectorPlan,
    Part,
    Scores,
)
from dyninfer.exporters.graphs import GraphBuilder
from dyninfer.types import Float32Array

Pair = tuple[Value, Value]
"""Boxes and class scores in a graph."""
NOTHING = -10_000.0
"""The logit of what is no detection: its sigmoid is zero in float32."""


def write_decode(graph: GraphBuilder, plan: DetectorPlan, outputs: Mapping[str, Value]) -> Pair:
    """Add the decode of ``plan`` to a graph; ``outputs`` are its tensors as float32, by name.

    Returns:
        The boxes (N, K, 4) and the scores (N, K, classes of the bundle).
    """
    boxes = graph.concat([_read(graph, part, outputs) for part in plan.boxes], axis=2)
    boxes = _corners_in_pixels(graph, plan, boxes)
    if plan.coding is Coding.PEAKS:
        outputs = {**outputs, **_peaks(graph, plan, outputs)}
    scores = _read(graph, plan.scores, outputs)
    if plan.count is not None:
        scores = _first_rows(graph, plan, scores, outputs[plan.count.tensors[0]])
    labels = None if plan.labels is None else _read(graph, plan.labels, outputs)
    if plan.best:
        places = _best_places(graph, plan, scores)
        boxes = _rows_at(graph, plan, boxes, places)
        scores = _rows_at(graph, plan, scores, places, _nothing(plan))
        labels = None if labels is None else _rows_at(graph, plan, labels, places)
    scores = _probabilities(graph, plan, scores)
    if plan.objectness is not None:
        scores = graph.apply("Mul", scores, _read(graph, plan.objectness, outputs))
    if labels is not None:
        scores = _one_hot(graph, scores, labels, plan.class_numbers)
    elif plan.class_numbers != tuple(range(plan.columns)):
        scores = graph.gather(scores, plan.class_numbers, axis=2)
    return _surest(graph, plan, boxes, _reorder_classes(graph, plan, scores))


def _surest(graph: GraphBuilder, plan: DetectorPlan, boxes: Value, scores: Value) -> Pair:
    """The boxes with the largest scores, the largest first, where not all are given on."""
    if plan.rows == plan.anchors:
        return boxes, scores
    best, _ = graph.largest(scores, 1, axis=2)
    _, places = graph.largest(best, plan.rows, axis=1)
    chosen = [graph.apply("GatherND", rows, places, batch_dims=1) for rows in (boxes, scores)]
    return chosen[0], chosen[1]


def _read(graph: GraphBuilder, part: Part, outputs: Mapping[str, Value]) -> Value:
    """A part's columns as (N, A, V), whatever the axes of its outputs are."""
    found = [_rows_of(graph, outputs[name], part.axes) for name in part.tensors]
    rows = graph.concat(found, axis=1)
    return rows if part.stop is None else graph.part(rows, 2, part.start, part.stop)


def _rows_of(graph: GraphBuilder, value: Value, axes: str) -> Value:
    if "1" in axes:
        ones = [place for place, axis in enumerate(axes) if axis == "1"]
        value, axes = graph.apply("Squeeze", value, graph.constant(ones)), axes.replace("1", "")
    if "h" in axes:
        value, axes = graph.reshape(_ordered(graph, value, axes, "nvhw"), [0, 0, -1]), "nva"
    value = _ordered(graph, value, axes, "nav")
    missing = [place for place, axis in enumerate("nav") if axis not in axes]
    return graph.apply("Unsqueeze", value, graph.constant(missing)) if missing else value


def _ordered(graph: GraphBuilder, value: Value, axes: str, wanted: str) -> Value:
    order = [axes.index(axis) for axis in wanted if axis in axes]
    return value if order == sorted(order) else graph.apply("Transpose", value, perm=order)


def _reorder_classes(graph: GraphBuilder, plan: DetectorPlan, scores: Value) -> Value:
    """The bundle's classes in its order; a column of zeros for what the detector lacks."""
    own = len(plan.class_numbers)
    if not plan.bundle_classes or plan.bundle_classes == tuple(range(own)):
        return scores
    if -1 in plan.bundle_classes:
        widths = graph.constant([0, 0, 0, 0, 0, 1])
        scores = graph.apply("Pad", scores, widths)
    places = [own if column < 0 else column for column in plan.bundle_classes]
    return graph.gather(scores, places, axis=2)


def _corners_in_pixels(graph: GraphBuilder, plan: DetectorPlan, boxes: Value) -> Value:
    """Corners x1, y1, x2, y2 in pixels of the input, from however a detector writes boxes."""
    if plan.coding is Coding.DISTANCES:
        return _from_distances(graph, plan, boxes)
    if plan.coding is not Coding.PLAIN:
        boxes = _from_cells(graph, plan, boxes)
    corners = _corners(graph, boxes, plan.box_format)
    if plan.unit is BoxUnit.PIXELS:
        return corners
    sides = np.array([plan.image.width, plan.image.height] * 2, np.float32)
    return graph.scale(corners, sides)


def _corners(graph: GraphBuilder, boxes: Value, kind: BoxFormat) -> Value:
    """(N, A, 4) in any format -> corners x1, y1, x2, y2."""
    if kind in (BoxFormat.YXYX, BoxFormat.CYCXHW):
        boxes = graph.gather(boxes, [1, 0, 3, 2], axis=2)
    if kind in (BoxFormat.XYXY, BoxFormat.YXYX):
        return boxes
    first, second = graph.part(boxes, 2, 0, 2), graph.part(boxes, 2, 2, 4)
    if kind is BoxFormat.XYWH:
        return graph.concat([first, graph.apply("Add", first, second)], axis=2)
    half = graph.scale(second, np.array(0.5, np.float32))
    corners = [graph.apply("Sub", first, half), graph.apply("Add", first, half)]
    return graph.concat(corners, axis=2)


def _from_cells(graph: GraphBuilder, plan: DetectorPlan, boxes: Value) -> Value:
    """Offsets within cells and sizes, as YOLOX and CenterNet give them -> centre and size."""
    centres, strides = cell_centres(plan)
    if plan.box_format is BoxFormat.CYCXHW:
        centres = centres[:, ::-1]
    offsets, sizes = graph.part(boxes, 2, 0, 2), graph.part(boxes, 2, 2, 4)
    centre = graph.apply("Add", graph.scale(offsets, strides), graph.constant(centres))
    if plan.coding is Coding.CELLS or plan.log_sizes:
        sizes = graph.apply("Exp", sizes)
    return graph.concat([centre, graph.scale(sizes, strides)], axis=2)


def _from_distances(graph: GraphBuilder, plan: DetectorPlan, sides: Value) -> Value:
    """Distributions over distances; a side is its expectation times the stride.

    Li et al., "Generalized Focal Loss", NeurIPS 2020, section 3 (as in NanoDet).
    """
    shares = graph.apply("Softmax", graph.reshape(sides, [0, plan.anchors * 4, plan.bins]), axis=2)
    bins = graph.constant(np.arange(plan.bins, dtype=np.float32)[:, None])
    cells = graph.reshape(graph.apply("MatMul", shares, bins), [0, plan.anchors, 4])
    centres, strides = cell_centres(plan)
    signed = np.array([-1, -1, 1, 1], np.float32) * strides
    offsets = graph.scale(cells, signed)
    return graph.apply("Add", offsets, graph.constant(np.tile(centres, 2)))


def cell_centres(plan: DetectorPlan) -> tuple[Float32Array, Float32Array]:
    """Centres (A, 2) as x, y in pixels, and strides (A, 1), of all cells row by row."""
    centres, strides = [], []
    for stride in plan.strides:
        rows, columns = (-(-side // stride) for side in (plan.image.height, plan.image.width))
        y, x = np.mgrid[:rows, :columns]
        centres.append((np.stack([x, y], -1).reshape(-1, 2) + plan.cell_offset) * stride)
        strides.append(np.full((rows * columns, 1), stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _peaks(
    graph: GraphBuilder, plan: DetectorPlan, outputs: Mapping[str, Value]
) -> dict[str, Value]:
    """The heatmap with nothing but its peaks: cells that none of their eight neighbours exceeds."""
    (name,) = plan.scores.tensors
    axes = plan.scores.axes
    heat = _ordered(graph, outputs[name], axes, "nvhw")
    around = graph.apply("MaxPool", heat, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    lowest = graph.constant(np.array(_nothing(plan), np.float32))
    peaks = graph.apply("Where", graph.apply("Less", heat, around), lowest, heat)
    return {name: _ordered(graph, peaks, "nvhw", axes)}


def _first_rows(graph: GraphBuilder, plan: DetectorPlan, scores: Value, count: Value) -> Value:
    """Confidences (N, A, 1), zero beyond each image's ``count``."""
    if plan.varies:  # how many rows there are, only a run tells
        ones = graph.apply(
            "Add",
            graph.scale(scores, np.array(0, np.float32)),
            graph.constant(np.array(1, np.float32)),
        )
        places = graph.apply("CumSum", ones, graph.constant(np.array(1)), exclusive=1)
    else:
        places = graph.constant(np.arange(plan.anchors, dtype=np.float32)[:, None])
    valid = graph.apply("Less", places, graph.reshape(count, [-1, 1, 1]))
    return graph.apply("Mul", scores, graph.cast(valid, DataType.FLOAT))


def _best_places(graph: GraphBuilder, plan: DetectorPlan, scores: Value) -> Value:
    """Places (N, A, 1) of the boxes with the highest scores, the highest first."""
    if plan.columns > 1 and plan.labels is None:
        scores, _ = graph.largest(scores, 1, axis=2)
    filled = _filled(graph, plan, scores, _nothing(plan))
    return graph.largest(filled, plan.anchors, axis=1)[1]


def _nothing(plan: DetectorPlan) -> float:
    """The score of what is no detection, before it is made a probability."""
    return NOTHING if plan.score_kind is Scores.LOGITS else 0.0


def _filled(graph: GraphBuilder, plan: DetectorPlan, rows: Value, filling: float) -> Value:
    """Rows (N, A', V) with so many empty ones after them that there are always enough."""
    if not plan.varies:
        return rows
    widths = graph.constant([0, 0, 0, 0, plan.anchors, 0])
    return graph.apply("Pad", rows, widths, graph.constant(np.array(filling, np.float32)))


def _rows_at(
    graph: GraphBuilder, plan: DetectorPlan, rows: Value, places: Value, filling: float = 0.0
) -> Value:
    rows = _filled(graph, plan, rows, filling)
    return graph.apply("GatherND", rows, places, batch_dims=1)


def _probabilities(graph: GraphBuilder, plan: DetectorPlan, scores: Value) -> Value:
    if plan.score_kind is Scores.LOGITS:
        return graph.apply("Sigmoid", scores)
    if plan.score_kind is Scores.SOFTMAX:
        return graph.apply("Softmax", scores, axis=2)
    return scores


def _one_hot(
    graph: GraphBuilder, confidences: Value, labels: Value, class_numbers: tuple[int, ...]
) -> Value:
    """(N, A, 1) confidences and labels -> (N, A, classes), zero but at the class."""
    numbers = graph.constant(np.array(class_numbers, np.int64))
    same = graph.apply("Equal", graph.cast(labels, DataType.INT64), numbers)
    return graph.apply("Mul", graph.cast(same, DataType.FLOAT), confidences)
