"""What a file's names and metadata settle, for each of the tools that detectors come from."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dyninfer.exporters.cascade import conventions as known
from dyninfer.exporters.cascade.conventions import Known, conventions
from dyninfer.exporters.cascade.measured import Measured
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    ClassIds,
    Coding,
    Decode,
    Layout,
    Match,
    Part,
)

SHARES, PIXELS, COCO91 = BoxUnit.NORMALISED, BoxUnit.PIXELS, ClassIds.COCO91
XYXY, YXYX, CXCYWH = BoxFormat.XYXY, BoxFormat.YXYX, BoxFormat.CXCYWH
LISTS, PAIR = Decode.BOXES_SCORES_LABELS, Decode.BOXES_SCORES
YOLO, LEVELS, IMAGENET, STRETCHED = known.YOLO, known.LEVELS, known.IMAGENET, known.STRETCHED


def lists(boxes: str, scores: str, labels: str, count: str | None = None, axes: str = "na"):
    """Detections in outputs of their own."""
    return Match(
        (Part((boxes,), f"{axes}v"),),
        Part((scores,), axes),
        0,
        9,
        labels=Part((labels,), axes),
        count=None if count is None else Part((count,), "n1"),
    )


def in_one(width: int) -> Match:
    """Detections in one output."""

    def part(start: int, stop: int) -> Part:
        return Part(("out",), "nav", start, stop)

    return Match((part(1, 5),), part(5, 6), 0, 9, labels=part(width - 1, width))


def pair(boxes: str = "boxes", axes: str = "nav", of_scores: str = "nav") -> Match:
    return Match((Part((boxes,), axes),), Part(("scores",), of_scores), 3, 9)


def conventions_of(
    decode: Decode,
    match: Match,
    layout: Layout = Layout.NCHW,
    whole: str = "",
    more: str = "",
    metadata: dict[str, str] | None = None,
    sizes: str = "",
) -> Known:
    """``whole`` are outputs of integers, ``more`` those that nobody reads."""
    outputs = {name: np.zeros((1, 9), np.float32) for name in (*match.tensors, *more.split())}
    outputs |= {name: np.zeros((1, 9), np.int64) for name in whole.split()}
    ports = tuple(SimpleNamespace(name=name) for name in sizes.split())
    file = SimpleNamespace(metadata=metadata or {}, sizes=ports)
    return conventions(file, decode, match, layout, Measured((outputs,), (64, 96), None))  # type: ignore[arg-type]


TF = lists("boxes", "scores", "classes", "num")
NHWC = {"layout": Layout.NHWC}


@pytest.mark.parametrize(
    ("decode", "match", "more", "expected"),
    [
        (
            Decode.RTDETR,
            pair(),
            {"metadata": {"task": "detect", "head": "RTDETRDecoder"}},
            Known(STRETCHED, CXCYWH, SHARES, 0),
        ),
        (
            LISTS,
            lists("TFLite_Detection_PostProcess", "a", "b"),
            {},
            Known(LEVELS, YXYX, SHARES, 0, COCO91),
        ),
        (PAIR, pair(), {"more": "TFLite_Detection"}, Known(LEVELS, YXYX, SHARES, 0, COCO91)),
        (PAIR, pair(), {"more": "no_TFLite_Detection"}, Known(YOLO)),
        (PAIR, pair("detection_boxes"), {}, Known(LEVELS, YXYX, SHARES, 1, COCO91)),
        (LISTS, TF, NHWC, Known(LEVELS, YXYX, SHARES, 1, COCO91)),
        (LISTS, TF, NHWC | {"whole": "num"}, Known(LEVELS)),
        (LISTS, TF, NHWC | {"whole": "classes"}, Known(LEVELS)),
        (LISTS, lists("boxes", "scores", "classes"), NHWC, Known(LEVELS)),
        (LISTS, TF, {}, Known(YOLO)),
        (LISTS, in_one(7), NHWC, Known(LEVELS, YXYX, None, 1, COCO91)),
        (LISTS, in_one(6), NHWC, Known(LEVELS)),
        (LISTS, in_one(7), {}, Known(YOLO)),
        (PAIR, pair(), {"more": "yolonms_layer_1"}, Known(YOLO, YXYX, PIXELS)),
        (LISTS, TF, {"sizes": "scale_factor"}, Known(IMAGENET, XYXY, PIXELS, 0)),
        (PAIR, pair(), {"sizes": "shape im_shape"}, Known(IMAGENET, XYXY, PIXELS, 0)),
        (LISTS, TF, {"sizes": "orig_target_sizes"}, Known(STRETCHED, XYXY, PIXELS, 0)),
        (PAIR, pair(), {"sizes": "image_shape"}, Known(YOLO)),
        (
            LISTS,
            lists("bboxes", "scores", "labels"),
            {"whole": "labels"},
            Known(IMAGENET, XYXY, SHARES, 1),
        ),
        (
            LISTS,
            lists("bboxes", "scores", "classes"),
            {"whole": "labels"},
            Known(IMAGENET, XYXY, SHARES, 1),
        ),
        (PAIR, pair("bboxes"), {"whole": "labels"}, Known(YOLO)),
        (
            LISTS,
            lists("1", "2", "3", axes="a"),
            {"whole": "3"},
            Known(YOLO, XYXY, PIXELS, 1, COCO91),
        ),
        (LISTS, lists("1", "2", "pred_classes", axes="a"), {}, Known(YOLO, XYXY, PIXELS, 0)),
        (LISTS, lists("1", "1", "3", axes="a"), {}, Known(YOLO)),
        (LISTS, lists("1", "2", "3", "4", axes="a"), {}, Known(YOLO)),
        (
            LISTS,
            lists("dets", "dets", "labels"),
            {"whole": "labels"},
            Known(known.PADDED, XYXY, PIXELS, 0),
        ),
        (PAIR, pair("dets"), {"whole": "labels"}, Known(YOLO)),
        (Decode.YOLO_END2END, lists("b", "s", "c", "num_dets"), {}, Known(YOLO, None, None, 0)),
        (Decode.YOLO_END2END, lists("b", "s", "c", "my_num_dets"), {}, Known(YOLO)),
        (Decode.YOLOV8, pair(), {"metadata": {"names": "[a]"}}, Known(YOLO, None, None, 0)),
        (Decode.DETR, pair(), {}, Known(IMAGENET, CXCYWH, SHARES)),
        (Decode.RTDETR, pair("dets"), {}, Known(IMAGENET, CXCYWH, SHARES)),
        (Decode.RTDETR, pair(), {}, Known(STRETCHED, CXCYWH, SHARES)),
        (Decode.NANODET, pair(), NHWC, Known(known.NANODET)),
        (Decode.CENTERNET, pair(), {}, Known(LEVELS)),
        (Decode.YOLOX, pair(), {}, Known(known.YOLOX)),
        (PAIR, pair(of_scores="nva"), {}, Known(IMAGENET)),
        (PAIR, pair(axes="nva"), {}, Known(YOLO)),
        (PAIR, pair(axes="na1v"), {}, Known(STRETCHED)),
        (Decode.YOLOV8, pair(axes="na1v", of_scores="nva"), {}, Known(YOLO)),
    ],
)
def test_what_a_file_s_origin_settles(decode, match, more, expected) -> None:
    assert conventions_of(decode, match, **more) == expected


@pytest.mark.parametrize("axes", ["nav", "nva"])
@pytest.mark.parametrize(
    ("cells", "objectness", "coding", "expected"),
    [
        (126, 0.5, Coding.PLAIN, known.YOLOX),
        (126, 1.0, Coding.PLAIN, YOLO),  # of YOLOv6
        (126, 0.5, Coding.CELLS, YOLO),
        (3 * 126, 0.5, Coding.PLAIN, YOLO),  # three boxes for every cell: YOLOv5
    ],
)
def test_yolox_is_told_from_yolov5_and_yolov6(axes, cells, objectness, coding, expected) -> None:
    rows = np.full((1, cells, 8), 3, np.float32)
    rows[..., 4] = 1
    rows[0, 7, 4] = objectness
    output = rows if axes == "nav" else rows.transpose(0, 2, 1)

    def part(start: int, stop: int) -> Part:
        return Part(("out",), axes, start, stop)

    match = Match((part(0, 4),), part(5, 8), 3, cells, objectness=part(4, 5), coding=coding)
    measured = Measured(({"out": output},), (64, 96), None)
    file = SimpleNamespace(metadata={}, sizes=())
    found = conventions(file, Decode.YOLOV5, match, Layout.NCHW, measured)  # type: ignore[arg-type]
    assert found == Known(expected)


def test_pictures_are_normalised_as_the_tools_do() -> None:
    """Values of the tools' own configurations, in units of 0 to 255, for R, G, B."""
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    np.testing.assert_allclose(np.array([0.485, 0.456, 0.406]) * 255, mean)
    np.testing.assert_allclose(np.array([0.229, 0.224, 0.225]) * 255, std)
    unit, levels = ((0, 0, 0), (255, 255, 255)), ((0, 0, 0), (1, 1, 1))
    assert (unit, levels, (mean, std)) == known.SCALES
    pictures = {"YOLO": unit, "STRETCHED": unit, "LEVELS": levels, "YOLOX": levels}
    pictures |= {"IMAGENET": (mean, std), "PADDED": (mean, std)}
    pictures["NANODET"] = mean[::-1], std[::-1]
    for name, expected in pictures.items():
        picture = getattr(known, name)
        assert (picture.mean, picture.std) == expected, name
