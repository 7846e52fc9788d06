"""ONNX detectors as a family: as they are, they become the exits of one cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.manifest import CascadeRoute, Exit, Manifest, Source, Stage, Task
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import BundleError, InputError
from dyninfer.exporters.cascade.classes import reconcile
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import ORDINALS, ClassList, DetectorPlan, DetectorSource
from dyninfer.exporters.cascade.original import OriginalDetector, decode_one
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector
from dyninfer.exporters.cascade.stage import read_plan, write_stage
from dyninfer.exporters.family import Exported, Progress, SourceStage
from dyninfer.images.spec import ImageSpec
from dyninfer.results.postprocess import EVALUATION, Postprocess
from dyninfer.types import AnyArray

FAMILY = "cascade"
IMAGES = "images"


@dataclass(frozen=True)
class CascadeOptions:
    """What holds for all detectors of a cascade; ``licence`` is noted for every source."""

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
    files = (detector.file for detector in planned)
    sources = tuple(
        Source(file_name=file.path.name, sha256=file.sha256, licence=options.licence)
        for file in files
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


class Cascade:
    """See :class:`dyninfer.exporters.family.Family`."""

    name = FAMILY
    export = staticmethod(export_cascade)

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """Every exit's detector; routers were trained later and have no source."""
        stages: dict[str, SourceStage] = {}
        for ordinal, path in zip(ORDINALS, sources, strict=False):
            plan = read_plan(bundle.stage_path(ordinal))
            if plan is None:
                raise BundleError(
                    f"stage {ordinal!r} of {bundle.path} does not say how its detector is decoded; "
                    "export the cascade again"
                )
            stages[ordinal] = OriginalStage(plan, OriginalDetector(read_onnx(path), plan.layout))
        return stages

    def fold(self, _stages: Mapping[str, SourceStage], _manifest: Manifest) -> None:
        """Nothing: a file is run as it comes."""


@dataclass(frozen=True)
class OriginalStage:
    """The untouched file in ONNX Runtime, image by image, and its decode in NumPy."""

    plan: DetectorPlan
    original: OriginalDetector

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """Boxes (N, A, 4) and class scores (N, A, C) for images (N, 3, H, W)."""
        (images,) = inputs
        rows = [decode_one(self.plan, self.original.run(image[None])) for image in images]
        return [np.stack([row[which] for row in rows]) for which in (0, 1)]

    def in_double(self) -> None:
        """Not possible: the arithmetic of an ONNX file is its own."""


CASCADE = Cascade()
