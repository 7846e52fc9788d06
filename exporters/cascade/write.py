"""The stages of detectors, written from their files: the work of the export's child."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dyninfer import __version__
from dyninfer.bundle.manifest import (
    CascadeRoute,
    Exit,
    Manifest,
    Route,
    SelectRoute,
    Source,
    Stage,
    StaticRoute,
    Task,
    Way,
)
from dyninfer.errors import ConfigError, DyninferError
from dyninfer.exporters.cascade.classes import reconcile
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import (
    ALONE,
    ONE,
    ORDINALS,
    SEVERAL,
    SIZED,
    ClassList,
    DetectorPlan,
    DetectorSource,
)
from dyninfer.exporters.cascade.picture import write_picture
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector, refuse_fixed
from dyninfer.exporters.cascade.stage import write_stage
from dyninfer.exporters.limited import Message, Progress, serve
from dyninfer.exporters.shared_weights import share_weights
from dyninfer.images.spec import ImageSpec
from dyninfer.results.postprocess import EVALUATION, Postprocess

IMAGES = "images"
_SAME = ("class_numbers", "score_kind", "cell_offset", "unit", "box_format")
"""Fields of a plan that an image's size does not change."""


@dataclass(frozen=True)
class Request:
    """What is to be written: stages of ``detectors``, into ``folder``, for the bundle ``name``.

    With ``select`` they are one file at several sizes, the branches of a select route.
    """

    detectors: tuple[DetectorSource, ...]
    folder: Path
    name: str
    classes: ClassList
    licence: str | None
    select: bool = False


REQUEST = TypeAdapter(Request)


def write_stages(request: Message, progress: Progress) -> dict[str, Any]:
    """Write the stages of a :class:`Request`; their ``manifest``, and ``notes`` for the user.

    Raises:
        DyninferError: a subclass that names the cause.
    """
    asked = REQUEST.validate_python(request, strict=False)
    with _fields_named():
        names, planned = (
            _planned_sizes(asked, progress) if asked.select else _planned(asked, progress)
        )
    classes = reconcile([detector.class_names for detector in planned], asked.classes)
    planned = [
        replace(detector, plan=replace(detector.plan, bundle_classes=columns))
        for detector, columns in zip(planned, classes.columns, strict=True)
    ]
    said = [(detector.guesses or "", detector.doubt or "") for detector in planned]
    lines = [line for pair in said for note in pair for line in note.splitlines()]
    notes: list[str | None] = [*dict.fromkeys(lines), *classes.notes]
    inputs = name_inputs([detector.plan.image for detector in planned])
    stages = {}
    for name, detector, image_input in zip(names, planned, inputs, strict=True):
        progress(f"writing {name}")
        stages[name], note = write_stage(name, detector, image_input, asked.folder)
        notes += [
            note,
            write_picture(name, detector, classes.names, asked.folder, sized=asked.select),
        ]
    if asked.select:
        stages = share_weights(asked.folder, stages)
    manifest = _manifest(planned, stages, inputs, classes.names, asked)
    return {"manifest": manifest.model_dump(mode="json"), "notes": [n for n in notes if n]}


def _planned(asked: Request, progress: Progress) -> tuple[Sequence[str], list[PlannedDetector]]:
    """Detectors, each with the name of its stage."""
    several = len(asked.detectors) > 1
    names = ORDINALS[: len(asked.detectors)] if several else (ALONE,)
    planned = []
    for name, source in zip(names, asked.detectors, strict=True):
        progress(f"reading {name}")
        prefix = f"{name}-" if several else ""
        planned.append(plan_detector(prefix, source, read_onnx(source.path)))
    return names, planned


def _planned_sizes(
    asked: Request, progress: Progress
) -> tuple[Sequence[str], list[PlannedDetector]]:
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
    planned = [plan_detector("", largest, file)]
    settled = _settled(planned[0].plan)
    for name, source in zip(reversed(names[:-1]), reversed(smaller), strict=True):
        progress(f"reading {name}")
        found = plan_detector("", replace(source, **settled), file)
        read = [
            (d.class_names, *(getattr(d.plan, field) for field in _SAME))
            for d in (found, planned[0])
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
def _fields_named() -> Iterator[None]:
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


def _manifest(
    planned: Sequence[PlannedDetector],
    stages: dict[str, Stage],
    inputs: Sequence[str],
    class_names: tuple[str, ...],
    asked: Request,
) -> Manifest:
    files = (detector.file for detector in planned)
    sources = tuple(
        Source(file_name=file.path.name, sha256=file.sha256, licence=asked.licence)
        for file in files
    )
    exits = tuple(Exit(body=s, image_input=i) for s, i in zip(stages, inputs, strict=True))
    route: Route = CascadeRoute(exits=exits) if len(exits) > 1 else StaticRoute(body=ALONE)
    if asked.select:
        route = SelectRoute(
            branches=tuple(Way(body=e.body, image_input=e.image_input) for e in exits)
        )
        sources = sources[:1]
    return Manifest(
        name=asked.name,
        family=SEVERAL if len(exits) > 1 and not asked.select else ONE,
        task=Task.DETECT,
        class_names=class_names,
        route=route,
        stages=stages,
        image_inputs={n: d.plan.image for n, d in zip(inputs, planned, strict=True)},
        postprocess=Postprocess(),
        evaluation=EVALUATION,
        source=sources[0],
        further_sources=sources[1:],
        written_by=f"dyninfer {__version__}",
    )


if __name__ == "__main__":
    serve(write_stages)
