"""Which decode a detector's outputs are for, by their shapes and, where these tie, their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dyninfer.exporters.cascade.measured import Measured, called
from dyninfer.exporters.cascade.options import Decode, Match
from dyninfer.exporters.cascade.original import read_part
from dyninfer.exporters.cascade.recognise_grids import (
    find_dense,
    is_undecoded,
    match_nanodet,
    match_yolov5,
    match_yolov8,
    match_yolox,
)
from dyninfer.exporters.cascade.recognise_lists import (
    match_boxes_scores,
    match_lists,
    match_rows,
)
from dyninfer.exporters.cascade.recognise_maps import match_centernet
from dyninfer.exporters.class_names import COCO

_MOST_ROWS = 1000  # more rows than this are a dense grid, not a list of detections


def match_end2end(measured: Measured) -> Match | None:
    """(D, 7) of YOLOv7, the four outputs of EfficientNMS, or (N, 300, 6) of YOLOv10."""
    return match_rows(measured, (7,)) or match_lists(measured) or match_rows(measured, (6,))


def match_labels(measured: Measured) -> Match | None:
    """Boxes, scores and labels in outputs of their own, or in one."""
    return match_lists(measured) or match_rows(measured)


MATCHERS: Mapping[Decode, Callable[[Measured], Match | None]] = {
    Decode.YOLOV5: match_yolov5,
    Decode.YOLOV8: match_yolov8,
    Decode.YOLOX: match_yolox,
    Decode.YOLO_END2END: match_end2end,
    Decode.NANODET: match_nanodet,
    Decode.DETECTIONS: match_rows,
    Decode.BOXES_SCORES: match_boxes_scores,
    Decode.BOXES_SCORES_LABELS: match_labels,
    Decode.DETR: match_boxes_scores,
    Decode.RTDETR: match_boxes_scores,
    Decode.CENTERNET: match_centernet,
}


def recognise(measured: Measured) -> Decode | None:
    """The decode that fits a detector's outputs, or None where it cannot be told from them."""
    if match_rows(measured, (7,)) and not _is_grid(measured, 7):
        return Decode.YOLO_END2END
    lists = match_lists(measured)
    if lists:
        own = lists.count is not None and called(lists.count.tensors[0], "^num_dets$")
        return Decode.YOLO_END2END if own else Decode.BOXES_SCORES_LABELS
    if len([a for a in measured.outputs.values() if a.ndim == 3]) >= 4 and match_nanodet(measured):
        return Decode.NANODET
    if match_rows(measured, (6,)) and not _is_grid(measured, 6):
        return Decode.DETECTIONS
    if match_centernet(measured):
        return Decode.CENTERNET
    pair = match_boxes_scores(measured)
    if pair:
        return _kind_of_pair(measured, pair)
    return _recognise_dense(measured)


def _is_grid(measured: Measured, width: int) -> bool:
    tables = measured.tables(range(width, width + 1))
    return any(table.rows is not None and table.rows > _MOST_ROWS for table in tables)


def _kind_of_pair(measured: Measured, match: Match) -> Decode:
    """Probabilities; or logits of a sigmoid, or of a softmax with a column for nothing at the end.

    The latter has one more column than there are classes, 92 for COCO's ids, and where neither
    tells it is the column that wins most boxes.
    """
    (name,), columns = match.scores.tensors, match.columns
    if measured.in_unit(name) and not called(name, "logit"):
        return Decode.BOXES_SCORES
    if columns in (1, measured.named, len(COCO), 91) or called(match.tensors[0], "^dets$"):
        return Decode.RTDETR
    if columns == 92 or measured.named == columns - 1:
        return Decode.DETR
    rows = np.concatenate([read_part(match.scores, sample) for sample in measured.samples])
    return Decode.DETR if (rows.argmax(1) == columns - 1).mean() > 0.5 else Decode.RTDETR


def _recognise_dense(measured: Measured) -> Decode | None:
    """YOLOv5's, YOLOX's, YOLOv8's or NanoDet's output: by its width, else its number of boxes."""
    dense = find_dense(measured)
    if dense is None:
        return None
    if is_undecoded(measured, dense.name):
        return Decode.YOLOX
    if dense.axes.endswith("va"):
        return Decode.YOLOV8
    for classes in (measured.named, len(COCO)):
        extra = 0 if classes is None else dense.width - classes
        if extra in (4, 5):
            return Decode.YOLOV8 if extra == 4 else Decode.YOLOV5
        if extra in (4 * bins for bins in range(5, 33)) and dense.rows in measured.grids:
            return Decode.NANODET
    rows = dense.rows
    return Decode.YOLOV5 if rows % 3 == 0 and rows // 3 in measured.grids else None
