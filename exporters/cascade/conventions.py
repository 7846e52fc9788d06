"""What names and metadata of a file settle, and how pictures are prepared where it came from."""

from __future__ import annotations

from dataclasses import dataclass

from dyninfer.exporters.cascade.measured import Measured, called
from dyninfer.exporters.cascade.onnx_file import OnnxFile
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    ClassIds,
    Coding,
    Decode,
    Layout,
    Match,
    Triple,
)
from dyninfer.images.spec import ColorOrder, ResizeMode

NO_MEAN: Triple = (0.0, 0.0, 0.0)
NO_STD: Triple = (1.0, 1.0, 1.0)
UNIT_STD: Triple = (255.0, 255.0, 255.0)
IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)  # in R, G, B
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)
# per channel in the order B, G, R, as NanoDet's configurations have them
NANODET_MEAN: Triple = (103.53, 116.28, 123.675)
NANODET_STD: Triple = (57.375, 57.12, 58.395)


@dataclass(frozen=True)
class Picture:
    """How a picture is prepared; ``mean`` and ``std`` in the order of ``color``."""

    resize: ResizeMode
    color: ColorOrder = ColorOrder.RGB
    mean: Triple = NO_MEAN
    std: Triple = UNIT_STD


SCALES = ((NO_MEAN, UNIT_STD), (NO_MEAN, NO_STD), (IMAGENET_MEAN, IMAGENET_STD))
"""Mean and deviation of most detectors, in R, G, B."""
YOLO = Picture(ResizeMode.LETTERBOX)
STRETCHED = Picture(ResizeMode.STRETCH)
LEVELS = Picture(ResizeMode.STRETCH, std=NO_STD)
YOLOX = Picture(ResizeMode.PAD_BOTTOM_RIGHT, ColorOrder.BGR, std=NO_STD)
NANODET = Picture(ResizeMode.LETTERBOX, ColorOrder.BGR, NANODET_MEAN, NANODET_STD)
IMAGENET = Picture(ResizeMode.STRETCH, mean=IMAGENET_MEAN, std=IMAGENET_STD)
PADDED = Picture(ResizeMode.PAD_BOTTOM_RIGHT, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@dataclass(frozen=True)
class Known:
    """What the origin of a file settles; None where it does not.

    ``coco_ids`` holds where the classes are COCO's: of other lists such files count from
    ``class_offset`` on.
    """

    picture: Picture
    box_format: BoxFormat | None = None
    unit: BoxUnit | None = None
    class_offset: int | None = None
    coco_ids: ClassIds | None = None


def conventions(
    file: OnnxFile, decode: Decode, match: Match, layout: Layout, measured: Measured
) -> Known:
    """What is known of a detector by its metadata, its names and its decode."""
    form, share, pixels = BoxFormat, BoxUnit.NORMALISED, BoxUnit.PIXELS
    outputs = {*measured.outputs}
    by_labels = match.labels is not None
    if any("RTDETRDecoder" in text for text in file.metadata.values()):
        return Known(STRETCHED, form.CXCYWH, share, 0)
    if any(called(name, "^TFLite_Detection") for name in outputs):
        return Known(LEVELS, form.YXYX, share, 0, ClassIds.COCO91)
    if any(called(name, "detection_boxes") for name in match.tensors) or (
        by_labels and layout is Layout.NHWC and _counts_in_floats(match, measured)
    ):
        return Known(LEVELS, form.YXYX, share, 1, ClassIds.COCO91)
    if by_labels and layout is Layout.NHWC and len(match.tensors) == 1 and _width(match) == 7:
        return Known(LEVELS, form.YXYX, None, 1, ClassIds.COCO91)  # EfficientDet's own export
    if any(called(name, "yolonms_layer") for name in outputs):
        return Known(YOLO, form.YXYX, pixels)
    if file.sizes and any(called(port.name, "scale_factor|im_shape") for port in file.sizes):
        return Known(IMAGENET, form.XYXY, pixels, 0)
    if file.sizes and any(called(port.name, "target_sizes") for port in file.sizes):
        return Known(STRETCHED, form.XYXY, pixels, 0)
    if by_labels and outputs >= {"bboxes", "labels", "scores"}:  # the SSD of ONNX's model zoo
        return Known(IMAGENET, form.XYXY, share, 1)
    if match.labels and not match.batched and len(match.tensors) == 3:  # torchvision, Detectron
        if called(match.labels.tensors[0], "pred_classes"):
            return Known(YOLO, form.XYXY, pixels, 0)
        return Known(YOLO, form.XYXY, pixels, 1, ClassIds.COCO91)
    if by_labels and outputs >= {"dets", "labels"}:  # OpenMMLab
        return Known(PADDED, form.XYXY, pixels, 0)
    if match.count is not None and called(match.count.tensors[0], "^num_dets$"):  # EfficientNMS
        return Known(YOLO, None, None, 0)
    first = 0 if "names" in file.metadata else None  # Ultralytics, whose names are a list
    return Known(_picture(decode, match, layout, measured), *_plain_boxes(decode), first)


def _counts_in_floats(match: Match, measured: Measured) -> bool:
    """Whether number and classes are floating-point numbers, as in TensorFlow's detectors."""
    parts = (match.labels, match.count)
    return all(p and measured.outputs[p.tensors[0]].dtype.kind == "f" for p in parts)


def _width(match: Match) -> int:
    """Numbers in a row of detections, of which the last is read."""
    return max(part.stop or 0 for part in match.parts)


def _plain_boxes(decode: Decode) -> tuple[BoxFormat | None, BoxUnit | None]:
    if decode in (Decode.DETR, Decode.RTDETR):
        return BoxFormat.CXCYWH, BoxUnit.NORMALISED
    return None, None


def _picture(decode: Decode, match: Match, layout: Layout, measured: Measured) -> Picture:
    """As detectors of a kind are trained; channels last: from 0 to 255, stretched."""
    if decode is Decode.NANODET:
        return NANODET
    if layout is Layout.NHWC or decode is Decode.CENTERNET:
        return LEVELS
    if decode is Decode.DETR or (decode is Decode.RTDETR and "dets" in match.tensors):  # RF-DETR
        return IMAGENET
    if decode is Decode.RTDETR:
        return STRETCHED
    if decode is Decode.YOLOX or (decode is Decode.YOLOV5 and _of_yolox(match, measured)):
        return YOLOX
    if decode is Decode.BOXES_SCORES and match.scores.axes == "nva":  # PaddleDetection
        return IMAGENET
    if decode is Decode.BOXES_SCORES and match.boxes[0].axes == "na1v":  # YOLOv4
        return STRETCHED
    return YOLO


def _of_yolox(match: Match, measured: Measured) -> bool:
    """One box for every cell, with an objectness that means something: YOLOv6's is always 1."""
    if match.objectness is None or match.anchors not in measured.grids:
        return False
    (name,) = match.objectness.tensors
    rows = measured.outputs[name]
    column = rows[..., 4] if match.objectness.axes.endswith("av") else rows[..., 4, :]
    return match.coding is Coding.PLAIN and bool((column != 1).any())
