"""From a file and what its user said of it to everything that a stage is written from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dyninfer.errors import ConfigError, InputError
from dyninfer.exporters.cascade.boxes import check_scores, doubt, settle_boxes
from dyninfer.exporters.cascade.guesses import (
    Guesses,
    declared_names,
    declared_size,
    guess_image,
)
from dyninfer.exporters.cascade.onnx_file import OnnxFile, Port
from dyninfer.exporters.cascade.options import Decode, DetectorPlan, DetectorSource, Layout, Match
from dyninfer.exporters.cascade.original import OriginalDetector, Outputs, sample_photos
from dyninfer.exporters.cascade.recognise import MATCHERS, Measured, recognise
from dyninfer.exporters.class_names import COCO, class_names_for
from dyninfer.images.spec import MAX_SIDE
from dyninfer.types import Float32Array

_OTHER_TASKS = ("segment", "pose", "obb", "classify")  # of Ultralytics' metadata


@dataclass(frozen=True)
class PlannedDetector:
    """A detector whose meaning is settled.

    ``samples`` are prepared photos (1, 3, H, W) with the original's outputs for each.
    ``guesses`` is one line for the user, or None where nothing was guessed; ``doubt`` one where
    the boxes that were decoded hardly look like boxes.
    """

    file: OnnxFile
    plan: DetectorPlan
    class_names: tuple[str, ...]
    samples: tuple[tuple[Float32Array, Outputs], ...]
    guesses: str | None
    doubt: str | None


def plan_detector(ordinal: str, source: DetectorSource, file: OnnxFile) -> PlannedDetector:
    """Settle what a detector takes and gives, by its file and by running it.

    ``ordinal`` is ``first``, ``second``, ...: how the options for this detector begin.

    Raises:
        CheckpointError: it does not run, or what it gives is not what the decode expects.
        ConfigError: something cannot be worked out, or class names do not fit.
        InputError: the image size is not the file's.
    """
    guesses = Guesses(ordinal, file.path.name)
    layout = source.layout or _layout(ordinal, file)
    size = _size(ordinal, source, file, layout, guesses)
    original = OriginalDetector(file, layout)
    grey = original.run(np.full((1, 3, *size), 0.5, np.float32))
    names = declared_names(source, file)
    measured = Measured(grey, size, None if names is None else len(names))
    decode = source.decode or guesses.add("decode", _decode(ordinal, measured, file))
    match = _match(ordinal, decode, measured, file)
    names = _class_names(names, match, source, file, guesses)
    image = guess_image(source, file, decode, layout, size, guesses)
    settled = {**vars(match), "classes": len(names)}
    plan = DetectorPlan(**settled, decode=decode, layout=layout, image=image)
    prepared = [image.prepare(photo)[None] for photo in sample_photos()]
    samples = tuple((photo, original.run(photo)) for photo in prepared)
    outputs = [found for _, found in samples]
    plan = settle_boxes(plan, source, outputs, guesses)
    check_scores(ordinal, plan, outputs, file)
    return PlannedDetector(
        file, plan, names, samples, guesses.line(), doubt(ordinal, plan, outputs)
    )


def _layout(ordinal: str, file: OnnxFile) -> Layout:
    shape = file.image.shape or (None, None, None, None)
    if (shape[1] == 3) != (shape[3] == 3):
        return Layout.NCHW if shape[1] == 3 else Layout.NHWC
    raise ConfigError(
        f"{file.path} has the image input {file.image}, which does not tell where its 3 colours "
        f"are; give --{ordinal}-layout nchw or nhwc"
    )


def _size(
    ordinal: str, source: DetectorSource, file: OnnxFile, layout: Layout, guesses: Guesses
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
            f"give the size with --{ordinal}-size N or HxW"
        )
    size = height, width
    if any(own is not None and own != side for own, side in zip(fixed, size, strict=True)):
        shown = "x".join("any" if side is None else str(side) for side in fixed)
        raise InputError(
            f"--{ordinal}-size is {size[0]}x{size[1]}, but {file.path} was exported for {shown} "
            f"only; leave --{ordinal}-size out, or export the detector for the other size"
        )
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise InputError(
            f"--{ordinal}-size is {size[0]}x{size[1]}, expected sides from 1 to {MAX_SIDE} pixels"
        )
    return size


def _shown(outputs: Outputs) -> str:
    return ", ".join(
        str(Port(name, 0, tuple(int(n) for n in array.shape))) for name, array in outputs.items()
    )


def _decode(ordinal: str, measured: Measured, file: OnnxFile) -> Decode:
    task = file.metadata.get("task")
    decode = None if task in _OTHER_TASKS else recognise(measured)
    if decode is None:
        why = f", made for the task {task!r}," if task in _OTHER_TASKS else ""
        raise ConfigError(
            f"{file.path}{why} has the outputs {_shown(measured.outputs)}, which no decode is "
            f"recognised by; give --{ordinal}-decode with one of {', '.join(Decode)}"
        )
    return decode


def _match(ordinal: str, decode: Decode, measured: Measured, file: OnnxFile) -> Match:
    match = MATCHERS[decode](measured)
    if match is None:
        raise ConfigError(
            f"{file.path} has the outputs {_shown(measured.outputs)}, which do not fit the decode "
            f"{decode.value}; give --{ordinal}-decode with another of {', '.join(Decode)}"
        )
    return match


def _class_names(
    declared: tuple[str, ...] | None,
    match: Match,
    source: DetectorSource,
    file: OnnxFile,
    guesses: Guesses,
) -> tuple[str, ...]:
    if declared is None:
        classes = len(COCO) if match.classes is None else match.classes
        names = class_names_for(classes, None)
        guesses.add("class-names", "COCO's 80" if names == COCO else f"class_0 to {names[-1]}")
        return names
    if match.classes not in (None, len(declared)):
        raise ConfigError(
            f"{source.class_names or file.path} names {len(declared)} classes, but the outputs of "
            f"{file.path} have {match.classes}"
        )
    return declared
