"""How many candidates a stage gives on, and those of two forms of a model, row by row.

A stage that keeps its surest candidates puts them in the order of their scores. Rounding swaps
those whose scores are all but equal, and takes another of them where the list ends; no detection
depends on either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import Stage
from dyninfer.types import AnyArray, BoolArray, Float64Array, Int64Array

CANDIDATES = 1000
"""How many of its surest anchors a stage gives on, where it has more."""
BOXES, SCORES = "boxes_xyxy", "class_scores"
PROPOSALS, OBJECTNESS = "proposals", "objectness"
"""What the first stage of a two-stage detector gives on: boxes (N, R, 4), scores (N, R, 1)."""
_IN_PLACE = 1e-3  # pixels: a row that moved less is where it was
_PIXELS_OF_SCORE = 10.0  # how far apart a difference of 1 in the best score counts
_MOST = 4096  # rows to be found again; a list of all anchors has an order of its own
_RANKED, _FALLING = 0.8, 0.2  # of neighbouring candidates: are not above, are below the one before
Arrays = Mapping[str, AnyArray]


def candidates_of(stage: Stage) -> int:
    """How many candidates a stage that ends in boxes gives on."""
    return next(int(spec.shape[1]) for spec in stage.outputs if spec.name == BOXES)


def in_order_of(
    source: Arrays, found: Arrays, farthest: float, margin: float, spare: float = 0.0
) -> dict[str, npt.NDArray[Any]]:
    """What was found, with its candidates in the order of the source's.

    Args:
        source: tensors by name; where they are boxes (N, K, 4) and class scores (N, K, C), or
            proposals and their objectness, rows are looked for.
        found: tensors of the same names.
        farthest: pixels by which two rows may differ and be the same candidate.
        margin: rows that only one of the two has are the same where the best scores of both are
            at most so far above the lowest of the source's: the list ends in the midst of equals.
            Their scores are compared then, and their boxes are not.
        spare: share of an image's rows that only one of the two may have besides, which are then
            not compared at all.
    """
    ordered = dict(found)
    for boxes, scores in ((BOXES, SCORES), (PROPOSALS, OBJECTNESS)):
        names = (boxes, scores)
        if not {*names} <= source.keys() or any(
            found[name].shape != source[name].shape for name in names
        ):
            continue
        if is_ranked(source[scores]):  # otherwise an order of their own, which nothing changes
            ordered |= {name: found[name].copy() for name in names}
            for image in range(len(found[boxes])):
                ours, theirs = (
                    tuple(each[name][image] for name in names) for each in (ordered, source)
                )
                _put_in_order(theirs, ours, farthest, margin, spare)
    return ordered


def _put_in_order(
    source: tuple[AnyArray, ...],
    found: tuple[AnyArray, ...],
    farthest: float,
    margin: float,
    spare: float,
) -> None:
    """Change the found boxes (K, 4) and scores (K, C) of an image in place."""
    rows = _order(source, found, farthest, margin)
    if rows is None:
        return
    order, ends, apart = rows
    boxes, scores = found[0][order], found[1][order]
    boxes[ends] = source[0][ends]
    gap = scores[ends].max(1, keepdims=True) - source[1][ends].max(1, keepdims=True)
    scores[ends] = source[1][ends] + gap
    if np.count_nonzero(apart) <= spare * len(apart):
        boxes[apart], scores[apart] = source[0][apart], source[1][apart]
    found[0][:], found[1][:] = boxes, scores


def is_ranked(scores: AnyArray) -> bool:
    """Whether candidates (N, K, C) come in the order of their best scores, all but some.

    Where columns were left out after the choice, a few stand elsewhere; anchors in an order of
    their own fall as often as they rise, or hardly differ.
    """
    best = scores.max(2)
    before, after = best[:, :-1], best[:, 1:]
    falls, in_order = after < before, after <= before
    if in_order.all():  # though most may be equal: a heatmap has few peaks
        return bool(falls.any())
    return bool(in_order.mean() > _RANKED and falls.mean() > _FALLING)


def _order(
    source: tuple[AnyArray, ...], found: tuple[AnyArray, ...], farthest: float, margin: float
) -> tuple[Int64Array, BoolArray, BoolArray] | None:
    """Which found row is each of the source's, and two masks of its rows.

    Rows of the first stand for others of their score, those of the second are its own alone. None
    where nothing moved, or too much to look for.
    """
    moved = np.flatnonzero(np.abs(found[0] - source[0]).max(1) > _IN_PLACE)
    if not len(moved) or len(moved) > _MOST:
        return None
    best = [scores.max(1) for scores in (source[1], found[1])]
    away = _distances(
        *(_place(b[moved], s[moved]) for b, s in zip((source[0], found[0]), best, strict=True))
    )
    to, back = away.argmin(1), away.argmin(0)
    each = np.arange(len(moved))
    same = (back[to] == each) & (away[each, to] <= farthest)
    free = np.setdiff1d(each, to[same])
    to[~same] = free[np.argsort(-best[1][moved[free]], kind="stable")]
    order = np.arange(len(source[0]))
    order[moved] = moved[to]
    limit = best[0].min() + margin
    ends, apart = np.zeros((2, len(order)), bool)
    ends[moved] = ~same & (best[0][moved] <= limit) & (best[1][moved[to]] <= limit)
    apart[moved] = ~same & ~ends[moved]
    return order, ends, apart


def _place(boxes: AnyArray, best: AnyArray) -> Float64Array:
    """A candidate as a point (5,): its box and its best score."""
    return np.column_stack([boxes, best * _PIXELS_OF_SCORE]).astype(np.float64)


def _distances(ones: Float64Array, others: Float64Array) -> Float64Array:
    """The largest difference in any coordinate, (A, B); what is not finite is far from all."""
    away = np.zeros((len(ones), len(others)))
    for column, other in zip(ones.T, others.T, strict=True):
        np.maximum(away, np.abs(column[:, None] - other[None]), out=away)
    return np.nan_to_num(away, nan=np.inf, posinf=np.inf)
