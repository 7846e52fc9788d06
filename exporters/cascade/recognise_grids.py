"""Which outputs a decode reads that has a box for every cell of a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dyninfer.exporters.cascade.measured import Measured, cells
from dyninfer.exporters.cascade.options import Coding, Match, Part
from dyninfer.exporters.class_names import COCO

_NANODET_BINS = 8  # of the published models: distances 0 to 7
_UNDECODED = 8.0  # offsets within cells and logarithms of sizes are below this


@dataclass(frozen=True)
class Dense:
    """The one output of a grid: (N, rows, width), or (N, width, rows)."""

    name: str
    axes: str
    rows: int
    width: int

    def part(self, start: int, stop: int) -> Part:
        """Columns of it."""
        return Part((self.name,), self.axes, start, stop)


def find_dense(measured: Measured, extra: int | None = None) -> Dense | None:
    """The grid, by its number of cells where outputs tie; None where there is none, or not one.

    ``extra`` is how many numbers come before those of the classes, where that is known.
    """
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
        return Dense(name, f"n{ones}av", first, second)
    return Dense(name, f"n{ones}va", second, first)


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
    dense = find_dense(measured, 5)
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
    dense = find_dense(measured, 4)
    if dense is None or dense.width <= 4:
        return None
    return Match((dense.part(0, 4),), dense.part(4, dense.width), dense.width - 4, dense.rows)


def is_undecoded(measured: Measured, name: str) -> bool:
    """Whether boxes of a grid are offsets within cells: all near a corner, and no shares."""
    match = match_yolox(measured)
    if match is None or match.tensors != (name,):
        return False
    boxes = measured.boxes(match)
    if not np.isfinite(boxes).all() or np.quantile(np.abs(boxes), 0.99) >= _UNDECODED:
        return False
    return bool((boxes[:, 2:] < 0).any() or boxes.max() > 2)


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
    dense = find_dense(measured)
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
