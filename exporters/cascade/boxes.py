"""What a detector's boxes and scores are, by what is asked for, known and seen on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dyninfer.errors import CheckpointError, ConfigError
from dyninfer.exporters.cascade.conventions import Known
from dyninfer.exporters.cascade.guesses import Guesses
from dyninfer.exporters.cascade.measured import Measured
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Coding,
    Decode,
    DetectorPlan,
    DetectorSource,
    Match,
    Scores,
)
from dyninfer.exporters.cascade.original import Outputs, decode_one
from dyninfer.types import Float32Array, Float64Array

_CENTRED = (Decode.YOLOV5, Decode.YOLOV8, Decode.DETR, Decode.RTDETR)
_LARGEST_SHARE = 2.0  # boxes that reach past the image are still below this in shares of a side
_SURE = 0.05  # class score from which a box is looked at
_MANY = 20  # more confident boxes that have to be wrong together for a guess to be given up
_CORNER = 0.05  # share of a side within which boxes lie that are offsets in cells
_MOST = 0.98  # share of boxes that a format must explain to be taken


def score_kind(source: DetectorSource, decode: Decode, match: Match, measured: Measured) -> Scores:
    """What scores are: as asked for, else as the decode has them; heatmaps may be logits."""
    kinds = {Decode.DETR: Scores.SOFTMAX, Decode.RTDETR: Scores.LOGITS}
    kind = source.scores or kinds.get(decode, Scores.PROBABILITIES)
    if kind is Scores.SOFTMAX and (match.labels is not None or match.varies):
        raise ConfigError(
            f"a softmax needs a score of every class for the same number of boxes in every "
            f"picture, which {source.path} does not give; say what its scores are (--scores)"
        )
    if decode is Decode.CENTERNET and source.scores is None:
        (name,) = match.scores.tensors
        return Scores.PROBABILITIES if measured.in_unit(name) else Scores.LOGITS
    return kind


def settle_boxes(
    plan: DetectorPlan,
    source: DetectorSource,
    known: Known,
    measured: Measured,
    guesses: Guesses,
) -> DetectorPlan:
    """Unit and format of boxes, or where cells have their centres.

    Raises:
        ConfigError: an option is given that the decode has no use for.
    """
    _refuse_unused(plan, source, guesses.prefix)
    if plan.coding is not Coding.PLAIN:
        return _settle_cells(plan, source, guesses)
    raw = replace(plan, unit=BoxUnit.PIXELS, box_format=BoxFormat.XYXY)
    sure = _sure_boxes(raw, measured.samples)
    unit = source.boxes or known.unit
    if unit is None:
        shares = len(sure) > 0 and float(np.abs(sure).max()) <= _LARGEST_SHARE
        unit = BoxUnit.NORMALISED if shares else BoxUnit.PIXELS
    usual = BoxFormat.CXCYWH if plan.decode in _CENTRED else BoxFormat.XYXY
    kind = source.box_format or known.box_format
    if kind is None:
        side = (plan.image.width, plan.image.height) if unit is BoxUnit.PIXELS else (1, 1)
        kind = _format_seen(usual, sure, measured.boxes(plan), side)
    open_format = plan.decode is Decode.BOXES_SCORES or len(plan.boxes[0].tensors) > 1
    if source.box_format is None and (open_format or kind is not usual or len(plan.tensors) > 2):
        guesses.add("box-format", kind)
    if source.boxes is None and (plan.decode not in _CENTRED or unit is not BoxUnit.PIXELS):
        guesses.add("boxes", unit)
    return replace(plan, unit=unit, box_format=kind)


def _refuse_unused(plan: DetectorPlan, source: DetectorSource, prefix: str) -> None:
    """Every option is obeyed or refused."""
    plain = plan.coding is Coding.PLAIN
    centred = (BoxFormat.CXCYWH, BoxFormat.CYCXHW)
    peaks = plan.coding is Coding.PEAKS and source.box_format in centred
    wrong = {
        "boxes": source.boxes is not None and not plain,
        "box-format": source.box_format is not None and not plain and not peaks,
        "cell-offset": source.cell_offset is not None and plain,
    }
    for option in (name for name, unused in wrong.items() if unused):
        reads = "plain boxes" if plain else "no plain boxes"
        allowed = "; it takes cxcywh or cycxhw" if plan.coding is Coding.PEAKS else ""
        raise ConfigError(
            f"--{prefix}{option} changes nothing for the decode {plan.decode.value}, which reads "
            f"{reads}{allowed if option == 'box-format' else ''}; leave it out, or give another "
            f"--{prefix}decode"
        )


def _settle_cells(plan: DetectorPlan, source: DetectorSource, guesses: Guesses) -> DetectorPlan:
    """Where in a cell its centre lies, and at peaks whether y comes first."""
    kind = BoxFormat.CXCYWH
    if plan.coding is Coding.PEAKS:
        usual = BoxFormat.CYCXHW if plan.log_sizes else kind  # CenterFace, else CenterNet
        kind = source.box_format or guesses.add("box-format", usual)
    offset = source.cell_offset
    if offset is None:
        middle = plan.log_sizes
        if plan.coding is Coding.DISTANCES:  # NanoDet-Plus has one output, of four levels
            middle = len(plan.tensors) > 1 or len(plan.strides) != 4
        offset = guesses.add("cell-offset", 0.5 if middle else 0.0)
    return replace(plan, box_format=kind, cell_offset=offset)


def _format_seen(
    usual: BoxFormat, sure: Float32Array, every: Float64Array, sides: tuple[float, float]
) -> BoxFormat:
    """The format in which the boxes are boxes; the usual one where that does not tell.

    Of centres and sizes, few of all boxes are as wide as their centre is far from the left; of
    corners, the surer ones are all in order. A corner and a size stay within the image where a
    centre of the same numbers would not.
    """
    every = every[np.abs(every).sum(1) > 0]
    if usual is BoxFormat.CXCYWH:
        return BoxFormat.XYXY if len(every) > 20 and _ordered(every) >= _MOST else usual
    if not len(sure) or _ordered(sure) >= _MOST:
        return BoxFormat.XYXY
    limits = np.array(sides) * 1.02
    starts, ends = sure[:, :2], sure[:, :2] + sure[:, 2:]
    within = (starts - sure[:, 2:] / 2 >= -0.02 * limits).all(1)
    cornered = ((starts >= -0.02 * limits) & (ends <= limits)).all(1)
    return BoxFormat.XYWH if cornered.mean() >= _MOST > 0.8 > within.mean() else BoxFormat.CXCYWH


def _ordered(boxes: Float32Array | Float64Array) -> float:
    return float((boxes[:, 2:] >= boxes[:, :2]).all(1).mean())


def _sure_boxes(plan: DetectorPlan, outputs: Sequence[Outputs]) -> Float32Array:
    """The more confident boxes (D, 4) of all photos, as the plan reads them."""
    found = []
    for values in outputs:
        boxes, scores = decode_one(plan, values)
        best = scores.max(1, initial=0)
        found.append(boxes[best >= min(_SURE, float(best.max(initial=0)))])
    every: Float32Array = np.concatenate(found)
    kept: Float32Array = every[np.abs(every).sum(1) > 0]
    return kept


def check_boxes(
    prefix: str,
    plan: DetectorPlan,
    source: DetectorSource,
    outputs: Sequence[Outputs],
) -> str | None:
    """Refuse what is no probability or no box; a line where most confident boxes are empty.

    Raises:
        CheckpointError: scores are no probabilities; or all boxes lie in a corner, and nobody
            said that this is how they are to be read.
    """
    for found in outputs:
        boxes, scores = decode_one(plan, found)
        low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
        if not (low >= -1e-3 and high <= 1 + 1e-3 and np.isfinite(boxes).all()):
            raise CheckpointError(
                f"{source.path}, decoded as {plan.decode.value}, gives class scores from {low:.3g} "
                f"to {high:.3g}, expected finite boxes and scores from 0 to 1; give "
                f"--{prefix}scores logits, another --{prefix}decode, or export the detector "
                "with its sigmoid"
            )
    boxes = _sure_boxes(plan, outputs)
    sides = np.array([plan.image.width, plan.image.height])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    usable = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    usable &= ((centres >= -0.1 * sides) & (centres <= 1.1 * sides)).all(1)
    cornered = len(boxes) >= _MANY and bool((np.abs(centres) <= _CORNER * sides).all())
    if not len(boxes) or (usable.mean() >= 0.5 and not cornered):
        return None
    what = "within a few pixels of the top left corner"
    if not cornered:
        what = "empty, below a pixel or outside the image"
    options = ("decode",) if plan.coding is not Coding.PLAIN else ("decode", "boxes", "box-format")
    named = ", ".join(f"--{prefix}{option}" for option in options)
    number = len(boxes) if cornered else int((~usable).sum())
    line = (
        f"{number} of the {len(boxes)} more confident boxes of {source.path}, decoded as "
        f"{plan.decode.value}, are {what} on the built-in photos; check {named}, and that it was "
        "exported with its decode"
    )
    if cornered and not (source.decode or source.boxes or source.box_format):
        raise CheckpointError(line)
    return f"warning: {line}"
