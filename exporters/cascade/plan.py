"""From a file and what its user said of it to everything that a stage is written from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dyninfer.errors import ConfigError, InputError
from dyninfer.exporters.cascade.boxes import check_boxes, score_kind, settle_boxes
from dyninfer.exporters.cascade.conventions import (
    LEVELS,
    SCALES,
    YOLO,
    Known,
    Picture,
    conventions,
)
from dyninfer.exporters.cascade.guesses import (
    Guesses,
    declared_names,
    declared_size,
    prepared_with,
)
from dyninfer.exporters.cascade.measured import Measured
from dyninfer.exporters.cascade.numbering import (
    PHOTOS,
    RIGHT,
    count_right,
    settle_classes,
    shows_known,
)
from dyninfer.exporters.cascade.onnx_file import OnnxFile
from dyninfer.exporters.cascade.options import (
    Decode,
    DetectorPlan,
    DetectorSource,
    Layout,
    Match,
)
from dyninfer.exporters.cascade.original import (
    Candidates,
    OriginalDetector,
    Outputs,
    decode_one,
    sample_photos,
)
from dyninfer.exporters.cascade.other_tasks import refuse_other_tasks
from dyninfer.exporters.cascade.recognise import MATCHERS, recognise
from dyninfer.images.spec import MAX_SIDE, ImageSpec
from dyninfer.types import Float32Array

_Prepared = tuple[ImageSpec, list[Float32Array]]


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
        ConfigError: something cannot be worked out, or class names or options do not fit.
        InputError: the image size is not the file's.
    """
    guesses = Guesses(prefix, file.path.name)
    layout = source.layout or _layout(prefix, file)
    size = _size(prefix, source, file, layout, guesses)
    names = declared_names(prefix, source, file)
    planner = _Planner(source, file, names, layout, size, OriginalDetector(file, layout))
    measured, _ = planner.measure(LEVELS if layout is Layout.NHWC else YOLO, guesses.fresh())
    recognised = source.decode or recognise(measured)
    refuse_other_tasks(file, measured, recognised, settled=source.decode is not None)
    decode = source.decode or guesses.add("decode", _known(prefix, recognised, measured, file))
    match = _match(prefix, decode, measured, file)
    known = conventions(file, decode, match, layout, measured)
    usual = found = planner.settle(decode, match, known, known.picture, guesses.fresh())
    if source.mean is source.std is None and found.right < RIGHT and shows_known(found.names):
        others = (Picture(known.picture.resize, mean=mean, std=std) for mean, std in SCALES)
        tried = (planner.settle(decode, match, known, other, guesses.fresh()) for other in others)
        found = next((other for other in tried if other.right >= RIGHT), usual)
    doubts = [found.doubt, check_boxes(prefix, found.plan, source, found.outputs)]
    if not found.right and shows_known(found.names):
        doubts.append(
            f"warning: {file.path} finds neither {', '.join(PHOTOS[:-1])} nor {PHOTOS[-1]} on the "
            f"built-in photos; check --{prefix}normalise, --{prefix}color and --{prefix}decode"
        )
    doubt = "\n".join(line for line in doubts if line) or None
    guesses.take(found.guesses)
    return PlannedDetector(file, found.plan, found.names, found.samples, guesses.line(), doubt)


@dataclass(frozen=True)
class _Settled:
    """A detector as it is read where pictures are prepared in one way.

    ``right`` is on how many of the photos whose subject is known it finds that. ``samples`` are
    the photos with what it gives, ``outputs`` also what it gives for a grey picture.
    """

    plan: DetectorPlan
    names: tuple[str, ...]
    samples: tuple[tuple[Float32Array, Outputs], ...]
    outputs: tuple[Outputs, ...]
    right: int
    guesses: Guesses
    doubt: str | None


@dataclass(frozen=True)
class _Planner:
    """What is settled of a detector before its decode is."""

    source: DetectorSource
    file: OnnxFile
    names: tuple[str, ...] | None
    layout: Layout
    size: tuple[int, int]
    original: OriginalDetector

    def measure(self, picture: Picture, guesses: Guesses) -> tuple[Measured, _Prepared]:
        """What it gives for the built-in photos and for grey; the photos as they are prepared."""
        image = prepared_with(self.source, self.file, picture, self.size, guesses)
        photos = [image.prepare(photo)[None] for photo in sample_photos()]
        grey = np.full((1, 3, *self.size), 0.5, np.float32)
        samples = tuple(self.original.run(picture) for picture in (*photos, grey))
        named = None if self.names is None else len(self.names)
        measured = Measured(samples, self.size, named, self.original.declared)
        return measured, (image, photos)

    def settle(
        self, decode: Decode, match: Match, known: Known, picture: Picture, guesses: Guesses
    ) -> _Settled:
        """Read it with this decode; ``match`` stands in where nothing is found in the photos."""
        source = self.source
        measured, (image, photos) = self.measure(picture, guesses)
        match = MATCHERS[decode](measured) or match
        kind = score_kind(source, decode, match, measured)
        classes = settle_classes(source, self.names, match, kind, known, measured, guesses)
        plan = DetectorPlan(
            **vars(match),
            decode=decode,
            layout=self.layout,
            image=image,
            class_numbers=classes.numbers,
            score_kind=kind,
        )
        plan = settle_boxes(plan, source, known, measured, guesses)
        outputs = measured.samples
        right = count_right(classes.names, [decode_one(plan, o)[1] for o in outputs])
        samples = tuple(zip(photos, outputs, strict=False))
        return _Settled(plan, classes.names, samples, outputs, right, guesses, classes.doubt)


def _match(prefix: str, decode: Decode, measured: Measured, file: OnnxFile) -> Match:
    match = MATCHERS[decode](measured)
    if match is None:
        raise ConfigError(
            f"{file.path} has the outputs {_shown(measured.outputs)}, which do not fit the decode "
            f"{decode.value}; give --{prefix}decode with another of {', '.join(Decode)}"
        )
    return match


def _image_axes(file: OnnxFile) -> tuple[int | None, ...]:
    """Four axes of the image, the first that of images."""
    shape = file.image.shape or (None, None, None, None)
    return (1, *shape) if len(shape) == 3 else shape


def _layout(prefix: str, file: OnnxFile) -> Layout:
    shape = _image_axes(file)
    if (shape[1] == 3) != (shape[3] == 3):
        return Layout.NCHW if shape[1] == 3 else Layout.NHWC
    raise ConfigError(
        f"{file.path} has the image input {file.image}, which does not tell where its 3 colours "
        f"are; give --{prefix}layout nchw or nhwc"
    )


def refuse_fixed(file: OnnxFile, source: DetectorSource, sizes: int) -> None:
    """Refuse several sizes of a file that has one.

    Raises:
        InputError: its image input has a fixed height or width.
    """
    layout = source.layout or _layout("", file)
    sides = _image_axes(file)[2:4] if layout is Layout.NCHW else _image_axes(file)[1:3]
    if any(side is not None for side in sides):
        shown = "x".join("any" if side is None else str(side) for side in sides)
        raise InputError(
            f"{sizes} image sizes are given, but {file.path} was exported for {shown} only; give "
            "one, or export the detector with dynamic height and width"
        )


def _size(
    prefix: str, source: DetectorSource, file: OnnxFile, layout: Layout, guesses: Guesses
) -> tuple[int, int]:
    shape = _image_axes(file)
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


def _known(prefix: str, decode: Decode | None, measured: Measured, file: OnnxFile) -> Decode:
    if decode is None:
        raise ConfigError(
            f"{file.path} has the outputs {_shown(measured.outputs)}, which no decode is "
            f"recognised by; give --{prefix}decode with one of {', '.join(Decode)}"
        )
    return decode
