"""What a YOLO head might say of a crowded picture, drawn from numbers instead of a network.

A few dozen objects each raise the objectness of the anchors that lie near their centre and have
about their size; those anchors' boxes scatter around the object. All other anchors are
background with log-normal scores. The spreads are chosen so that an object has about as many
candidates as a digit of the project's embedded model, which on its held-out scenes has 28 above
0.25, 55 above 0.05, 93 above 0.01 and 250 above 0.001; on the anchors of YOLOv7 at 640 x 640.
Clutter raises the background, towards heads that have no objectness: NanoDet
scores nearly every anchor and class above 0.001.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dyninfer.types import Float32Array, Float64Array, Int64Array

SIZE = 640
CLASSES = 80
_KINDS = 12  # classes in a picture; few of them make up most of it
_ANCHORS = {
    8: ((12, 16), (19, 36), (40, 28)),
    16: ((36, 75), (76, 55), (72, 146)),
    32: ((142, 110), (192, 243), (459, 401)),
}


@dataclass(frozen=True)
class _Objects:
    centres: Float64Array
    sizes: Float64Array
    class_ids: Int64Array
    clarity: Float64Array


def crowded_prediction(seed: int = 0, objects: int = 36, clutter: float = 0.0) -> Float32Array:
    """A prediction (1, 25200, 85) float32: centre, size, objectness, 80 class probabilities.

    ``clutter`` raises the objectness of the background, in units of its logit: 0 is a trained
    detector's, with 6 there are tens of thousands of candidates above 0.001.
    """
    rng = np.random.default_rng(seed)
    centres, sizes = _anchors()
    there = _draw_objects(rng, objects)
    logits, nearest = _objectness(rng, centres, sizes, there)
    background = rng.normal(clutter - 10.5, 1.3, len(centres))
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
