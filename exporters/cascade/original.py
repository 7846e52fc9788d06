"""A detector as its author exported it: run in ONNX Runtime, and what its outputs mean, in NumPy.

The yardstick for the decodes written into graphs: written independently of
:mod:`dyninfer.exporters.cascade.decodes`, image by image, so that the two do not share a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import resources

import numpy as np

from dyninfer.errors import CheckpointError
from dyninfer.exporters.cascade.onnx_file import IMAGE_TYPES, OnnxFile
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Coding,
    DetectorPlan,
    Layout,
    Part,
    Scores,
)
from dyninfer.exporters.cascade.ports import port, size_input
from dyninfer.exporters.graphs import ANY_PIXELS, open_model
from dyninfer.images.folders import find_images
from dyninfer.images.pictures import read_image
from dyninfer.types import AnyArray, Float32Array, Float64Array, ImageArray

Outputs = dict[str, AnyArray]


def sample_photos() -> list[ImageArray]:
    """The photographs that ship with the package, (h, w, 3) uint8 BGR."""
    with resources.as_file(resources.files("dyninfer.demo.assets") / "photos") as folder:
        return [read_image(path) for path in find_images(folder)]


class OriginalDetector:
    """Runs the file itself, with nothing of a bundle around it.

    Its tensors may take the memory that images of so many ``pixels`` need.
    """

    def __init__(self, file: OnnxFile, layout: Layout, pixels: int = ANY_PIXELS) -> None:
        self.file = file
        self._layout = layout
        self._dtype = np.dtype(IMAGE_TYPES[file.image.elem_type])
        self._flat = len(file.image.shape or "four") == 3  # one image, without an axis for more
        # a file whose batch is fixed at 8 gets 8 copies of an image, and the first row is read
        fixed = file.image.shape[0] if file.image.shape and not self._flat else None
        self._copies = fixed or 1
        self.declared = {o.name: port(o).shape or () for o in file.model.graph.output}
        try:
            self._session = open_model(file.model, pixels * self._copies)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = _told(error)
            raise CheckpointError(f"ONNX Runtime cannot open {file.path}: {reason}") from error

    def run(self, image: Float32Array) -> Outputs:
        """Outputs for one prepared image (1, 3, H, W) float32, by name.

        Raises:
            CheckpointError: the detector cannot run on an image of this size.
        """
        tensor = image if self._layout is Layout.NCHW else image.transpose(0, 2, 3, 1)
        tensor = np.ascontiguousarray(np.repeat(tensor, self._copies, 0).astype(self._dtype))
        sizes = {p.name: size_input(p, *image.shape[2:]) for p in self.file.sizes}
        feed = {self.file.image.name: tensor[0] if self._flat else tensor, **sizes}
        names = [output.name for output in self._session.get_outputs()]
        try:
            values = self._session.run(names, feed)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = _told(error)
            height, width = image.shape[2:]
            raise CheckpointError(
                f"{self.file.path} cannot run on an image of {height}x{width}: {reason}; "
                "most detectors want sides that are multiples of 32"
            ) from error
        return {
            name: value[:1] if value.ndim and len(value) == self._copies else value
            for name, value in zip(names, values, strict=True)
        }


def _told(error: Exception) -> str:
    from dyninfer.engines.ort.library import told  # no PyTorch export needs it

    return told(error)


Candidates = tuple[Float32Array, Float32Array]
"""Boxes (A, 4) in pixels of the input, and class scores (A, C), of one image."""


def decode_one(plan: DetectorPlan, outputs: Outputs) -> Candidates:
    """What a detector's outputs for one image mean; scores have the bundle's classes.

    These are the detector's own where the plan does not know the bundle's yet.
    """
    boxes = np.concatenate([read_part(part, outputs) for part in plan.boxes], 1)
    boxes = _CODINGS[plan.coding](plan, boxes)
    scores = _peaks(plan, outputs) if plan.coding is Coding.PEAKS else _scores(plan, outputs)
    labels = None if plan.labels is None else read_part(plan.labels, outputs)
    if plan.best:
        best = np.argsort(-scores.max(1, initial=-np.inf), kind="stable")[: plan.anchors]
        fill = [(0, plan.anchors - len(best)), (0, 0)]
        nothing = -np.inf if plan.score_kind is Scores.LOGITS else 0.0
        scores = np.pad(scores[best], fill, constant_values=nothing)
        boxes = np.pad(boxes[best], fill)
        labels = None if labels is None else np.pad(labels[best], fill)
    scores = _probabilities(plan, scores)
    if plan.objectness is not None:
        scores = scores * read_part(plan.objectness, outputs)
    if labels is None:
        scores = scores[:, plan.class_numbers]
    else:
        own = labels.astype(np.int64) == np.array(plan.class_numbers)
        scores = np.where(own, scores, 0.0)
    if plan.bundle_classes:
        absent = np.zeros((len(scores), 1))
        scores = np.concatenate([scores, absent], 1)[:, plan.bundle_classes]
    found = boxes.astype(np.float32), scores.astype(np.float32)
    if plan.rows == plan.anchors:
        return found
    best = np.argsort(-found[1].max(1), kind="stable")[: plan.rows]
    return found[0][best], found[1][best]


def read_part(part: Part, outputs: Outputs) -> Float64Array:
    """A part's numbers (A, V) of one image."""
    rows = []
    for name in part.tensors:
        array = np.asarray(outputs[name], np.float64)
        sizes = dict(zip(part.axes, array.shape, strict=True))
        ones = tuple(place for place, axis in enumerate(part.axes) if axis in "n1")
        axes = part.axes.replace("1", "").replace("n", "")
        array = array.reshape([n for place, n in enumerate(array.shape) if place not in ones])
        if "v" in axes:
            array = np.moveaxis(array, axes.index("v"), -1)
        rows.append(array.reshape(-1, sizes.get("v", 1)))
    return np.concatenate(rows)[:, part.start : part.stop]


def _scores(plan: DetectorPlan, outputs: Outputs) -> Float64Array:
    """Scores (A, V) as the detector gives them, none beyond the number that it found."""
    scores = read_part(plan.scores, outputs)
    if plan.count is None:
        return scores
    valid = np.ravel(outputs[plan.count.tensors[0]])[0]
    return np.where(np.arange(len(scores))[:, None] < valid, scores, 0.0)


def _peaks(plan: DetectorPlan, outputs: Outputs) -> Float64Array:
    """Scores (A, V) of a heatmap where it has a peak."""
    (name,) = plan.scores.tensors
    heat = np.asarray(outputs[name][0], np.float64)
    heat = np.moveaxis(heat, plan.scores.axes.index("v") - 1, 0)
    lowest = 0.0 if plan.score_kind is Scores.PROBABILITIES else -np.inf
    peaks: Float64Array = np.where(_is_peak(heat), heat, lowest).reshape(len(heat), -1)
    return np.asarray(peaks.T)


def _probabilities(plan: DetectorPlan, scores: Float64Array) -> Float64Array:
    if plan.score_kind is Scores.LOGITS:
        return np.asarray(1 / (1 + np.exp(np.minimum(-scores, 700))))
    if plan.score_kind is Scores.SOFTMAX:
        shares = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(shares / shares.sum(1, keepdims=True))
    return scores


def _is_peak(heat: Float64Array) -> AnyArray:
    """Which cells (C, H, W) are not below one of their neighbours."""
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    height, width = heat.shape[1:]
    shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(heat >= np.max(shifted, 0))


def _corners(boxes: Float64Array, kind: BoxFormat) -> Float64Array:
    a, b, c, d = boxes.T
    match kind:
        case BoxFormat.CXCYWH:
            return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], 1)
        case BoxFormat.CYCXHW:
            return np.stack([b - d / 2, a - c / 2, b + d / 2, a + c / 2], 1)
        case BoxFormat.XYWH:
            return np.stack([a, b, a + c, b + d], 1)
        case BoxFormat.YXYX:
            return np.stack([b, a, d, c], 1)
        case BoxFormat.XYXY:
            return boxes


def _plain(plan: DetectorPlan, boxes: Float64Array) -> Float64Array:
    corners = _corners(boxes, plan.box_format)
    if plan.unit is BoxUnit.PIXELS:
        return corners
    return np.multiply(corners, np.array([plan.image.width, plan.image.height] * 2, np.float64))


def _cells(plan: DetectorPlan) -> Iterator[tuple[int, float, float]]:
    """Stride and centre x, y in pixels of every cell, row by row."""
    for stride in plan.strides:
        for row in range(-(-plan.image.height // stride)):
            for column in range(-(-plan.image.width // stride)):
                yield (
                    stride,
                    (column + plan.cell_offset) * stride,
                    (row + plan.cell_offset) * stride,
                )


def _from_cells(plan: DetectorPlan, boxes: Float64Array) -> Float64Array:
    """Ge et al., "YOLOX", 2021; Zhou et al., "Objects as Points", 2019, section 4."""
    found = []
    for (stride, x, y), (a, b, c, d) in zip(_cells(plan), boxes, strict=True):
        if plan.box_format is BoxFormat.CYCXHW:
            a, b, c, d = b, a, d, c
        if plan.coding is Coding.CELLS or plan.log_sizes:
            c, d = np.exp(c), np.exp(d)
        found.append((x + a * stride, y + b * stride, c * stride, d * stride))
    return _corners(np.array(found), BoxFormat.CXCYWH)


def _from_distances(plan: DetectorPlan, sides: Float64Array) -> Float64Array:
    """Li et al., "Generalized Focal Loss", NeurIPS 2020, section 3: sides as expectations."""
    sides = sides.reshape(len(sides), 4, -1)
    weights = np.exp(sides - sides.max(2, keepdims=True))
    expected = (weights * np.arange(sides.shape[2])).sum(2) / weights.sum(2)
    found = []
    for (stride, x, y), distances in zip(_cells(plan), expected, strict=True):
        left, top, right, bottom = distances * stride
        found.append((x - left, y - top, x + right, y + bottom))
    return np.array(found)


_CODINGS: Mapping[Coding, Callable[[DetectorPlan, Float64Array], Float64Array]] = {
    Coding.PLAIN: _plain,
    Coding.CELLS: _from_cells,
    Coding.DISTANCES: _from_distances,
    Coding.PEAKS: _from_cells,
}
