"""Which outputs a decode reads, found by their shapes (and, where these tie, by their values)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

from dyninfer.exporters.cascade.options import Decode, Match
from dyninfer.exporters.cascade.original import Outputs
from dyninfer.exporters.class_names import COCO

ROWS_KEPT = 300  # of an output whose number of rows changes from image to image
_MOST_ROWS = 1000  # more rows than this are a dense grid, not a list of detections
_NANODET_BINS = 8  # of the published models: distances 0 to 7
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (8, 16, 32, 64, 128), (16, 32))


@dataclass(frozen=True)
class Measured:
    """What a detector gave for one image of ``size`` (height, width); ``named`` classes or None."""

    outputs: Outputs
    size: tuple[int, int]
    named: int | None

    def of_rank(self, rank: int) -> Outputs:
        """The floating-point outputs with so many axes, the first of which is a batch of 1."""
        return {
            name: array
            for name, array in self.outputs.items()
            if array.ndim == rank and array.shape[0] == 1 and array.dtype.kind == "f"
        }

    @property
    def grids(self) -> dict[int, tuple[int, ...]]:
        """Number of cells -> the strides of the levels that have so many."""
        return {cells(self.size, strides): strides for strides in reversed(_STRIDES)}

    @property
    def counts(self) -> set[int]:
        """Numbers of boxes that a dense output may have: one or three for every cell."""
        return {n * count for n in (1, 3) for count in self.grids}


def cells(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Number of cells of all levels together; what a stride does not divide is rounded up."""
    return sum(math.prod(-(-side // stride) for side in size) for stride in strides)


def _dense(measured: Measured) -> tuple[str, int, int] | None:
    """The one output (1, a, b) of a grid: by its number of cells where there are several."""
    found = {n: a.shape[1:] for n, a in measured.of_rank(3).items() if min(a.shape[1:]) >= 5}
    if len(found) > 1:
        found = {n: shape for n, shape in found.items() if measured.counts & set(shape)}
    if len(found) != 1:
        return None
    ((name, (rows, columns)),) = found.items()
    return name, rows, columns


def _rows_first(measured: Measured, first: int, second: int) -> bool:
    """Whether (1, first, second) is (1, boxes, numbers): by the cells there are, else by size."""
    counts = measured.counts
    if (first in counts) != (second in counts):
        return first in counts
    return first > second


def match_yolov5(measured: Measured) -> Match | None:
    """(N, A, 5 + C) of YOLOv5, YOLOv6 and YOLOv7."""
    dense = _dense(measured)
    if dense is None or dense[2] < 6:
        return None
    return Match((dense[0],), dense[2] - 5, dense[1])


def match_yolov8(measured: Measured) -> Match | None:
    """(N, 4 + C, A), or (N, A, 4 + C)."""
    dense = _dense(measured)
    if dense is None:
        return None
    name, first, second = dense
    by_names = (second - 4 == measured.named) - (first - 4 == measured.named)
    rows_last = by_names > 0 if by_names else _rows_first(measured, first, second)
    values, anchors = (second, first) if rows_last else (first, second)
    return Match((name,), values - 4, anchors, rows_last=rows_last) if values > 4 else None


def match_rows(measured: Measured) -> Match | None:
    """(N, K, 6): corners, confidence, class."""
    found = {n: a for n, a in measured.of_rank(3).items() if a.shape[2] == 6}
    if len(found) != 1:
        return None
    ((name, array),) = found.items()
    return Match((name,), None, array.shape[1], row_width=6)


def match_end2end(measured: Measured) -> Match | None:
    """(D, 7) of YOLOv7, the four outputs of EfficientNMS, or (N, 300, 6) of YOLOv10."""
    flat = [n for n, a in measured.outputs.items() if a.ndim == 2 and a.shape[1] == 7]
    if len(flat) == 1:
        return Match((flat[0],), None, ROWS_KEPT, row_width=7)
    return _match_four(measured) or match_rows(measured)


def _match_four(measured: Measured) -> Match | None:
    outputs = measured.outputs
    boxes = [n for n, a in measured.of_rank(3).items() if a.shape[2] == 4]
    if len(outputs) != 4 or len(boxes) != 1:
        return None
    anchors = outputs[boxes[0]].shape[1]
    count = [n for n, a in outputs.items() if a.size == 1 and n not in boxes]
    lists = [n for n, a in outputs.items() if a.shape == (1, anchors) and n not in count[:1]]
    classes = [n for n in lists if outputs[n].dtype.kind in "iu"] or [
        n for n in lists if "class" in n.lower() or "label" in n.lower()
    ]
    scores = [n for n in lists if n not in classes]
    if not (len(classes) == len(scores) == 1 and count):
        return None
    return Match((count[0], boxes[0], scores[0], classes[0]), None, anchors)


def match_boxes_scores(measured: Measured) -> Match | None:
    """Boxes (N, A, 4) or (N, A, 1, 4), and class scores (N, A, C)."""
    three = measured.of_rank(3)
    boxes = {n: a for n, a in three.items() if a.shape[2] == 4} | {
        n: a for n, a in measured.of_rank(4).items() if a.shape[2:] == (1, 4)
    }
    if len(boxes) > 1:  # four classes: the boxes are what is called so
        boxes = {n: a for n, a in boxes.items() if "box" in n.lower()}
    if len(boxes) != 1:
        return None
    ((name, array),) = boxes.items()
    scores = {n: a for n, a in three.items() if n != name and a.shape[1] == array.shape[1]}
    if len(scores) != 1:
        return None
    ((score_name, score),) = scores.items()
    return Match((name, score_name), score.shape[2], array.shape[1])


def match_nanodet(measured: Measured) -> Match | None:
    """Class scores and distributions per stride, in any order; or all in one output."""
    three = measured.of_rank(3)
    levels: dict[int, list[str]] = {}
    for name, array in three.items():
        levels.setdefault(array.shape[1], []).append(name)
    pairs = {count: names for count, names in levels.items() if len(names) == 2}
    if len(pairs) < 2:
        return _match_nanodet_in_one(measured)
    tensors, strides = [], []
    for count in sorted(pairs, reverse=True):
        stride = next(
            (s for s in (4, 8, 16, 32, 64, 128) if cells(measured.size, (s,)) == count), 0
        )
        roles = _score_and_distribution(pairs[count], measured)
        if not stride or roles is None:
            return None
        tensors.append(roles)
        strides.append(stride)
    widths = {(three[scores].shape[2], three[sides].shape[2]) for scores, sides in tensors}
    if len(widths) != 1:
        return None
    classes, sides = widths.pop()
    return Match(
        tuple(chain(*tensors)), classes, sum(pairs), strides=tuple(strides), bins=sides // 4
    )


def _score_and_distribution(names: list[str], measured: Measured) -> tuple[str, str] | None:
    """Which of two outputs holds the class scores: by its width, else the one within [0, 1]."""
    width = {name: measured.outputs[name].shape[2] for name in names}
    for known in (measured.named, len(COCO)):
        scores = [name for name in names if width[name] == known]
        if len(scores) == 1:
            break
    else:
        given = {name: measured.outputs[name] for name in names}
        scores = [n for n in names if width[n] % 4] or [
            n for n, a in given.items() if a.size and a.min() >= 0 and a.max() <= 1
        ]
    if len(scores) != 1:
        return None
    other = next(name for name in names if name != scores[0])
    return None if width[other] % 4 or width[other] < 8 else (scores[0], other)


def _match_nanodet_in_one(measured: Measured) -> Match | None:
    """(N, A, C + 4 * bins); without class names the published models' number of bins counts."""
    dense = _dense(measured)
    if dense is None:
        return None
    name, anchors, values = dense
    classes = measured.named or values - 4 * _NANODET_BINS
    bins, rest = divmod(values - classes, 4)
    strides = measured.grids.get(anchors)
    if strides is None or rest or bins < 2 or classes < 1:
        return None
    return Match((name,), classes, anchors, strides=strides, bins=bins)


MATCHERS: Mapping[Decode, Callable[[Measured], Match | None]] = {
    Decode.YOLOV5: match_yolov5,
    Decode.YOLOV8: match_yolov8,
    Decode.YOLO_END2END: match_end2end,
    Decode.NANODET: match_nanodet,
    Decode.DETECTIONS: match_rows,
    Decode.BOXES_SCORES: match_boxes_scores,
}


def recognise(measured: Measured) -> Decode | None:
    """The decode that fits a detector's outputs, or None where it cannot be told from them."""
    if any(a.ndim == 2 and a.shape[1] == 7 for a in measured.outputs.values()):
        return Decode.YOLO_END2END
    if _match_four(measured):
        return Decode.YOLO_END2END
    if len(measured.of_rank(3)) >= 4 and match_nanodet(measured):
        return Decode.NANODET
    rows = match_rows(measured)
    if rows and rows.anchors <= _MOST_ROWS:
        return Decode.DETECTIONS
    if match_boxes_scores(measured):
        return Decode.BOXES_SCORES
    return _recognise_dense(measured)


def _recognise_dense(measured: Measured) -> Decode | None:
    """YOLOv5's, YOLOv8's or NanoDet's single output: by its width, else its number of boxes."""
    dense = _dense(measured)
    if dense is None:
        return None
    _, first, second = dense
    if not _rows_first(measured, first, second):
        return Decode.YOLOV8
    for classes in (measured.named, len(COCO)):
        extra = 0 if classes is None else second - classes
        if extra in (4, 5):
            return Decode.YOLOV8 if extra == 4 else Decode.YOLOV5
        if extra in (4 * bins for bins in range(5, 33)) and first in measured.grids:
            return Decode.NANODET
    return Decode.YOLOV5 if first % 3 == 0 and first // 3 in measured.grids else None
