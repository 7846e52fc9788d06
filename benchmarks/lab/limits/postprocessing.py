"""Scores to detections, against a class-offset NMS in NumPy and OpenCV.

The baseline is written from the description of how YOLO's public code does it. It reads a head
with an objectness and so looks at one number of each anchor first; this project's heads, whose
decoding is part of the graph, have multiplied it into the scores, all of which must be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from dyninfer.benchmarks.lab.limits.crowded_scene import SIZE, crowded_prediction, head_outputs
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.benchmarks.lab.limits.repeated import keep_freed_memory, repeated, warm_rounds
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import compare
from dyninfer.results.postprocess import MAX_CANDIDATES, Postprocess
from dyninfer.types import Float32Array, Int64Array

LIMIT = 0.5
_SCENE_SEED = 0
_CLUTTER = 6.0


@dataclass(frozen=True)
class _Case:
    """One way to use a head's output; ``repeats`` calls are timed together."""

    key: str
    what: str
    options: Postprocess
    repeats: int


CASES = (
    _Case("postprocessing", "best class above 0.25, IoU 0.45", Postprocess(0.25, 0.45), 5),
    _Case(
        "postprocessing-evaluation",
        "all labels above 0.001, IoU 0.65",
        Postprocess(0.001, 0.65, several_labels=True),
        1,
    ),
)

Found = tuple[Float32Array, Float32Array, Int64Array]
"""Boxes (D, 4), confidences (D,), class ids (D,)."""


def measure(rounds: int) -> list[LimitResult]:
    """Time both on a crowded scene (1, 25200, 85), in both ways of use.

    Raises:
        InputError: the two do not find the same, or there are too few rounds.
    """
    keep_freed_memory()
    prediction = crowded_prediction(_SCENE_SEED)
    best, evaluation = (_measure_case(case, prediction, rounds) for case in CASES)
    cluttered = _in_clutter(CASES[1].options)
    return [best, replace(evaluation, note=f"{evaluation.note} {cluttered}")]


def _in_clutter(options: Postprocess) -> str:
    """What both take where there are tens of thousands of candidates, once each, in words."""
    prediction = crowded_prediction(_SCENE_SEED, clutter=_CLUTTER)
    boxes, scores = head_outputs(prediction)
    check_same(options(boxes, scores), offset_nms(prediction, options))
    ours_ms = repeated(lambda: options(boxes, scores))()
    theirs_ms = repeated(lambda: offset_nms(prediction, options))()
    count = np.count_nonzero(scores > options.confidence)
    return f"With {count} candidates, timed once: {ours_ms:.1f} against {theirs_ms:.0f} ms."


def _measure_case(case: _Case, prediction: Float32Array, rounds: int) -> LimitResult:
    boxes, scores = head_outputs(prediction)
    options = case.options
    count = check_same(options(boxes, scores), offset_nms(prediction, options))
    runs = {
        "dyninfer": repeated(lambda: options(boxes, scores), case.repeats),
        "class-offset NMS": repeated(lambda: offset_nms(prediction, options), case.repeats),
        "one comparison": repeated(lambda: scores > options.confidence, case.repeats),
    }
    times = warm_rounds(runs, rounds)
    least = compare(times["one comparison"], times["class-offset NMS"])
    candidates = np.count_nonzero(scores > options.confidence)
    return LimitResult(
        key=case.key,
        what=f"{case.what}, against a class-offset NMS with cv2.dnn.NMSBoxes",
        limit=LIMIT,
        measured=compare(times["dyninfer"], times["class-offset NMS"]),
        times_ms=times,
        note=(
            f"{candidates} candidates, {count} kept by both. Comparing the scores "
            f"{scores.shape} with the confidence once, which the baseline need not do thanks to "
            f"its objectness, takes {least.median:.2f} of the baseline's time by itself."
        ),
    )


def offset_nms(prediction: Float32Array, options: Postprocess) -> Found:
    """The usual postprocessing of a YOLO head.

    Candidates by objectness, class scores times objectness, best class or all labels above the
    confidence, at most 30,000; then boxes moved apart by class and OpenCV's NMS over all of them.
    """
    rows = prediction[0]
    rows = rows[rows[:, 4] > options.confidence]
    scores = rows[:, 5:] * rows[:, 4:5]
    half = rows[:, 2:4] / 2
    boxes = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], 1)
    if options.several_labels:
        anchors, class_ids = np.nonzero(scores > options.confidence)
        boxes, confidences = boxes[anchors], scores[anchors, class_ids]
    else:
        class_ids = scores.argmax(1)
        confidences = scores[np.arange(len(scores)), class_ids]
        above = confidences > options.confidence
        boxes, class_ids, confidences = boxes[above], class_ids[above], confidences[above]
    if len(boxes) > MAX_CANDIDATES:
        order = np.argsort(-confidences)[:MAX_CANDIDATES]
        boxes, class_ids, confidences = boxes[order], class_ids[order], confidences[order]
    offsets = class_ids[:, None] * (8.0 * SIZE)  # float64: float32 would move boxes by the offset
    apart: Any = np.concatenate([boxes[:, :2] + offsets, boxes[:, 2:] - boxes[:, :2]], 1)
    scores_above: Any = confidences  # OpenCV's stubs know lists only
    found = cv2.dnn.NMSBoxes(apart, scores_above, options.confidence, options.iou)
    kept = np.asarray(found, np.int64).reshape(-1)[: options.max_detections]
    return boxes[kept], confidences[kept], class_ids[kept]


def check_same(ours: Found, theirs: Found) -> int:
    """How many detections there are, if both found the same, best first.

    Raises:
        InputError: they did not.
    """
    same = all(np.array_equal(ours[column], theirs[column]) for column in range(len(ours)))
    if not same:
        raise InputError(
            f"dyninfer found {len(ours[0])} and the baseline {len(theirs[0])} boxes, "
            "expected the same ones; the two cannot be compared"
        )
    return len(ours[0])
