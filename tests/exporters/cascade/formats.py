"""One small detector whose boxes and scores are known, written as each exporter writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from dyninfer.exporters.cascade.options import Decode
from tests.exporters.cascade.detectors import Sketch

HEIGHT, WIDTH = 64, 96
STRIDES = (8, 16, 32)
LEVELS = [(HEIGHT // s, WIDTH // s, s) for s in STRIDES]
ANCHORS = sum(rows * columns for rows, columns, _ in LEVELS)
NAMES = ("one", "two", "three", "four", "five", "six")
SURE = 0.5  # what lists of detections hold
SIDES = (WIDTH, HEIGHT, WIDTH, HEIGHT)
INT32, INT64, UINT8 = TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8
COCO_IDS = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def cells() -> tuple[np.ndarray, np.ndarray]:
    """Corner (A, 2) in pixels as x, y and stride (A, 1) of every cell."""
    corners = [
        (x * s, y * s, s) for rows, cols, s in LEVELS for y in range(rows) for x in range(cols)
    ]
    table = np.array(corners, np.float32)
    return table[:, :2], table[:, 2:]


class Core(Sketch):
    """Corners in pixels ``boxes`` (N, A, 4), and probabilities ``scores`` (N, A, C)."""

    def __init__(self, classes: int, levels: bool = False) -> None:
        """``levels`` says that pictures are from 0 to 255, not to 1."""
        super().__init__(seed=3)
        self.classes = classes
        shown = self.times("images", 1 / 255) if levels else "images"
        rows = []
        for height, width, stride in LEVELS:
            shape = (4 + classes, 3, stride, stride)
            weight = self.constant(self.rng.normal(0, 2, shape).astype(np.float32) / stride)
            size = [stride, stride]
            made = self.add("Conv", shown, weight, kernel_shape=size, strides=size)
            made = self.add("Transpose", made, perm=[0, 2, 3, 1])
            rows.append(self.reshape(made, [0, height * width, 4 + classes]))
        raw = self.add("Concat", *rows, axis=1)
        corner, stride = cells()
        offsets = self.plus(self.add("Sigmoid", self.part(raw, 0, 2)), 0.1)
        sizes = self.plus(self.times(self.add("Tanh", self.part(raw, 2, 4)), 0.9), 0.3)
        self.strides, self.corner = self.constant(stride), self.constant(corner)
        centre = self.add("Add", self.add("Mul", offsets, self.strides), self.corner)
        half = self.times(self.add("Mul", self.add("Exp", sizes), self.strides), 0.5)
        ends = self.add("Sub", centre, half), self.add("Add", centre, half)
        self.boxes = self.add("Concat", *ends, axis=2)
        self.logits = self.plus(self.times(self.part(raw, 4, 4 + classes), 0.7), -0.5)
        self.scores = self.add("Sigmoid", self.logits)

    @cached_property
    def confidence(self) -> str:
        """The highest score (N, A, 1)."""
        return self.add("ReduceMax", self.scores, axes=[2], keepdims=1)

    @cached_property
    def label(self) -> str:
        """Its class (N, A, 1), as a floating-point number."""
        best = self.add("ArgMax", self.scores, axis=2, keepdims=1)
        return self.add("Cast", best, to=TensorProto.FLOAT)

    def plus(self, value: str, number: float) -> str:
        return self.add("Add", value, self.constant(np.array(number, np.float32)))

    def gather(self, value: str, order: Sequence[int], axis: int = 2) -> str:
        return self.add("Gather", value, self.constant(np.array(order, np.int64)), axis=axis)

    def over(self, value: str, *numbers: float) -> str:
        return self.add("Div", value, self.constant(np.array(numbers, np.float32)))

    def centred(self) -> str:
        """Centres and sizes in pixels."""
        first, second = self.part(self.boxes, 0, 2), self.part(self.boxes, 2, 4)
        centre = self.times(self.add("Add", first, second), 0.5)
        return self.add("Concat", centre, self.add("Sub", second, first), axis=2)

    def shares(self, boxes: str) -> str:
        return self.over(boxes, *SIDES)

    def yx(self, boxes: str) -> str:
        return self.gather(boxes, [1, 0, 3, 2])

    def undecoded(self) -> str:
        """Offsets within cells and logarithms of sizes in strides."""
        centred = self.centred()
        centre = self.add("Sub", self.part(centred, 0, 2), self.corner)
        sizes = self.add("Log", self.add("Div", self.part(centred, 2, 4), self.strides))
        return self.add("Concat", self.add("Div", centre, self.strides), sizes, axis=2)

    def columns(self, *values: str) -> str:
        return self.add("Concat", *values, axis=2)

    def coco_ids(self) -> str:
        """Labels as COCO's ids, as floating-point numbers."""
        table = self.constant(np.array(COCO_IDS, np.float32))
        return self.add("Gather", table, self.add("Cast", self.label, to=INT64))

    def kept(self, *values: str) -> list[str]:
        """Rows (K, V) of the one image whose confidence is sure."""
        sure = self.add("Greater", self.confidence, self.constant(np.array(SURE, np.float32)))
        chosen = self.reshape(sure, [-1])
        return [
            self.add(
                "Compress", self.add("Squeeze", value, self.constant(np.array([0]))), chosen, axis=0
            )
            for value in values
        ]

    def flat(self, value: str) -> str:
        return self.add("Squeeze", value, self.constant(np.array([-1])))

    def batched(self, value: str) -> str:
        return self.add("Unsqueeze", value, self.constant(np.array([0])))

    def out(self, value: str, name: str, kind: int = TensorProto.FLOAT, rank: int = 3) -> None:
        self.output(value, name, [f"{name}_{axis}" for axis in range(rank)], kind)


@dataclass(frozen=True)
class Format:
    """How an exporter writes; ``write`` adds the outputs.

    ``lists`` holds only the best class of a box. ``classes`` is 6 with names of their own, or 80.
    """

    write: Callable[[Core], None]
    decode: Decode
    lists: bool = False
    classes: int = 6
    fixed: bool = False  # a batch of one, without a dynamic axis
    levels: bool = False  # pictures from 0 to 255
    inputs: Mapping[str, tuple[int, Sequence[int]]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)  # of the source
    saved: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> Path:
        core = Core(self.classes, self.levels)
        self.write(core)
        options = {"batch": 1 if self.fixed else "batch", "size": (HEIGHT, WIDTH), **self.saved}
        return core.save(path, inputs=self.inputs, **options)


def rows(*order: str) -> Callable[[Core], None]:
    """Rows of detections (K, 6 or 7) with their numbers in this order."""

    def write(core: Core) -> None:
        parts = {"box": core.boxes, "score": core.confidence, "class": core.label}
        parts["image"] = core.times(core.confidence, 0)
        core.out(*core.kept(core.columns(*(parts[name] for name in order))), "rows", rank=2)

    return write


def dense(boxes: str, *, objectness: bool = False, last: bool = True) -> Callable[[Core], None]:
    """(N, A, 4 + C) or (N, A, 5 + C), or these with the axes swapped."""

    def write(core: Core) -> None:
        made = getattr(core, boxes)() if boxes != "boxes" else core.boxes
        scores = [core.scores]
        if objectness:  # what is left of the score is divided by it
            some = core.plus(core.times(core.confidence, 0.5), 0.5)
            scores = [some, core.add("Div", core.scores, some)]
        whole = core.columns(made, *scores)
        core.out(whole if last else core.add("Transpose", whole, perm=[0, 2, 1]), "output0")

    return write


def rtdetr_rows(core: Core) -> None:
    rows = core.columns(core.shares(core.centred()), core.confidence, core.label)
    core.out(rows, "output0")


def yolo_nas(core: Core) -> None:
    core.out(core.scores, "904")
    core.out(core.boxes, "913")


def ppyoloe(core: Core) -> None:
    core.out(core.boxes, "tmp_17")
    core.out(core.add("Transpose", core.scores, perm=[0, 2, 1]), "concat_14.tmp_0")


def yolov4(core: Core) -> None:
    spread = core.add("Unsqueeze", core.shares(core.boxes), core.constant(np.array([2])))
    core.out(spread, "boxes", rank=4)
    core.out(core.scores, "confs")


def detr(core: Core) -> None:
    """A softmax of 92 logits with the same chances: COCO's ids, and nothing last."""
    share = core.over(core.scores, core.classes)  # all together at most 1
    total = core.add("ReduceSum", share, core.constant(np.array([2])), keepdims=1)
    nothing = core.plus(core.times(total, -1), 1)
    places = [core.classes] * 92
    for column, number in enumerate(COCO_IDS):
        places[number] = column
    tiny = core.plus(core.times(total, 0), 1e-30)
    known = core.columns(share, tiny, nothing)
    places[91] = core.classes + 1
    core.out(core.add("Log", core.gather(known, places)), "logits")
    core.out(core.shares(core.centred()), "pred_boxes")
    core.out(core.times(core.scores, 9), "last_hidden_state")


def rtdetr(core: Core) -> None:
    core.out(core.logits, "logits")
    core.out(core.shares(core.centred()), "pred_boxes")


def rfdetr(core: Core) -> None:
    """91 columns by COCO's ids."""
    low = core.plus(core.times(core.confidence, 0), -9)
    places = [core.classes] * 91
    for column, number in enumerate(COCO_IDS):
        places[number] = column
    core.out(core.shares(core.centred()), "dets")
    core.out(core.gather(core.columns(core.logits, low), places), "labels")


def torchvision(core: Core) -> None:
    box, label, score = core.kept(core.boxes, core.coco_ids(), core.confidence)
    core.out(box, "boxes", rank=2)
    core.out(core.flat(label), "labels", INT64, rank=1)
    core.out(core.flat(score), "scores", rank=1)


def detectron(core: Core) -> None:
    box, label, score = core.kept(core.boxes, core.label, core.confidence)
    core.out(core.flat(label), "pred_classes", INT64, rank=1)
    core.out(box, "pred_boxes", rank=2)
    core.out(core.flat(score), "scores", rank=1)


def numbered_torchvision(core: Core) -> None:
    box, label, score = core.kept(core.boxes, core.plus(core.label, 1), core.confidence)
    core.out(box, "2531", rank=2)
    core.out(core.flat(score), "2540", rank=1)
    core.out(core.flat(label), "2544", INT64, rank=1)


def mmdetection(core: Core) -> None:
    box, label = core.kept(core.columns(core.boxes, core.confidence), core.label)
    core.out(core.batched(core.flat(label)), "labels", INT64, rank=2)
    core.out(core.batched(box), "dets")


def zoo_ssd(core: Core) -> None:
    core.out(core.shares(core.boxes), "bboxes")
    core.out(core.flat(core.plus(core.label, 1)), "labels", INT64, rank=2)
    core.out(core.flat(core.confidence), "scores", rank=2)


def tensorflow(*names: str, more: bool = False) -> Callable[[Core], None]:
    """Four outputs, or eight: boxes, classes, scores and number."""

    def write(core: Core) -> None:
        boxes = core.yx(core.shares(core.boxes))
        one = core.add("ReduceMax", core.label, axes=[1, 2], keepdims=0)
        number = core.plus(core.times(one, 0), ANCHORS)
        if more:
            core.out(core.flat(core.times(core.label, 7)), "detection_anchor_indices", rank=2)
        core.out(boxes, names[0])
        core.out(core.flat(core.coco_ids()), names[1], rank=2)
        if more:
            core.out(core.columns(core.confidence, core.scores), "detection_multiclass_scores")
        core.out(core.flat(core.confidence), names[2], rank=2)
        core.out(number, names[3], rank=1)
        if more:
            core.out(core.times(boxes, 2), "raw_detection_boxes")
            core.out(core.columns(core.scores, core.confidence), "raw_detection_scores")

    return write


def efficient_nms(core: Core) -> None:
    """Rows beyond the number are of no meaning: here those beyond the first fifty."""
    one = core.add("ReduceMax", core.label, axes=[1, 2], keepdims=0)
    number = core.plus(core.times(one, 0), 50)
    core.out(core.add("Unsqueeze", number, core.constant(np.array([1]))), "num_dets", INT32, 2)
    core.out(core.boxes, "det_boxes")
    core.out(core.flat(core.confidence), "det_scores", rank=2)
    core.out(core.flat(core.label), "det_classes", INT32, rank=2)


def paddle(core: Core) -> None:
    """Class, score and corners in the original picture's pixels, and how many there are."""
    first = core.add("Gather", "scale_factor", core.constant(np.array([1, 0, 1, 0])), axis=1)
    boxes = core.add("Div", core.boxes, first)
    limit = core.add(
        "Mul", core.add("ReduceMax", "im_shape", keepdims=0), core.constant(np.array(9, np.float32))
    )
    (kept,) = core.kept(core.columns(core.label, core.confidence, core.add("Min", boxes, limit)))
    core.out(kept, "multiclass_nms3_0.tmp_0", rank=2)
    shape = core.add("Shape", kept)
    core.out(core.gather(shape, [0], axis=0), "multiclass_nms3_0.tmp_2", INT32, rank=1)


def rtdetr_deployed(core: Core) -> None:
    """Labels, boxes and scores, the boxes in pixels of ``orig_target_sizes`` (width, height)."""
    sides = core.add("Cast", "orig_target_sizes", to=TensorProto.FLOAT)
    sides = core.add("Concat", sides, sides, axis=1)
    core.out(core.flat(core.label), "labels", INT64, rank=2)
    core.out(
        core.add(
            "Mul",
            core.shares(core.boxes),
            core.add("Unsqueeze", sides, core.constant(np.array([1]))),
        ),
        "boxes",
    )
    core.out(core.flat(core.confidence), "scores", rank=2)


def faces(core: Core) -> None:
    """Two columns that sum to one, the first the background's: boxes and scores in shares."""
    face = core.part(core.scores, 0, 1)
    core.out(core.columns(core.plus(core.times(face, -1), 1), face), "scores")
    core.out(core.shares(core.boxes), "boxes")


def centernet(size: str, offset: str, *, log: bool, logits: bool) -> Callable[[Core], None]:
    """The finest level as heatmaps, sizes and offsets; CenterFace's with logarithms, y first."""

    def write(core: Core) -> None:
        height, width, stride = LEVELS[0]
        count = height * width

        def maps(value: str, channels: int) -> str:
            ends = [core.constant(np.array([n])) for n in (0, count, 1)]
            finest = core.add("Slice", value, *ends)
            return core.reshape(
                core.add("Transpose", finest, perm=[0, 2, 1]), [0, channels, height, width]
            )

        centred = core.centred()
        offsets = core.add(
            "Div", core.add("Sub", core.part(centred, 0, 2), core.corner), core.strides
        )
        sizes = core.over(core.part(centred, 2, 4), stride)
        if log:
            offsets, sizes = core.plus(offsets, -0.5), core.add("Log", sizes)
            offsets, sizes = (core.gather(value, [1, 0]) for value in (offsets, sizes))
        core.out(maps(core.logits if logits else core.scores, core.classes), "heatmap", rank=4)
        core.out(maps(sizes, 2), size, rank=4)
        core.out(maps(offsets, 2), offset, rank=4)

    return write


def yolo_nas_batch(core: Core) -> None:
    """Zeros beyond the number; the number (N, 1), classes as whole numbers."""
    sure = core.add("Greater", core.confidence, core.constant(np.array(SURE, np.float32)))
    number = core.add(
        "ReduceSum", core.add("Cast", sure, to=INT64), core.constant(np.array([1])), keepdims=0
    )
    order = core.add("Squeeze", core.confidence, core.constant(np.array([2])))
    core.nodes.append(
        helper.make_node(
            "TopK", [order, core.constant(np.array([ANCHORS]))], ["top", "places"], axis=1
        )
    )
    places = core.add("Unsqueeze", "places", core.constant(np.array([2])))
    box, label = (
        core.add("GatherND", value, places, batch_dims=1) for value in (core.boxes, core.label)
    )
    core.out(number, "num_predictions", INT64, rank=2)
    core.out(box, "pred_boxes")
    core.out("top", "pred_scores", rank=2)
    core.out(core.flat(label), "pred_classes", INT64, rank=2)


def yolov3(core: Core) -> None:
    """Boxes in pixels of ``image_shape``, y first; what a suppression chose is not read."""
    sides = core.add("Concat", "image_shape", "image_shape", axis=1)
    boxes = core.yx(core.shares(core.boxes))
    boxes = core.add("Mul", boxes, core.add("Unsqueeze", sides, core.constant(np.array([1]))))
    core.out(boxes, "yolonms_layer_1")
    core.out(core.add("Transpose", core.scores, perm=[0, 2, 1]), "yolonms_layer_1:1")
    chosen = core.constant(np.array([[0, 1, 2], [0, 0, 5]], np.int32))
    core.out(chosen, "yolonms_layer_1:2", INT32, rank=2)


def in_columns(core: Core) -> None:
    core.out(core.add("Transpose", core.scores, perm=[0, 2, 1]), "b")
    core.out(core.add("Transpose", core.shares(core.centred()), perm=[0, 2, 1]), "a")


def flat_pair(core: Core) -> None:
    """Boxes (K, 4) and scores (K, C) of the one image."""
    box, score = core.kept(core.boxes, core.scores)
    core.out(box, "boxes", rank=2)
    core.out(score, "scores", rank=2)


def automl(core: Core) -> None:
    """Image, y1, x1, y2, x2, score, class of EfficientDet; classes are COCO's ids."""
    image = core.times(core.confidence, 0)
    made = core.columns(image, core.yx(core.boxes), core.confidence, core.coco_ids())
    core.out(made, "detections:0")


def yolov6(core: Core) -> None:
    one = core.plus(core.times(core.confidence, 0), 1)
    core.out(core.columns(core.centred(), one, core.scores), "outputs")


def openvino(core: Core) -> None:
    """(1, 1, K, 7): image, class, score and corners in shares."""
    image = core.times(core.confidence, 0)
    made = core.columns(image, core.label, core.confidence, core.shares(core.boxes))
    core.out(core.add("Unsqueeze", made, core.constant(np.array([1]))), "detection_out", rank=4)


def masked_detr(core: Core) -> None:
    """Only where the mask is set there is a picture."""
    seen = core.add("ReduceMin", core.add("Cast", "pixel_mask", to=TensorProto.FLOAT), keepdims=0)
    core.logits = core.add("Mul", core.logits, seen)
    rtdetr(core)


NHWC = {"layout": "nhwc", "image_type": UINT8}
TF_NAMES = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
HEAD = {"head": "RTDETRDecoder", "names": str(dict(enumerate(NAMES)))}
FORMATS: dict[str, Format] = {
    "yolov8": Format(dense("centred", last=False), Decode.YOLOV8),
    "yolov8, corners": Format(dense("boxes", last=False), Decode.YOLOV8),
    "yolov8, opset 11": Format(
        dense("centred", last=False), Decode.YOLOV8, saved={"opset": 11}, fixed=True
    ),
    "yolov5": Format(dense("centred", objectness=True), Decode.YOLOV5),
    "yolox, undecoded": Format(dense("undecoded", objectness=True), Decode.YOLOX),
    "yolov10": Format(rows("box", "score", "class"), Decode.DETECTIONS, lists=True),
    "class before score": Format(rows("box", "class", "score"), Decode.DETECTIONS, lists=True),
    "class first": Format(rows("class", "score", "box"), Decode.DETECTIONS, lists=True),
    "yolov7, end to end": Format(
        rows("image", "box", "class", "score"), Decode.YOLO_END2END, lists=True
    ),
    "yolo-nas, flat": Format(
        rows("image", "box", "score", "class"), Decode.YOLO_END2END, lists=True
    ),
    "openvino": Format(rows("image", "class", "score", "box"), Decode.YOLO_END2END, lists=True),
    "ultralytics rt-detr": Format(
        rtdetr_rows, Decode.DETECTIONS, lists=True, saved={"metadata": HEAD}
    ),
    "yolo-nas": Format(yolo_nas, Decode.BOXES_SCORES),
    "pp-yoloe": Format(ppyoloe, Decode.BOXES_SCORES),
    "yolov4": Format(yolov4, Decode.BOXES_SCORES),
    "faces": Format(faces, Decode.BOXES_SCORES, classes=1),
    "detr": Format(detr, Decode.DETR, classes=80),
    "rt-detr": Format(rtdetr, Decode.RTDETR),
    "rf-detr": Format(rfdetr, Decode.RTDETR, classes=80),
    "torchvision": Format(
        torchvision, Decode.BOXES_SCORES_LABELS, lists=True, classes=80, fixed=True
    ),
    "torchvision, unnamed": Format(
        numbered_torchvision, Decode.BOXES_SCORES_LABELS, lists=True, fixed=True
    ),
    "detectron": Format(detectron, Decode.BOXES_SCORES_LABELS, lists=True, fixed=True),
    "mmdetection": Format(mmdetection, Decode.BOXES_SCORES_LABELS, lists=True, fixed=True),
    "zoo ssd": Format(zoo_ssd, Decode.BOXES_SCORES_LABELS, lists=True),
    "tensorflow, 4": Format(
        tensorflow(*TF_NAMES),
        Decode.BOXES_SCORES_LABELS,
        lists=True,
        classes=80,
        saved=NHWC,
        levels=True,
    ),
    "tensorflow, 8": Format(
        tensorflow(*TF_NAMES, more=True),
        Decode.BOXES_SCORES_LABELS,
        lists=True,
        classes=80,
        saved=NHWC,
        levels=True,
    ),
    "tensorflow, unnamed": Format(
        tensorflow("a", "b", "c", "d"),
        Decode.BOXES_SCORES_LABELS,
        lists=True,
        classes=80,
        saved=NHWC,
        levels=True,
    ),
    "efficient nms": Format(efficient_nms, Decode.YOLO_END2END, lists=True),
    "paddle": Format(
        paddle,
        Decode.DETECTIONS,
        lists=True,
        fixed=True,
        inputs={"im_shape": (1, [1, 2]), "scale_factor": (1, [1, 2])},
    ),
    "rt-detr, deployed": Format(
        rtdetr_deployed,
        Decode.BOXES_SCORES_LABELS,
        lists=True,
        inputs={"orig_target_sizes": (INT64, ["n", 2])},
    ),
    "centernet": Format(
        centernet("wh", "reg", log=False, logits=True), Decode.CENTERNET, levels=True
    ),
    "centerface": Format(
        centernet("scale", "offset", log=True, logits=False), Decode.CENTERNET, levels=True
    ),
    "centerface, unnamed": Format(
        centernet("538", "539", log=True, logits=False), Decode.CENTERNET, levels=True
    ),
    "yolo-nas, batch": Format(yolo_nas_batch, Decode.BOXES_SCORES_LABELS, lists=True),
    "yolov3": Format(yolov3, Decode.BOXES_SCORES, inputs={"image_shape": (1, ["n", 2])}),
    "in columns": Format(in_columns, Decode.BOXES_SCORES),
    "flat pair": Format(flat_pair, Decode.BOXES_SCORES, fixed=True),
    "automl": Format(automl, Decode.YOLO_END2END, lists=True, classes=80, saved=NHWC, levels=True),
    "yolov6": Format(yolov6, Decode.YOLOV5),
    "openvino, 4 axes": Format(openvino, Decode.YOLO_END2END, lists=True),
    "detr with a mask": Format(
        masked_detr, Decode.RTDETR, inputs={"pixel_mask": (INT64, ["n", "h", "w"])}
    ),
    "tensorflow, 8 unnamed": Format(
        tensorflow("a", "b", "c", "d", more=True),
        Decode.BOXES_SCORES_LABELS,
        lists=True,
        classes=80,
        saved=NHWC,
        levels=True,
    ),
    "yolov8, opset 21": Format(dense("centred", last=False), Decode.YOLOV8, saved={"opset": 21}),
}
