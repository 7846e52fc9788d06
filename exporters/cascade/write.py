"""What all detectors share, and the stages of ONNX files: the work of the export's child."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dyninfer.bundle.manifest import Stage
from dyninfer.errors import ConfigError, DyninferError
from dyninfer.exporters.cascade.classes import reconcile
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import (
    ALONE,
    ONNX_OPTIONS,
    ORDINALS,
    SIZED,
    ClassList,
    DetectorPlan,
    DetectorSource,
    check_options,
)
from dyninfer.exporters.cascade.picture import write_picture
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector, refuse_fixed
from dyninfer.exporters.cascade.stage import write_stage
from dyninfer.exporters.limited import Message, Progress, serve
from dyninfer.exporters.shared_weights import share_weights
from dyninfer.images.spec import ImageSpec

IMAGES = "images"
_SAME = ("class_numbers", "score_kind", "cell_offset", "unit", "box_format")
"""Fields of a plan that an image's size does not change."""


@dataclass(frozen=True)
class Settled:
    """What the others must know of a detector that is no ONNX file."""

    class_names: tuple[str, ...]
    image: ImageSpec


@dataclass(frozen=True)
class Request:
    """What is to be written: stages of ``detectors``, into ``folder``.

    ``settled`` has an entry for each detector: None for an ONNX file, which is to be read.
    ``candidates`` is how many boxes each gives on, None for all. With ``select`` they are one
    file at several sizes, the branches of a select route.
    """

    detectors: tuple[DetectorSource, ...]
    settled: tuple[Settled | None, ...]
    folder: Path
    classes: ClassList
    candidates: int | None
    select: bool = False


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
    with fields_named():
        names, planned = (
            _planned_sizes(asked, progress) if asked.select else _planned(asked, progress)
        )
    classes = reconcile([detector.class_names for detector in planned], asked.classes)
    files = {
        name: replace(
            detector,
            plan=replace(detector.plan, bundle_classes=columns, candidates=asked.candidates),
        )
        for name, detector, columns in zip(names, planned, classes.columns, strict=True)
        if isinstance(detector, PlannedDetector)
    }
    said = [(detector.guesses or "", detector.doubt or "") for detector in files.values()]
    lines = [line for pair in said for note in pair for line in note.splitlines()]
    notes: list[str | None] = [*dict.fromkeys(lines), *classes.notes]
    images = [d.image if isinstance(d, Settled) else d.plan.image for d in planned]
    inputs = name_inputs(images)
    stages = {}
    for name, image_input in zip(names, inputs, strict=True):
        if name in files:
            progress(f"writing {name}")
            stages[name], note = write_stage(name, files[name], image_input, asked.folder)
            drawn = write_picture(
                name, files[name], classes.names, asked.folder, sized=asked.select
            )
            notes += [note, drawn]
    written = Written(
        names=tuple(names),
        columns=classes.columns,
        inputs=tuple(inputs),
        class_names=classes.names,
        images=dict(zip(inputs, images, strict=True)),
        stages=share_weights(asked.folder, stages) if asked.select else stages,
        sha256={name: detector.file.sha256 for name, detector in files.items()},
        notes=tuple(note for note in notes if note),
    )
    made: dict[str, Any] = WRITTEN.dump_python(written, mode="json")
    return made


_Planned = list[PlannedDetector | Settled]


def _planned(asked: Request, progress: Progress) -> tuple[Sequence[str], _Planned]:
    """Detectors, each with the name of its stage."""
    several = len(asked.detectors) > 1
    names = ORDINALS[: len(asked.detectors)] if several else (ALONE,)
    planned: _Planned = []
    for name, source, settled in zip(names, asked.detectors, asked.settled, strict=True):
        if settled is not None:
            planned.append(settled)
            continue
        progress(f"reading {name}")
        prefix = f"{name}-" if several else ""
        check_options(prefix, source, "an ONNX file", ONNX_OPTIONS)
        planned.append(plan_detector(prefix, source, read_onnx(source.path)))
    return names, planned


def _planned_sizes(asked: Request, progress: Progress) -> tuple[Sequence[str], _Planned]:
    """One file at every size, read as it is at the largest, where most is found.

    Raises:
        InputError: the file has a fixed size.
        ConfigError: it is another detector at another size.
    """
    *smaller, largest = asked.detectors
    file = read_onnx(largest.path)
    sizes = [source.size for source in asked.detectors if source.size]
    names = [f"{SIZED}{height}" + f"x{width}" * (height != width) for height, width in sizes]
    refuse_fixed(file, largest, len(sizes))
    progress(f"reading {names[-1]}")
    first = plan_detector("", largest, file)
    planned: _Planned = [first]
    settled = _settled(first.plan)
    for name, source in zip(reversed(names[:-1]), reversed(smaller), strict=True):
        progress(f"reading {name}")
        found = plan_detector("", replace(source, **settled), file)
        read = [
            (d.class_names, *(getattr(d.plan, field) for field in _SAME)) for d in (found, first)
        ]
        if read[0] != read[1]:
            raise ConfigError(
                f"{file.path} is read in one way for {names[-1]} and in another for {name}; say "
                "what its outputs mean with --class-names, --class-offset, --scores and --boxes"
            )
        planned.insert(0, replace(found, guesses=None))
    return names, planned


def _settled(plan: DetectorPlan) -> dict[str, Any]:
    """What was found of a detector, as one says it of a :class:`DetectorSource`."""
    image = plan.image
    return {
        "decode": plan.decode,
        "layout": plan.layout,
        "mean": image.mean,
        "std": image.std,
        "color": image.color_order,
        "resize": image.resize,
    }


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
