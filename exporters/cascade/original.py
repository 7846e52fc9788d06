"""A detector as its author exported it: run in ONNX Runtime, and what its outputs mean, in NumPy.

The yardstick for the decodes written into graphs: written independently of
:mod:`dyninfer.exporters.cascade.decodes`, image by image, so that the two do not share a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources

import numpy as np

from dyninfer.errors import CheckpointError
from dyninfer.exporters.cascade.onnx_file import IMAGE_TYPES, OnnxFile
from dyninfer.exporters.cascade.options import BoxFormat, BoxUnit, Decode, DetectorPlan, Layout
from dyninfer.exporters.graphs import open_model
from dyninfer.foreign_errors import reason_of
from dyninfer.images.pictures import find_images, read_image
from dyninfer.types import AnyArray, Float32Array, Float64Array, ImageArray

Outputs = dict[str, AnyArray]


def sample_photos() -> list[ImageArray]:
    """The photographs that ship with the package, (h, w, 3) uint8 BGR."""
    with resources.as_file(resources.files("dyninfer.demo.assets") / "photos") as folder:
        return [read_image(path) for path in find_images(folder)]


class OriginalDetector:
    """Runs the file itself, with nothing of a bundle around it."""

    def __init__(self, file: OnnxFile, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        self._dtype = np.dtype(IMAGE_TYPES[file.image.elem_type])
        # a file whose batch is fixed at 8 gets 8 copies of an image, and the first row is read
        self._copies = (file.image.shape[0] if file.image.shape else None) or 1
        try:
            self._session = open_model(file.model)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = reason_of(error)
            raise CheckpointError(f"ONNX Runtime cannot open {file.path}: {reason}") from error

    def run(self, image: Float32Array) -> Outputs:
        """Outputs for one prepared image (1, 3, H, W) float32, by name.

        Raises:
            CheckpointError: the detector cannot run on an image of this size.
        """
        tensor = image if self._layout is Layout.NCHW else image.transpose(0, 2, 3, 1)
        tensor = np.ascontiguousarray(np.repeat(tensor, self._copies, 0).astype(self._dtype))
        names = [output.name for output in self._session.get_outputs()]
        try:
            values = self._session.run(names, {self._file.image.name: tensor})
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = reason_of(error)
            height, width = image.shape[2:]
            raise CheckpointError(
                f"{self._file.path} cannot run on an image of {height}x{width}: {reason}; "
                "most detectors want sides that are multiples of 32"
            ) from error
        return {
            name: value[:1] if value.ndim and len(value) == self._copies else value
            for name, value in zip(names, values, strict=True)
        }


Candidates = tuple[Float32Array, Float32Array]
"""Boxes (A, 4) in pixels of the input, and class scores (A, C), of one image."""
_Exact = tuple[Float64Array, Float64Array]


def decode_one(plan: DetectorPlan, outputs: Outputs) -> Candidates:
    """What a detector's outputs for one image mean; scores have the bundle's columns."""
    arrays = [np.asarray(outputs[name], np.float64) for name in plan.tensors]
    boxes, scores = _DECODES[plan.decode](plan, arrays)
    if plan.columns:
        absent = np.zeros((len(scores), 1))
        scores = np.concatenate([scores, absent], 1)[:, plan.columns]
    return boxes.astype(np.float32), scores.astype(np.float32)


def _corners(boxes: Float64Array, kind: BoxFormat) -> Float64Array:
    a, b, c, d = boxes.T
    if kind is BoxFormat.CXCYWH:
        return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], 1)
    if kind is BoxFormat.XYWH:
        return np.stack([a, b, a + c, b + d], 1)
    if kind is BoxFormat.YXYX:
        return np.stack([b, a, d, c], 1)
    return boxes


def _in_pixels(plan: DetectorPlan, boxes: Float64Array) -> Float64Array:
    if plan.boxes is BoxUnit.PIXELS:
        return boxes
    sides = np.array([plan.image.width, plan.image.height] * 2, np.float64)
    return np.multiply(boxes, sides)


def _yolov5(_plan: DetectorPlan, arrays: list[Float64Array]) -> _Exact:
    rows = arrays[0][0]
    return _corners(rows[:, :4], BoxFormat.CXCYWH), rows[:, 5:] * rows[:, 4:5]


def _yolov8(plan: DetectorPlan, arrays: list[Float64Array]) -> _Exact:
    rows = arrays[0][0] if plan.rows_last else arrays[0][0].T
    return _corners(rows[:, :4], BoxFormat.CXCYWH), rows[:, 4:]


def _one_hot(confidences: Float64Array, class_ids: Float64Array, classes: int) -> Float64Array:
    own = class_ids.astype(np.int64)[:, None] == np.arange(classes)
    return np.where(own, confidences[:, None], 0.0)


def _rows(plan: DetectorPlan, arrays: list[Float64Array]) -> _Exact:
    rows = arrays[0][0]
    scores = _one_hot(rows[:, 4], rows[:, 5], plan.classes)
    return _in_pixels(plan, rows[:, :4]), scores


def _end2end(plan: DetectorPlan, arrays: list[Float64Array]) -> _Exact:
    if plan.row_width == 6:
        return _rows(plan, arrays)
    if plan.row_width == 7:
        rows = arrays[0][np.argsort(-arrays[0][:, 6], kind="stable")][: plan.anchors]
        rows = np.concatenate([rows, np.zeros((plan.anchors - len(rows), 7))])
        scores = _one_hot(rows[:, 6], rows[:, 5], plan.classes)
        return _in_pixels(plan, rows[:, 1:5]), scores
    count, boxes, confidences, class_ids = arrays
    kept = np.arange(plan.anchors) < count.reshape(-1)[0]
    scores = _one_hot(confidences[0] * kept, class_ids[0], plan.classes)
    return _in_pixels(plan, _corners(boxes[0], plan.box_format)), scores


def _boxes_scores(plan: DetectorPlan, arrays: list[Float64Array]) -> _Exact:
    boxes = _corners(arrays[0].reshape(-1, 4), plan.box_format)
    return _in_pixels(plan, boxes), arrays[1][0]


def _nanodet(plan: DetectorPlan, arrays: list[Float64Array]) -> _Exact:
    """Li et al., "Generalized Focal Loss", NeurIPS 2020, section 3: sides as expectations."""
    if len(arrays) == 1:
        scores, sides = arrays[0][0, :, : plan.classes], arrays[0][0, :, plan.classes :]
    else:
        scores = np.concatenate([array[0] for array in arrays[::2]])
        sides = np.concatenate([array[0] for array in arrays[1::2]])
    sides = sides.reshape(len(sides), 4, -1)
    weights = np.exp(sides - sides.max(2, keepdims=True))
    expected = (weights * np.arange(sides.shape[2])).sum(2) / weights.sum(2)
    boxes: list[tuple[float, float, float, float]] = []
    for stride in plan.strides:
        for row in range(-(-plan.image.height // stride)):
            for column in range(-(-plan.image.width // stride)):
                left, top, right, bottom = expected[len(boxes)] * stride
                x, y = ((n + plan.cell_offset) * stride for n in (column, row))
                boxes.append((x - left, y - top, x + right, y + bottom))
    return np.array(boxes), scores


_DECODES: Mapping[Decode, Callable[[DetectorPlan, list[Float64Array]], _Exact]] = {
    Decode.YOLOV5: _yolov5,
    Decode.YOLOV8: _yolov8,
    Decode.YOLO_END2END: _end2end,
    Decode.NANODET: _nanodet,
    Decode.DETECTIONS: _rows,
    Decode.BOXES_SCORES: _boxes_scores,
}
