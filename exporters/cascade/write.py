"""What all detectors share, and the stages of ONNX files: the work of the export's child."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dyninfer.bundle.manifest import Stage
from dyninfer.errors import DyninferError
from dyninfer.exporters.cascade.classes import reconcile
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import (
    ALONE,
    ONNX_OPTIONS,
    ORDINALS,
    ClassList,
    DetectorSource,
    check_options,
)
from dyninfer.exporters.cascade.picture import write_picture
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector
from dyninfer.exporters.cascade.stage import write_stage
from dyninfer.exporters.limited import Message, Progress, serve
from dyninfer.images.spec import ImageSpec

IMAGES = "images"


@dataclass(frozen=True)
class Settled:
    """What the others must know of a detector that is no ONNX file."""

    class_names: tuple[str, ...]
    image: ImageSpec


@dataclass(frozen=True)
class Request:
    """What is to be written: stages of ``detectors``, into ``folder``.

    ``settled`` has an entry for each detector: None for an ONNX file, which is to be read.
    """

    detectors: tuple[DetectorSource, ...]
    settled: tuple[Settled | None, ...]
    folder: Path
    classes: ClassList


@dataclass(frozen=True)
class Written:
    """What was settled, and what was written of ONNX files.

    There is one of ``names``, ``columns`` and ``inputs`` for each detector: of its first stage, of
    the bundle's classes among its own (-1 where it has none), and of its image input. ``stages``
    and ``sha256`` are of ONNX files, ``notes`` lines for the user.
    """

    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    inputs: tuple[str, ...]
    class_names: tuple[str, ...]
    images: Mapping[str, ImageSpec]
    stages: Mapping[str, Stage]
    sha256: Mapping[str, str]
    notes: tuple[str, ...]


REQUEST, WRITTEN = TypeAdapter(Request), TypeAdapter(Written)


def write_stages(request: Message, progress: Progress) -> dict[str, Any]:
    """Settle what a :class:`Request` leaves open, and write its ONNX files: a :class:`Written`.

    Raises:
        DyninferError: a subclass that names the cause.
    """
    asked = REQUEST.validate_python(request, strict=False)
    several = len(asked.detectors) > 1
    names = ORDINALS[: len(asked.detectors)] if several else (ALONE,)
    planned: list[PlannedDetector | Settled] = []
    for name, source, settled in zip(names, asked.detectors, asked.settled, strict=True):
        if settled is not None:
            planned.append(settled)
            continue
        progress(f"reading {name}")
        prefix = f"{name}-" if several else ""
        with fields_named():
            check_options(prefix, source, "an ONNX file", ONNX_OPTIONS)
            planned.append(plan_detector(prefix, source, read_onnx(source.path)))
    classes = reconcile([detector.class_names for detector in planned], asked.classes)
    files = {
        name: replace(detector, plan=replace(detector.plan, bundle_classes=columns))
        for name, detector, columns in zip(names, planned, classes.columns, strict=True)
        if isinstance(detector, PlannedDetector)
    }
    said = [(detector.guesses or "", detector.doubt or "") for detector in files.values()]
    lines = [line for pair in said for note in pair for line in note.splitlines()]
    notes: list[str | None] = [*lines, *classes.notes]
    images = [d.image if isinstance(d, Settled) else d.plan.image for d in planned]
    inputs = name_inputs(images)
    stages = {}
    for name, image_input in zip(names, inputs, strict=True):
        if name in files:
            progress(f"writing {name}")
            stages[name], note = write_stage(name, files[name], image_input, asked.folder)
            notes += [note, write_picture(name, files[name], classes.names, asked.folder)]
    written = Written(
        names=names,
        columns=classes.columns,
        inputs=tuple(inputs),
        class_names=classes.names,
        images=dict(zip(inputs, images, strict=True)),
        stages=stages,
        sha256={name: detector.file.sha256 for name, detector in files.items()},
        notes=tuple(note for note in notes if note),
    )
    made: dict[str, Any] = WRITTEN.dump_python(written, mode="json")
    return made


@contextmanager
def fields_named() -> Iterator[None]:
    """Adds to an error that names options what these are in Python."""
    try:
        yield
    except DyninferError as error:
        if "--" not in str(error):
            raise
        raise type(error)(f"{error} (in Python: the fields of DetectorSource)") from error


def name_inputs(images: Sequence[ImageSpec]) -> list[str]:
    """``images``, ``images_2``, ...: by exit; exits that want the very same tensor share one."""
    names: dict[ImageSpec, str] = {}
    for number, image in enumerate(images, 1):
        names.setdefault(image, IMAGES if number == 1 else f"{IMAGES}_{number}")
    return [names[image] for image in images]


if __name__ == "__main__":
    serve(write_stages)
