"""``dyninfer export cascade``: ONNX detectors become the exits of one bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX
from dyninfer.bundle.manifest import CascadeRoute, Exit, Manifest, Source, Stage, Task
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import InputError
from dyninfer.exporters.cascade.classes import reconcile
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import ORDINALS, ClassList, DetectorSource
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector
from dyninfer.exporters.cascade.stage import write_stage
from dyninfer.exporters.family import Exported, Progress
from dyninfer.images.spec import ImageSpec
from dyninfer.results.postprocess import EVALUATION, Postprocess

FAMILY = "cascade"
IMAGES = "images"


@dataclass(frozen=True)
class CascadeOptions:
    """What holds for all detectors of a cascade.

    ``licence`` is noted for every source.
    """

    classes: ClassList = ClassList.LAST
    name: str | None = None
    licence: str | None = None
    overwrite: bool = False


def export_cascade(
    detectors: Sequence[DetectorSource],
    output: Path,
    options: CascadeOptions = CascadeOptions(),
    progress: Progress = lambda _step: None,
) -> Exported:
    """Chain two to eight ONNX detectors, the cheapest first; routers are trained afterwards.

    ``progress`` is called with the name of each detector as it is read, and again as it is written.

    Raises:
        DyninferError: a subclass that names the cause; nothing is left on disk.
    """
    if not 2 <= len(detectors) <= len(ORDINALS):
        raise InputError(
            f"{len(detectors)} detectors were given, expected 2 to {len(ORDINALS)}: "
            "the cheapest first"
        )
    check_target(output, overwrite=options.overwrite)
    planned = []
    for ordinal, source in zip(ORDINALS, detectors, strict=False):
        progress(f"reading {ordinal}")
        planned.append(plan_detector(ordinal, source, read_onnx(source.path)))
    classes = reconcile([detector.class_names for detector in planned], options.classes)
    planned = [
        replace(detector, plan=replace(detector.plan, columns=columns))
        for detector, columns in zip(planned, classes.columns, strict=True)
    ]
    said = [note for detector in planned for note in (detector.guesses, detector.doubt)]
    notes = [*said, *classes.notes]
    inputs = name_inputs([detector.plan.image for detector in planned])

    def write(folder: Path) -> Manifest:
        stages = {}
        for ordinal, detector, image_input in zip(ORDINALS, planned, inputs, strict=False):
            progress(f"writing {ordinal}")
            stages[ordinal], note = write_stage(ordinal, detector, image_input, folder)
            notes.append(note)
        return _manifest(planned, stages, inputs, classes.names, output, options)

    manifest = write_bundle(output, write, overwrite=options.overwrite)
    return Exported(manifest, tuple(note for note in notes if note))


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
    output: Path,
    options: CascadeOptions,
) -> Manifest:
    sources = tuple(
        Source(
            file_name=detector.file.path.name,
            sha256=detector.file.sha256,
            licence=options.licence,
        )
        for detector in planned
    )
    exits = (Exit(body=s, image_input=i) for s, i in zip(stages, inputs, strict=True))
    return Manifest(
        name=options.name or output.name.removesuffix(SUFFIX),
        family=FAMILY,
        task=Task.DETECT,
        class_names=class_names,
        route=CascadeRoute(exits=tuple(exits)),
        stages=stages,
        image_inputs={n: d.plan.image for n, d in zip(inputs, planned, strict=True)},
        postprocess=Postprocess(),
        evaluation=EVALUATION,
        source=sources[0],
        further_sources=sources[1:],
        written_by=f"dyninfer {__version__}",
    )
