"""What the outputs for real photos say of a detector's boxes and scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dyninfer.errors import CheckpointError
from dyninfer.exporters.cascade.guesses import Guesses
from dyninfer.exporters.cascade.onnx_file import OnnxFile
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Decode,
    DetectorPlan,
    DetectorSource,
)
from dyninfer.exporters.cascade.original import Outputs
from dyninfer.exporters.cascade.reference import decode_one
from dyninfer.types import Float32Array

_OPEN_BOXES = (Decode.DETECTIONS, Decode.BOXES_SCORES, Decode.YOLO_END2END)
_LARGEST_SHARE = 2.0  # boxes that reach past the image are still below this in shares of a side
_SURE = 0.05  # class score from which a box is looked at


def settle_boxes(
    plan: DetectorPlan, source: DetectorSource, outputs: list[Outputs], guesses: Guesses
) -> DetectorPlan:
    """Unit and format of boxes where the decode leaves them open; NanoDet's cell centres."""
    if plan.decode is Decode.NANODET:
        return replace(plan, cell_offset=_cell_offset(plan, source, guesses))
    if plan.decode not in _OPEN_BOXES:
        return plan
    boxes = _sure_boxes(plan, outputs)
    named = plan.decode is Decode.BOXES_SCORES or (
        plan.decode is Decode.YOLO_END2END and not plan.row_width
    )
    kind = source.box_format or BoxFormat.XYXY
    if named and source.box_format is None:
        ordered = not len(boxes) or bool((boxes[:, 2:] >= boxes[:, :2]).all())
        kind = guesses.add("box-format", BoxFormat.XYXY if ordered else BoxFormat.CXCYWH)
    unit = source.boxes
    if unit is None:
        shares = len(boxes) > 0 and float(np.abs(boxes).max()) <= _LARGEST_SHARE
        unit = guesses.add("boxes", BoxUnit.NORMALISED if shares else BoxUnit.PIXELS)
    return replace(plan, boxes=unit, box_format=kind)


def _cell_offset(plan: DetectorPlan, source: DetectorSource, guesses: Guesses) -> float:
    """NanoDet-Plus, which ends in one output of four levels, puts centres on cell corners."""
    if source.cell_offset is not None:
        return source.cell_offset
    plus = len(plan.tensors) == 1 and len(plan.strides) == 4
    return guesses.add("cell-offset", 0.0 if plus else 0.5)


def _sure_boxes(plan: DetectorPlan, outputs: list[Outputs]) -> Float32Array:
    """The surer boxes (D, 4) of all photos, as the detector gives them."""
    found = []
    for values in outputs:
        boxes, scores = decode_one(plan, values)
        best = scores.max(1, initial=0)
        found.append(boxes[best >= min(_SURE, float(best.max(initial=0)))])
    every: Float32Array = np.concatenate(found)
    kept: Float32Array = every[np.abs(every).sum(1) > 0]
    return kept


def check_scores(ordinal: str, plan: DetectorPlan, outputs: list[Outputs], file: OnnxFile) -> None:
    """Refuse what was decoded into no probabilities, or into no boxes."""
    for found in outputs:
        boxes, scores = decode_one(plan, found)
        low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
        if not (low >= -1e-3 and high <= 1 + 1e-3 and np.isfinite(boxes).all()):
            raise CheckpointError(
                f"{file.path}, decoded as {plan.decode.value}, gives class scores from {low:.3g} "
                f"to {high:.3g}, expected finite boxes and scores from 0 to 1; give another "
                f"--{ordinal}-decode, or export the detector with its sigmoid"
            )


def doubt(ordinal: str, plan: DetectorPlan, outputs: list[Outputs]) -> str | None:
    """A line where most of the surer boxes are empty, or smaller than a pixel."""
    boxes = _sure_boxes(plan, outputs)
    usable = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    if not len(boxes) or usable.mean() >= 0.5:
        return None
    return (
        f"warning: {int((~usable).sum())} of the {len(boxes)} surer boxes of the {ordinal} "
        f"detector on the built-in photos are empty or below a pixel; check --{ordinal}-decode, "
        f"--{ordinal}-boxes and --{ordinal}-box-format, and that it was exported with its decode"
    )
