"""Scores to detections, against a class-offset NMS in NumPy and OpenCV.

The baseline is written from the description of how YOLO's public code does it. It reads a head
with an objectness and so looks at one number of each anchor first; this project's heads, whose
decoding is part of the graph, have multiplied it into the scores, all of which must be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.benchmarks.lab.limits.repeated import keep_freed_memory, repeated, warm_rounds
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import compare
from dyninfer.plain_text import counted
from dyninfer.results.postprocess import MAX_CANDIDATES, Postprocess
from dyninfer.types import Float32Array, Float64Array, Int64Array

SIZE = 640
CLASSES = 80
_KINDS = 12  # classes in a picture; few of them make up most of it
_ANCHORS = {
    8: ((12, 16), (19, 36), (40, 28)),
    16: ((36, 75), (76, 55), (72, 146)),
    32: ((142, 110), (192, 243), (459, 401)),
}
LIMIT = 0.5


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
    prediction = crowded_prediction()
    return [_measure_case(case, prediction, rounds) for case in CASES]


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
            f"dyninfer found {len(ours[0])} and the baseline {counted(len(theirs[0]), 'box')}, "
            "expected the same ones; the two cannot be compared"
        )
    return len(ours[0])


@dataclass(frozen=True)
class _Objects:
    centres: Float64Array
    sizes: Float64Array
    class_ids: Int64Array
    clarity: Float64Array


def crowded_prediction(seed: int = 0, objects: int = 36) -> Float32Array:
    """What a YOLO head might say of a crowded picture: (1, 25200, 85) float32.

    Centre, size, objectness and 80 class probabilities, drawn from numbers instead of a network. A
    few dozen objects each raise the objectness of the anchors that lie near their centre and have
    about their size; those anchors' boxes scatter around the object. All other anchors are
    background with log-normal scores. The spreads are chosen so that an object has about as many
    candidates as a digit of the project's embedded model, which on its held-out scenes has 28
    above 0.25, 55 above 0.05, 93 above 0.01 and 250 above 0.001; on the anchors of YOLOv7 at
    640 x 640.
    """
    rng = np.random.default_rng(seed)
    centres, sizes = _anchors()
    there = _draw_objects(rng, objects)
    logits, nearest = _objectness(rng, centres, sizes, there)
    background = rng.normal(-10.5, 1.3, len(centres))
    near = logits > background
    objectness = _sigmoid(np.where(near, logits, background))
    scatter = np.where(near, 1 / (0.3 + _sigmoid(logits + 2)), 0.0)[:, None]
    shift, growth = rng.normal(0, 0.05, (2, *centres.shape)) * scatter
    own_sizes = there.sizes[nearest]
    found = np.hstack([there.centres[nearest] + shift * own_sizes, own_sizes * np.exp(growth)])
    background_centres = centres + rng.normal(0, 8, centres.shape)
    background_sizes = sizes * rng.lognormal(0, 0.5, sizes.shape)
    boxes = np.where(near[:, None], found, np.hstack([background_centres, background_sizes]))
    own = np.where(near, there.class_ids[nearest], rng.integers(0, CLASSES, len(centres)))
    probabilities = _class_probabilities(rng, own, near)
    return np.hstack([boxes, objectness[:, None], probabilities])[None].astype(np.float32)


def head_outputs(prediction: Float32Array) -> tuple[Float32Array, Float32Array]:
    """The same content as this project's heads give it: boxes_xyxy (A, 4), class_scores (A, C).

    Both are float32 and C-contiguous.
    """
    rows = prediction[0]
    half = rows[:, 2:4] / 2
    boxes = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], 1)
    return boxes, np.ascontiguousarray(rows[:, 5:] * rows[:, 4:5])


def _anchors() -> tuple[Float64Array, Float64Array]:
    """Centres and sizes (25200, 2) in pixels, as a head lists them: by stride, anchor, cell."""
    centres, sizes = [], []
    for stride, shapes in _ANCHORS.items():
        cells = SIZE // stride
        row, column = np.mgrid[:cells, :cells]
        grid = (np.stack([column, row], -1).reshape(-1, 2) + 0.5) * stride
        for shape in shapes:
            centres.append(grid)
            sizes.append(np.broadcast_to(np.array(shape, np.float64), grid.shape))
    return np.concatenate(centres), np.concatenate(sizes)


def _draw_objects(rng: np.random.Generator, count: int) -> _Objects:
    kinds = rng.choice(CLASSES, _KINDS, replace=False)
    common = np.minimum(rng.geometric(0.3, count) - 1, _KINDS - 1)
    side = np.exp(rng.uniform(np.log(16), np.log(260), count))
    stretch = np.exp(rng.normal(0, 0.4, count))
    return _Objects(
        centres=rng.uniform(0.05, 0.95, (count, 2)) * SIZE,
        sizes=np.stack([side * stretch, side / stretch], -1),
        class_ids=kinds[common],
        clarity=rng.normal(2.3, 1.0, count),
    )


def _objectness(
    rng: np.random.Generator, centres: Float64Array, sizes: Float64Array, there: _Objects
) -> tuple[Float64Array, Int64Array]:
    """Logit (A,) of every anchor by the object that it fits best, and which that is (A,)."""
    logits = np.full(len(centres), -np.inf)
    nearest = np.zeros(len(centres), np.int64)
    for index in range(len(there.class_ids)):
        distance = (centres - there.centres[index]) / np.maximum(there.sizes[index] / 2, 8)
        mismatch = np.log(sizes / there.sizes[index])
        misfit = 4.5 * (distance**2).sum(1) + 2.5 * (mismatch**2).sum(1)
        logit = there.clarity[index] - misfit + rng.normal(0, 0.8, len(centres))
        better = logit > logits
        logits[better], nearest[better] = logit[better], index
    return logits, nearest


def _class_probabilities(
    rng: np.random.Generator, own: Int64Array, near: npt.NDArray[np.bool_]
) -> Float64Array:
    """(A, 80): high for the anchor's own class, at times for a similar one, low for others."""
    rows = np.arange(len(own))
    probabilities = _sigmoid(rng.normal(-9, 1.4, (len(own), CLASSES)))
    certain, vague = rng.normal(2.5, 1, len(own)), rng.normal(-1, 1.5, len(own))
    probabilities[rows, own] = _sigmoid(np.where(near, certain, vague))
    similar = (own + 1) % CLASSES
    mistaken = _sigmoid(rng.normal(-4.5, 1.5, len(own)))
    probabilities[rows, similar] = np.maximum(probabilities[rows, similar], mistaken)
    return probabilities


def _sigmoid(logits: Float64Array) -> Float64Array:
    return np.asarray(1 / (1 + np.exp(-np.maximum(logits, -60))), np.float64)
