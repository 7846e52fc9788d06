"""Which outputs a decode reads, found by their shapes (and, where these tie, by their values)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from dyninfer.exporters.cascade.measured import ROWS_KEPT, Measured, called, cells
from dyninfer.exporters.cascade.options import Coding, Decode, Match, Part
from dyninfer.exporters.cascade.original import read_part
from dyninfer.exporters.cascade.recognise_lists import (
    match_boxes_scores,
    match_lists,
    match_rows,
)
from dyninfer.exporters.class_names import COCO

_MOST_ROWS = 1000  # more rows than this are a dense grid, not a list of detections
_NANODET_BINS = 8  # of the published models: distances 0 to 7
_UNDECODED = 8.0  # offsets within cells and logarithms of sizes are below this
_LARGEST_LOG = 6.0  # of a box's size in cells of a heatmap: 1600 pixels at stride 4


@dataclass(frozen=True)
class _Dense:
    """The one output of a grid: (N, rows, width), or (N, width, rows)."""

    name: str
    axes: str
    rows: int
    width: int

    def part(self, start: int, stop: int) -> Part:
        return Part((self.name,), self.axes, start, stop)


def _dense(measured: Measured, extra: int | None = None) -> _Dense | None:
    """By its number of cells where there are several; ``extra`` numbers come before the classes."""
    found = {
        name: (shape[0], shape[1])
        for name, whole in measured.shapes.items()
        if measured.outputs[name].dtype.kind == "f"
        and len(shape := [n for n in whole[1:] if n != 1]) == 2
        and whole[0] == 1
        and shape[0] is not None
        and shape[1] is not None
        and min(shape[0], shape[1]) >= 5
    }
    if len(found) > 1:
        found = {name: shape for name, shape in found.items() if measured.counts & set(shape)}
    if len(found) != 1:
        return None
    ((name, (first, second)),) = found.items()
    ones = "1" * (measured.outputs[name].ndim - 3)
    if _rows_first(measured, first, second, extra):
        return _Dense(name, f"n{ones}av", first, second)
    return _Dense(name, f"n{ones}va", second, first)


def _rows_first(measured: Measured, first: int, second: int, extra: int | None) -> bool:
    """Whether (1, first, second) is (1, boxes, numbers): by names, by cells, else by size."""
    if extra is not None and measured.named is not None:
        wanted = measured.named + extra
        if (first == wanted) != (second == wanted):
            return second == wanted
    counts = measured.counts
    if (first in counts) != (second in counts):
        return first in counts
    return first > second


def match_yolov5(measured: Measured) -> Match | None:
    """(N, A, 5 + C) of YOLOv5, YOLOv6, YOLOv7 and of YOLOX with its decode."""
    dense = _dense(measured, 5)
    if dense is None or dense.width < 6:
        return None
    boxes, scores = (dense.part(0, 4),), dense.part(5, dense.width)
    return Match(boxes, scores, dense.width - 5, dense.rows, objectness=dense.part(4, 5))


def match_yolox(measured: Measured) -> Match | None:
    """(N, A, 5 + C) of YOLOX, with offsets within cells and logarithms of sizes."""
    match = match_yolov5(measured)
    if match is None or match.anchors not in measured.grids:
        return None
    return replace(match, coding=Coding.CELLS, strides=measured.grids[match.anchors])


def match_yolov8(measured: Measured) -> Match | None:
    """(N, 4 + C, A), or (N, A, 4 + C)."""
    dense = _dense(measured, 4)
    if dense is None or dense.width <= 4:
        return None
    return Match((dense.part(0, 4),), dense.part(4, dense.width), dense.width - 4, dense.rows)


def match_end2end(measured: Measured) -> Match | None:
    """(D, 7) of YOLOv7, the four outputs of EfficientNMS, or (N, 300, 6) of YOLOv10."""
    return match_rows(measured, (7,)) or match_lists(measured) or match_rows(measured, (6,))


def match_labels(measured: Measured) -> Match | None:
    """Boxes, scores and labels in outputs of their own, or in one."""
    return match_lists(measured) or match_rows(measured)


def match_nanodet(measured: Measured) -> Match | None:
    """Class scores and distributions per stride, in any order; or all in one output."""
    three = {n: a for n, a in measured.outputs.items() if a.ndim == 3 and len(a) == 1}
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
    scores, distances = (Part(tuple(names), "nav") for names in zip(*tensors, strict=True))
    match = Match((distances,), scores, classes, sum(pairs), coding=Coding.DISTANCES)
    return replace(match, strides=tuple(strides), bins=sides // 4)


def _score_and_distribution(names: list[str], measured: Measured) -> tuple[str, str] | None:
    """Which of two outputs holds the class scores: by its width, else the one within [0, 1]."""
    width = {name: measured.outputs[name].shape[2] for name in names}
    for known in (measured.named, len(COCO)):
        scores = [name for name in names if width[name] == known]
        if len(scores) == 1:
            break
    else:
        scores = [n for n in names if width[n] % 4] or [n for n in names if measured.in_unit(n)]
    if len(scores) != 1:
        return None
    other = next(name for name in names if name != scores[0])
    return None if width[other] % 4 or width[other] < 8 else (scores[0], other)


def _match_nanodet_in_one(measured: Measured) -> Match | None:
    """(N, A, C + 4 * bins); without class names the published models' number of bins counts."""
    dense = _dense(measured)
    if dense is None:
        return None
    classes = measured.named or dense.width - 4 * _NANODET_BINS
    bins, rest = divmod(dense.width - classes, 4)
    strides = measured.grids.get(dense.rows)
    if strides is None or rest or bins < 2 or classes < 1:
        return None
    boxes, scores = (dense.part(classes, dense.width),), dense.part(0, classes)
    match = Match(boxes, scores, classes, dense.rows, coding=Coding.DISTANCES)
    return replace(match, strides=strides, bins=bins)


def match_centernet(measured: Measured) -> Match | None:
    """Heatmaps (N, C, H / s, W / s), and sizes and offsets with two numbers for every cell."""
    for axes in ("nvhw", "nhwv"):
        maps = _maps(measured, axes)
        pairs = {name: stride for name, (channels, stride) in maps.items() if channels == 2}
        sizes = next((n for n in pairs if called(n, "wh|size|scale|dim")), None)
        offsets = next((n for n in pairs if called(n, "reg|off")), None)
        if sizes is None or offsets is None:
            if len(pairs) != 2:
                continue
            sizes, offsets = pairs
        heat = [n for n in maps if n not in (sizes, offsets)]
        heat = [n for n in heat if called(n, "heat|hm|center|centre|score|cls")] or heat
        if not heat or len({maps[n][1] for n in (sizes, offsets, heat[0])}) != 1:
            continue
        channels, stride = maps[heat[0]]
        boxes = (Part((offsets,), axes), Part((sizes,), axes))
        anchors = min(ROWS_KEPT, cells(measured.size, (stride,)))
        match = Match(boxes, Part((heat[0],), axes), channels, anchors, best=True)
        match = replace(match, coding=Coding.PEAKS, strides=(stride,))
        return replace(match, log_sizes=_has_log_sizes(measured, match, sizes))
    return None


def _maps(measured: Measured, axes: str) -> dict[str, tuple[int, int]]:
    """Channels and stride of the outputs that have a place for every few pixels."""
    found = {}
    for name, array in measured.outputs.items():
        if array.ndim != 4 or array.dtype.kind != "f":
            continue
        own = dict(zip(axes, array.shape, strict=True))
        stride = next((s for s in (1, 2, 4, 8, 16) if own["h"] * s == measured.size[0]), 0)
        if own["w"] * stride == measured.size[1]:
            found[name] = (own["v"], stride)
    return found


def _has_log_sizes(measured: Measured, match: Match, sizes: str) -> bool:
    """Whether sizes are logarithms (CenterFace): by name, else as those of surer boxes are."""
    if called(sizes, "scale|log"):
        return True
    if called(sizes, "wh"):
        return False
    surest = []
    for sample in measured.samples:
        heat = read_part(match.scores, sample).max(1)
        surest.append(read_part(match.boxes[1], sample)[np.argsort(-heat)[:10]])
    return bool(np.max(surest) <= _LARGEST_LOG)


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
    dense = _dense(measured)
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


def is_undecoded(measured: Measured, name: str) -> bool:
    """Whether boxes of a grid are offsets within cells: all near a corner, and no shares."""
    match = match_yolox(measured)
    if match is None or match.tensors != (name,):
        return False
    boxes = measured.boxes(match)
    if not np.isfinite(boxes).all() or np.quantile(np.abs(boxes), 0.99) >= _UNDECODED:
        return False
    return bool((boxes[:, 2:] < 0).any() or boxes.max() > 2)
