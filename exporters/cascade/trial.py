"""Whether a stage gives what its detector's file gives, tried before it is written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from dyninfer.bundle.manifest import Precision, Task
from dyninfer.exporters.candidate_rows import BOXES, SCORES, in_order_of
from dyninfer.exporters.cascade.plan import PlannedDetector
from dyninfer.exporters.graphs import open_model
from dyninfer.foreign_errors import reason_of
from dyninfer.types import AnyArray

_MOST_ROWS = 500  # of a list; more are a grid, which has an order
_SURE = 0.05  # class score from which a row of a list must be there


def difference(model: ModelProto, planned: PlannedDetector, batches: Sequence[int]) -> str:
    """What is wrong with a stage's outputs, or an empty text where they are as expected."""
    images = np.concatenate([image for image, _ in planned.samples])
    file = planned.file
    rounded = file.rounded or file.precision is not Precision.FP32
    relative = 5e-2 if rounded else 1e-4
    name = model.graph.input[0].name
    try:
        session = open_model(model)
        for batch in batches:
            found = session.run(list(Task.DETECT.outputs), {name: images[-batch:]})
            expected = [np.stack(each) for each in zip(*planned.expected[-batch:], strict=True)]
            for array, wanted in zip(found, expected, strict=True):
                if array.shape != wanted.shape:
                    return f"a batch of {batch} gives {array.shape}, not {wanted.shape}"
            ordered = _in_order(expected, found, relative)
            pairs = zip(ordered, expected, strict=True)
            close = all(_relative_error(*pair) <= relative for pair in pairs)
            few = planned.plan.rows <= _MOST_ROWS
            if not close and not (rounded and few and same_rows(found, expected, relative)):
                return f"a batch of {batch} gives other results than its images one by one"
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        return reason_of(error)
    return ""


def _in_order(
    expected: Sequence[AnyArray], found: Sequence[AnyArray], relative: float
) -> list[AnyArray]:
    """Boxes and class scores in the order of the expected ones, which may be by scores."""
    names, farthest = (BOXES, SCORES), relative * float(np.abs(expected[0]).max(initial=1))
    source, made = (dict(zip(names, side, strict=True)) for side in (expected, found))
    return [*in_order_of(source, made, farthest, relative).values()]


def _relative_error(found: AnyArray, wanted: AnyArray) -> float:
    """Largest difference over the largest value, or over 1 where that is less; NaN for any."""
    return float(np.abs(found - wanted).max(initial=0) / max(1.0, np.abs(wanted).max(initial=0)))


def same_rows(found: Sequence[AnyArray], wanted: Sequence[AnyArray], relative: float) -> bool:
    """Whether lists of detections have the same surer rows in any order.

    Rounded scores are equal more often, and then the order of a list is a matter of chance.
    """
    if wanted[0].shape[1] > _MOST_ROWS:
        return False
    scales = [max(1.0, float(np.abs(array).max(initial=0))) for array in wanted]
    for rows, others in zip(zip(*found, strict=True), zip(*wanted, strict=True), strict=True):
        for one, another in ((rows, others), (others, rows)):
            sure = one[1].max(1, initial=0) >= _SURE
            far = [
                np.abs(a[sure, None] - b[None]).max(2, initial=0) / scale
                for a, b, scale in zip(one, another, scales, strict=True)
            ]
            if not (np.maximum(*far).min(1, initial=np.inf) <= relative).all():
                return False
    return True
