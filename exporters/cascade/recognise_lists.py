"""Decodes that read lists of detections, or boxes and scores in two outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from dyninfer.exporters.cascade.measured import ROWS_KEPT, Measured, Table, called
from dyninfer.exporters.cascade.options import Match, Part
from dyninfer.exporters.cascade.original import read_part
from dyninfer.types import Float64Array

LABELS = r"class|label|cls|categor"
SCORES = r"score|conf|prob"
_LOGITS = r"logit"
_COUNTS = r"num|count|valid"
_UNREAD = r"raw_|anchor|indices|multiclass|mask|keypoint|landmark|hidden|state|embed|feature"
# (first column of the box, column of the score, column of the class) by width
_ROW_FORMS = {
    6: ((0, 4, 5), (0, 5, 4), (2, 1, 0), (2, 0, 1)),
    7: ((1, 6, 5), (1, 5, 6), (3, 2, 1)),
}


def match_rows(measured: Measured, widths: Iterable[int] = (6, 7)) -> Match | None:
    """Rows of a box, its confidence and its class, in any order: (N, K, 6), (K, 6) or (K, 7).

    A seventh number comes first and counts images.
    """
    found = [t for width in widths for t in measured.tables(range(width, width + 1))]
    if len(found) != 1:
        return None
    (table,) = found
    rows = np.concatenate(
        [read_part(Part((table.name,), table.axes), sample) for sample in measured.samples]
    )
    rows = rows[(rows > 0).any(1)]  # what fills a list up is zero or -1
    if table.width == 7 and not _whole(rows[:, 0]):
        return None
    for box, score, label in _ROW_FORMS[table.width]:
        if _whole(rows[:, label]) and _shares(rows[:, score]):
            return _match_table(table, box, score, label)
    return None


def _whole(column: Float64Array) -> bool:
    return bool((column % 1 == 0).all() and (column >= -1).all())


def _shares(column: Float64Array) -> bool:
    return bool(((column >= -1e-3) & (column <= 1 + 1e-3)).all())


def _match_table(table: Table, box: int, score: int, label: int) -> Match:
    def part(start: int, width: int = 1) -> Part:
        return Part((table.name,), table.axes, start, start + width)

    match = Match((part(box, 4),), part(score), 0, table.anchors, labels=part(label))
    return replace(match, best=table.varies, varies=table.varies)


def match_lists(measured: Measured) -> Match | None:
    """Boxes, confidences and classes in outputs of their own, and perhaps their number.

    The confidence may be the fifth number of a box.
    """
    for table in _named_first(measured.tables(range(4, 6))):
        lists = _lists(measured, table)
        label = _pick_labels(measured, lists)
        if label is None:
            continue
        boxes = Part((table.name,), table.axes, 0, 4)
        if table.width == 5:
            score: Part | None = Part((table.name,), table.axes, 4, 5)
        else:
            score = _pick_scores(measured, lists, label.tensors[0])
        if score is None:
            continue
        match = Match((boxes,), score, 0, table.anchors, labels=label)
        match = replace(match, count=_count(measured, match))
        return replace(match, best=table.varies, varies=table.varies)
    return None


def _named_first(tables: Iterable[Table]) -> list[Table]:
    """Those that are called boxes before others; none that are not the final ones."""
    kept = [table for table in tables if not called(table.name, _UNREAD)]
    return sorted(kept, key=lambda table: not called(table.name, "box|det"))


def _lists(measured: Measured, table: Table) -> dict[str, Part]:
    """Outputs with one number for every row of a table."""
    axis = table.axes.index("a")
    found = {}
    for name, shape in measured.shapes.items():
        if name == table.name or called(name, _UNREAD):
            continue
        of_images = shape[:1] == (1,) and "n" in table.axes
        axes = {1: "a", 2: "na" if of_images else "a1", 3: "na1"}.get(len(shape))
        if axes is None:
            continue
        own = axes.index("a")
        if all(
            s[name].shape[own] == s[name].size == s[table.name].shape[axis]
            for s in measured.samples
        ):
            found[name] = Part((name,), axes)
    return found


def _pick_labels(measured: Measured, lists: dict[str, Part]) -> Part | None:
    named = [n for n in lists if called(n, LABELS) and not called(n, SCORES)]
    whole = [n for n in named or lists if measured.integral(n)]
    if not named:  # whole numbers that are no confidences of 0 and 1
        typed = [n for n in whole if measured.outputs[n].dtype.kind in "iu"]
        whole = typed or whole
    if not whole:
        return None
    best = min(whole, key=lambda n: float(measured.values(n).max(initial=0)))
    return lists[best]


def _pick_scores(measured: Measured, lists: dict[str, Part], label: str) -> Part | None:
    rest = [n for n in lists if n != label and measured.outputs[n].dtype.kind == "f"]
    found = [n for n in rest if called(n, SCORES)] or [n for n in rest if measured.in_unit(n)]
    return lists[found[0]] if found else None


def _count(measured: Measured, match: Match) -> Part | None:
    """The output that holds the number of valid rows."""
    single = [
        name
        for name in measured.outputs
        if name not in match.tensors
        and all(sample[name].size == 1 for sample in measured.samples)
        and measured.integral(name)
        and all(
            0 <= np.ravel(s[name])[0] <= len(read_part(match.scores, s)) for s in measured.samples
        )
    ]
    named = [name for name in single if called(name, _COUNTS)] or single
    return Part((named[0],), "n1") if named else None


def match_boxes_scores(measured: Measured) -> Match | None:
    """Boxes (N, A, 4) and scores of every class (N, A, C), each with its axes in any order."""
    boxes = [t for t in measured.tables(range(4, 5)) if not called(t.name, _UNREAD)]
    boxes += _boxes_in_columns(measured)
    pairs = [(table, score) for table in boxes for score in _scores_beside(measured, table)]
    if len(pairs) > 1:  # four classes, or hidden states: what is called so
        pairs = [(t, s) for t, s in pairs if called(t.name, "box|dets|loc")]
    if len(pairs) > 1:
        pairs = [(t, s) for t, s in pairs if called(s.name, f"{SCORES}|{_LOGITS}|{LABELS}")]
    if len(pairs) != 1:
        return None
    ((table, score),) = pairs
    rows = measured.shapes[table.name][table.axes.index("a")]  # dense, though declared as open
    box, scores = Part((table.name,), table.axes), Part((score.name,), score.axes)
    match = Match((box,), scores, score.width, ROWS_KEPT if rows is None else rows)
    return replace(match, best=rows is None, varies=rows is None)


def _boxes_in_columns(measured: Measured) -> list[Table]:
    """Boxes as (N, 4, A)."""
    return [
        Table(name, "nva", measured.rows_of(name, 2), 4)
        for name, shape in measured.shapes.items()
        if len(shape) == 3 and shape[:2] == (1, 4) and (shape[2] or 0) > 4
    ]


def _scores_beside(measured: Measured, table: Table) -> list[Table]:
    """Outputs with the same number for every row of a table."""
    axis = table.axes.index("a")
    found = []
    for name, shape in measured.shapes.items():
        if name == table.name or called(name, _UNREAD) or not shape:
            continue
        if measured.outputs[name].dtype.kind != "f":
            continue
        for axes in ("nav", "nva", "na1v", "na", "av", "a"):
            if _fits(measured, table, axis, name, axes):
                width = shape[axes.index("v")] if "v" in axes else 1
                if width:
                    found.append(Table(name, axes, table.rows, width))
                    break
    return found


def _fits(measured: Measured, table: Table, axis: int, name: str, axes: str) -> bool:
    """Whether an output with these axes has a row for every one of a table, in every sample."""
    for sample in measured.samples:
        shape = sample[name].shape
        if len(shape) != len(axes) or ("n" in axes) != ("n" in table.axes):
            return False
        sizes = dict(zip(axes, shape, strict=True))
        if sizes["a"] != sample[table.name].shape[axis] or sizes.get("n", 1) != 1:
            return False
        if sizes.get("1", 1) != 1:
            return False
    return True
