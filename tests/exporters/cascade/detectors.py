"""Tiny ONNX detectors with random weights, in the output formats of well-known ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 32, 64
STRIDES = (8, 16, 32)
CELLS = 32 + 8 + 2
FLOAT, HALF, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


class Sketch:
    """Collects the nodes of a detector; ``images`` is its input, (N, 3, H, W) float32 inside."""

    def __init__(self, seed: int = 0, baked: int | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.outputs: dict[str, tuple[int, Sequence[int | str]]] = {}
        self.rng = np.random.default_rng(seed)
        self.batch = 0 if baked is None else baked  # what Reshapes say of the batch

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.add("Reshape", value, self.constant(np.array(shape, np.int64)))

    def times(self, value: str, *factor: float) -> str:
        return self.add("Mul", value, self.constant(np.array(factor, np.float32)))

    def part(self, value: str, start: int, stop: int) -> str:
        ends = [self.constant(np.array([n], np.int64)) for n in (start, stop, 2)]
        return self.add("Slice", value, *ends)

    def cells(self, width: int, stride: int, anchors: int = 1) -> str:
        """(N, cells * anchors, width) of one level, different for every image and place."""
        weight = self.rng.normal(0, 0.2, (width * anchors, 3, stride, stride)).astype(np.float32)
        size = [stride, stride]
        weights = self.constant(weight / stride)
        convolved = self.add("Conv", "images", weights, kernel_shape=size, strides=size)
        last = self.add("Transpose", self.add("Identity", convolved), perm=[0, 2, 3, 1])
        count = (HEIGHT // stride) * (WIDTH // stride) * anchors
        return self.reshape(last, [self.batch, count, width])

    def levels(self, width: int, anchors: int = 1) -> str:
        parts = [self.cells(width, stride, anchors) for stride in STRIDES]
        return self.add("Concat", *parts, axis=1)

    def centres_and_sizes(self, raw: str) -> str:
        """(N, A, 4) numbers -> boxes inside the image, as centre and size in pixels."""
        return self.times(self.add("Sigmoid", raw), WIDTH, HEIGHT, WIDTH / 2, HEIGHT / 2)

    def corners(self, raw: str) -> str:
        boxes = self.centres_and_sizes(raw)
        centre, half = self.part(boxes, 0, 2), self.times(self.part(boxes, 2, 4), 0.5, 0.5)
        return self.add(
            "Concat", self.add("Sub", centre, half), self.add("Add", centre, half), axis=2
        )

    def output(self, value: str, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> None:
        operator = {} if kind == FLOAT else {"to": kind}
        self.nodes.append(
            helper.make_node("Cast" if operator else "Identity", [value], [name], **operator)
        )
        self.outputs[name] = (kind, shape)

    def save(
        self,
        path: Path,
        *,
        batch: int | str = "batch",
        size: tuple[int | str, int | str] = (HEIGHT, WIDTH),
        layout: str = "nchw",
        image_type: int = FLOAT,
        opset: int = 17,
        metadata: Mapping[str, str] | None = None,
        inputs: Mapping[str, tuple[int, Sequence[int | str]]] | None = None,
    ) -> Path:
        shape = [batch, 3, *size] if layout == "nchw" else [batch, *size, 3]
        value, before = "pictures", []
        if layout == "nhwc":
            before.append(helper.make_node("Transpose", [value], ["first"], perm=[0, 3, 1, 2]))
            value = "first"
        before.append(helper.make_node("Cast", [value], ["images"], to=FLOAT))
        graph = helper.make_graph(
            [*before, *self.nodes],
            "tiny",
            [
                helper.make_tensor_value_info("pictures", image_type, shape),
                *(helper.make_tensor_value_info(n, *more) for n, more in (inputs or {}).items()),
            ],
            [helper.make_tensor_value_info(n, k, list(s)) for n, (k, s) in self.outputs.items()],
            [numpy_helper.from_array(a, name) for name, a in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
        return path


def yolov5(classes: int, seed: int = 0, kind: int = FLOAT, baked: int | None = None) -> Sketch:
    made = Sketch(seed, baked)
    raw = made.levels(5 + classes, anchors=3)
    boxes = made.centres_and_sizes(made.part(raw, 0, 4))
    scores = made.add("Sigmoid", made.part(raw, 4, 5 + classes))
    rows = made.add("Concat", boxes, scores, axis=2)
    made.output(rows, "output0", ["batch", 3 * CELLS, 5 + classes], kind)
    return made


def yolov8(classes: int, seed: int = 0, *, rows_last: bool = False, baked: int | None = None):
    made = Sketch(seed, baked)
    raw = made.levels(4 + classes)
    boxes = made.centres_and_sizes(made.part(raw, 0, 4))
    scores = made.add("Sigmoid", made.part(raw, 4, 4 + classes))
    rows = made.add("Concat", boxes, scores, axis=2)
    if rows_last:
        made.output(rows, "output0", ["batch", CELLS, 4 + classes])
    else:
        columns = made.add("Transpose", rows, perm=[0, 2, 1])
        made.output(columns, "output0", ["batch", 4 + classes, CELLS])
    return made


def of_another_task(task: str, *, rows_last: bool) -> Sketch:
    """Boxes and three scores, and beside them what Ultralytics' models for other tasks give."""
    made = Sketch()
    raw = made.levels(4 + 3 + 6)
    parts = [
        made.centres_and_sizes(made.part(raw, 0, 4)),
        made.add("Sigmoid", made.part(raw, 4, 7)),
    ]
    rest = made.part(raw, 7, 13)
    if task == "classify":
        scores = made.add("ReduceMax", made.levels(20), axes=[1], keepdims=0)
        made.output(made.add("Softmax", scores, axis=1), "output0", ["batch", 20])
        return made
    if task == "segment":
        parts.append(rest)
    elif task == "pose":  # two keypoints, each with how visible it is
        places = made.add("Sigmoid", rest)
        parts.append(made.times(places, WIDTH, HEIGHT, 1, WIDTH, HEIGHT, 1))
    else:
        angle = made.add(
            "Sub",
            made.add("Sigmoid", made.part(raw, 7, 8)),
            made.constant(np.array(0.25, np.float32)),
        )
        parts.append(made.times(angle, np.pi))
    rows = made.add("Concat", *parts, axis=2)
    width = 4 + 3 + (1 if task == "obb" else 6)
    if rows_last:
        made.output(rows, "output0", ["batch", CELLS, width])
    else:
        made.output(made.add("Transpose", rows, perm=[0, 2, 1]), "output0", ["batch", width, CELLS])
    if task == "segment":
        weights = made.constant(made.rng.normal(0, 0.2, (6, 3, 4, 4)).astype(np.float32))
        masks = made.add("Conv", "images", weights, kernel_shape=[4, 4], strides=[4, 4])
        made.output(masks, "output1", ["batch", 6, HEIGHT // 4, WIDTH // 4])
    return made


def nanodet(classes: int, bins: int, seed: int = 0, *, in_one: bool = False) -> Sketch:
    """Per level, the distributions before the scores, the coarsest level first."""
    made = Sketch(seed)
    for stride in reversed(STRIDES):
        raw = made.cells(classes + 4 * bins, stride)
        scores = made.add("Sigmoid", made.part(raw, 0, classes))
        sides = made.times(made.part(raw, classes, classes + 4 * bins), 4)
        count = (HEIGHT // stride) * (WIDTH // stride)
        if not in_one:
            made.output(sides, f"sides_{stride}", ["batch", count, 4 * bins])
            made.output(scores, f"scores_{stride}", ["batch", count, classes])
            continue
        made.add("Concat", scores, sides, axis=2)
    if in_one:
        names = [n.output[0] for n in made.nodes if n.op_type == "Concat"]
        whole = made.add("Concat", *reversed(names), axis=1)
        made.output(whole, "output", ["batch", CELLS, classes + 4 * bins])
    return made


def detections(
    classes: int, seed: int = 0, *, normalised: bool = False, baked: int | None = None
) -> Sketch:
    """(N, K, 6): corners, confidence, class."""
    made = Sketch(seed, baked)
    raw = made.levels(6)
    boxes = made.corners(made.part(raw, 0, 4))
    if normalised:
        boxes = made.times(boxes, *([1 / WIDTH, 1 / HEIGHT] * 2))
    confidence = made.add("Sigmoid", made.part(raw, 4, 5))
    spread = made.times(made.add("Sigmoid", made.part(raw, 5, 6)), classes * 0.999)
    rows = made.add("Concat", boxes, confidence, made.add("Floor", spread), axis=2)
    made.output(rows, "detections", ["batch", CELLS, 6])
    return made


def boxes_scores(classes: int, seed: int = 0, *, form: str = "xyxy", extra_axis: bool = False):
    made = Sketch(seed)
    raw = made.levels(4 + classes)
    centred = made.centres_and_sizes(made.part(raw, 0, 4))
    corners = made.corners(made.part(raw, 0, 4))
    if form == "cxcywh":
        boxes = centred
    elif form == "xywh":
        boxes = made.add("Concat", made.part(corners, 0, 2), made.part(centred, 2, 4), axis=2)
    elif form == "yxyx":
        order = made.constant(np.array([1, 0, 3, 2], np.int64))
        boxes = made.add("Gather", corners, order, axis=2)
    else:
        boxes = corners
    scores = made.add("Sigmoid", made.part(raw, 4, 4 + classes))
    if extra_axis:
        boxes = made.reshape(boxes, [0, CELLS, 1, 4])
    shape: list[int | str] = ["batch", CELLS, *([1] if extra_axis else []), 4]
    made.output(scores, "confs", ["batch", CELLS, classes])
    made.output(boxes, "boxes", shape)
    return made


def end2end_rows(classes: int, seed: int = 0, *, limit: float = 0.5) -> Sketch:
    """(D, 7) with as many rows as have a confidence above ``limit``."""
    made = Sketch(seed)
    raw = made.levels(6)
    confidence = made.add("Sigmoid", made.part(raw, 4, 5))
    number = made.times(made.add("Sigmoid", made.part(raw, 5, 6)), classes * 0.999)
    corners = made.corners(made.part(raw, 0, 4))
    batch = made.times(confidence, 0)
    rows = made.add("Concat", batch, corners, made.add("Floor", number), confidence, axis=2)
    flat = made.reshape(rows, [-1, 7])
    above = made.add("Greater", confidence, made.constant(np.array(limit, np.float32)))
    kept = made.add("Compress", flat, made.reshape(above, [-1]), axis=0)
    made.output(kept, "output", ["D", 7])
    return made


def efficient_nms(classes: int, seed: int = 0) -> Sketch:
    made = Sketch(seed)
    raw = made.levels(6)
    confidence = made.add("Sigmoid", made.part(raw, 4, 5))
    number = made.times(made.add("Sigmoid", made.part(raw, 5, 6)), classes * 0.999)
    above = made.add("Greater", confidence, made.constant(np.array(0.5, np.float32)))
    axes = made.constant(np.array([1], np.int64))
    count = made.add("ReduceSum", made.add("Cast", above, to=FLOAT), axes, keepdims=0)
    flat = [made.reshape(value, [0, CELLS]) for value in (confidence, number)]
    made.output(count, "num_dets", ["batch", 1], TensorProto.INT32)
    made.output(made.corners(made.part(raw, 0, 4)), "det_boxes", ["batch", CELLS, 4])
    made.output(flat[0], "det_scores", ["batch", CELLS])
    made.output(flat[1], "det_classes", ["batch", CELLS], TensorProto.INT32)
    return made
