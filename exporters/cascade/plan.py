"""From a file and what its user said of it to everything that a stage is written from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dyninfer.errors import CheckpointError, ConfigError, InputError
from dyninfer.exporters.cascade.guesses import (
    Guesses,
    declared_names,
    declared_size,
    guess_image,
)
from dyninfer.exporters.cascade.onnx_file import OnnxFile
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Decode,
    DetectorPlan,
    DetectorSource,
    Layout,
)
from dyninfer.exporters.cascade.original import (
    Candidates,
    OriginalDetector,
    Outputs,
    decode_one,
    sample_photos,
)
from dyninfer.exporters.cascade.recognise import MATCHERS, Measured, recognise
from dyninfer.exporters.class_names import COCO, class_names_for
from dyninfer.images.spec import MAX_SIDE
from dyninfer.types import Float32Array

_OPEN_BOXES = (Decode.DETECTIONS, Decode.BOXES_SCORES, Decode.YOLO_END2END)
_LARGEST_SHARE = 2.0  # boxes that reach past the image are still below this in shares of a side
_SURE = 0.05  # class score from which a box is looked at
_OTHER_TASKS = ("segment", "pose", "obb", "classify")  # of Ultralytics' metadata


@dataclass(frozen=True)
class PlannedDetector:
    """A detector whose meaning is settled.

    ``samples`` are prepared photos (1, 3, H, W) with the original's outputs for each. ``guesses``
    and ``doubt`` are lines for the user; the latter where boxes hardly look like boxes.
    """

    file: OnnxFile
    plan: DetectorPlan
    class_names: tuple[str, ...]
    samples: tuple[tuple[Float32Array, Outputs], ...]
    guesses: str | None
    doubt: str | None

    @cached_property
    def expected(self) -> list[Candidates]:
        """What the original gives for every sample."""
        return [decode_one(self.plan, outputs) for _, outputs in self.samples]


def plan_detector(prefix: str, source: DetectorSource, file: OnnxFile) -> PlannedDetector:
    """Settle what a detector takes and gives, by its file and by running it.

    ``prefix`` is how the options for this detector begin: ``first-``, or nothing for one alone.

    Raises:
        CheckpointError: it does not run, or what it gives is not what the decode expects.
        ConfigError: something cannot be worked out, or class names do not fit.
        InputError: the image size is not the file's.
    """
    guesses = Guesses(prefix, file.path.name)
    layout = source.layout or _layout(prefix, file)
    size = _size(prefix, source, file, layout, guesses)
    original = OriginalDetector(file, layout)
    grey = original.run(np.full((1, 3, *size), 0.5, np.float32))
    names = declared_names(source, file)
    measured = Measured(grey, size, None if names is None else len(names))
    decode = source.decode or guesses.add("decode", _decode(prefix, measured, file))
    match = MATCHERS[decode](measured)
    if match is None:
        raise ConfigError(
            f"{file.path} has the outputs {_shown(measured.outputs)}, which do not fit the decode "
            f"{decode.value}; give --{prefix}decode with another of {', '.join(Decode)}"
        )
    if names is None:
        names = class_names_for(len(COCO) if match.classes is None else match.classes, None)
        guesses.add("class-names", "COCO's 80" if names == COCO else f"class_0 to {names[-1]}")
    elif match.classes not in (None, len(names)):
        raise ConfigError(
            f"{source.class_names or file.path} names {len(names)} classes, but the outputs of "
            f"{file.path} have {match.classes}"
        )
    image = guess_image(source, file, decode, layout, size, guesses)
    settled = {**vars(match), "classes": len(names)}
    plan = DetectorPlan(**settled, decode=decode, layout=layout, image=image)
    prepared = [image.prepare(photo)[None] for photo in sample_photos()]
    samples = tuple((photo, original.run(photo)) for photo in prepared)
    outputs = [found for _, found in samples]
    plan = _settle_boxes(plan, source, outputs, guesses)
    doubt = _check_boxes(prefix, plan, outputs, file)
    return PlannedDetector(file, plan, names, samples, guesses.line(), doubt)


def _layout(prefix: str, file: OnnxFile) -> Layout:
    shape = file.image.shape or (None, None, None, None)
    if (shape[1] == 3) != (shape[3] == 3):
        return Layout.NCHW if shape[1] == 3 else Layout.NHWC
    raise ConfigError(
        f"{file.path} has the image input {file.image}, which does not tell where its 3 colours "
        f"are; give --{prefix}layout nchw or nhwc"
    )


def _size(
    prefix: str, source: DetectorSource, file: OnnxFile, layout: Layout, guesses: Guesses
) -> tuple[int, int]:
    shape = file.image.shape or (None, None, None, None)
    fixed = shape[2:4] if layout is Layout.NCHW else shape[1:3]
    height, width = source.size or fixed
    if (height is None or width is None) and (noted := declared_size(file)):
        guesses.add("size", f"{noted[0]}x{noted[1]}")
        height, width = noted
    if height is None or width is None:
        raise ConfigError(
            f"{file.path} takes images of any size ({file.image}); "
            f"give the size with --{prefix}size N or HxW"
        )
    size = height, width
    if any(own is not None and own != side for own, side in zip(fixed, size, strict=True)):
        shown = "x".join("any" if side is None else str(side) for side in fixed)
        raise InputError(
            f"--{prefix}size is {size[0]}x{size[1]}, but {file.path} was exported for {shown} "
            f"only; leave --{prefix}size out, or export the detector for the other size"
        )
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise InputError(
            f"--{prefix}size is {size[0]}x{size[1]}, expected sides from 1 to {MAX_SIDE} pixels"
        )
    return size


def _shown(outputs: Outputs) -> str:
    return ", ".join(f"{name} ({', '.join(map(str, a.shape))})" for name, a in outputs.items())


def _decode(prefix: str, measured: Measured, file: OnnxFile) -> Decode:
    task = file.metadata.get("task")
    decode = None if task in _OTHER_TASKS else recognise(measured)
    if decode is None:
        why = f", made for the task {task!r}," if task in _OTHER_TASKS else ""
        raise ConfigError(
            f"{file.path}{why} has the outputs {_shown(measured.outputs)}, which no decode is "
            f"recognised by; give --{prefix}decode with one of {', '.join(Decode)}"
        )
    return decode


def _settle_boxes(
    plan: DetectorPlan, source: DetectorSource, outputs: list[Outputs], guesses: Guesses
) -> DetectorPlan:
    """Unit and format of boxes where the decode leaves them open; NanoDet's cell centres."""
    if plan.decode is Decode.NANODET:
        offset = source.cell_offset
        if offset is None:  # NanoDet-Plus, with one output of four levels, has them on corners
            plus = len(plan.tensors) == 1 and len(plan.strides) == 4
            offset = guesses.add("cell-offset", 0.0 if plus else 0.5)
        return replace(plan, cell_offset=offset)
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


def _check_boxes(
    prefix: str, plan: DetectorPlan, outputs: list[Outputs], file: OnnxFile
) -> str | None:
    """Refuse what is no probability or no box; a line where most of the surer boxes are empty."""
    for found in outputs:
        boxes, scores = decode_one(plan, found)
        low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
        if not (low >= -1e-3 and high <= 1 + 1e-3 and np.isfinite(boxes).all()):
            raise CheckpointError(
                f"{file.path}, decoded as {plan.decode.value}, gives class scores from {low:.3g} "
                f"to {high:.3g}, expected finite boxes and scores from 0 to 1; give another "
                f"--{prefix}decode, or export the detector with its sigmoid"
            )
    boxes = _sure_boxes(plan, outputs)
    usable = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    if not len(boxes) or usable.mean() >= 0.5:
        return None
    return (
        f"warning: {int((~usable).sum())} of the {len(boxes)} surer boxes of {file.path} on "
        f"the built-in photos are empty or below a pixel; check --{prefix}decode, "
        f"--{prefix}boxes and --{prefix}box-format, and that it was exported with its decode"
    )
