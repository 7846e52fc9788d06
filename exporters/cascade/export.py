"""ONNX detectors as families: one alone, or several that become the exits of a cascade."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import BundleError, InputError
from dyninfer.exporters.cascade import write as writing
from dyninfer.exporters.cascade.onnx_file import OnnxFile, in_float32, read_onnx
from dyninfer.exporters.cascade.options import (
    ONE,
    ORDINALS,
    SEVERAL,
    ClassList,
    DetectorPlan,
    DetectorSource,
)
from dyninfer.exporters.cascade.original import OriginalDetector, decode_one
from dyninfer.exporters.cascade.stage import read_plan
from dyninfer.exporters.cascade.write import REQUEST, Request
from dyninfer.exporters.family import Exported, Progress, SourceStage
from dyninfer.exporters.limited import run_limited
from dyninfer.types import AnyArray

MEMORY = 4 << 30
"""Bytes for reading and trying detectors, beside :data:`COPIES` of their files."""
COPIES = 10
MOST_SIZES = 8
_WEIGHTS = (".bin", ".data", ".pb", ".weights")  # how files of weights beside a model are called


@dataclass(frozen=True)
class WritingOptions:
    """The bundle that is written; ``licence`` is noted for every source."""

    name: str | None = None
    licence: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class OnnxOptions(WritingOptions):
    """``sizes``, two or more of height and width, are the branches of a select route."""

    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class CascadeOptions(WritingOptions):
    """What holds for all detectors of a cascade."""

    classes: ClassList = ClassList.LAST


def export_onnx(
    detector: DetectorSource,
    output: Path,
    options: OnnxOptions = OnnxOptions(),
    progress: Progress = lambda _step: None,
) -> Exported:
    """Make a bundle of one ONNX detector, with one way: see :func:`export_cascade`.

    With several ``sizes`` it becomes a select route with a branch for each, the smallest first, and
    without a chooser, which is fitted afterwards.

    Raises:
        DyninferError: a subclass that names the cause; nothing is left on disk.
    """
    sources = [detector]
    if options.sizes:
        sources = [replace(detector, size=size) for size in _checked(detector, options.sizes)]
    return _export(sources, output, options, ClassList.LAST, progress, select=len(sources) > 1)


def _checked(detector: DetectorSource, sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sizes by the number of their pixels, which is what they cost by."""
    shown = ", ".join(f"{height}x{width}" for height, width in sizes)
    if detector.size is not None:
        raise InputError(f"both a size and sizes ({shown}) of {detector.path} are given; give one")
    if len({*sizes}) < len(sizes) or len(sizes) > MOST_SIZES:
        raise InputError(
            f"the sizes of {detector.path} are {shown}, expected at most {MOST_SIZES}, each once"
        )
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


def export_cascade(
    detectors: Sequence[DetectorSource],
    output: Path,
    options: CascadeOptions = CascadeOptions(),
    progress: Progress = lambda _step: None,
) -> Exported:
    """Chain two to eight ONNX detectors, the cheapest first; routers are trained afterwards.

    The files are read and tried in a child process, see :mod:`dyninfer.exporters.limited`.
    ``progress`` is called with the name of each detector as it is read, and again as it is written.

    Raises:
        DyninferError: a subclass that names the cause; nothing is left on disk.
    """
    if not 2 <= len(detectors) <= len(ORDINALS):
        raise InputError(
            f"{len(detectors)} detectors were given, expected 2 to {len(ORDINALS)}: "
            "the cheapest first; export_onnx takes one"
        )
    return _export(detectors, output, options, options.classes, progress)


def _export(
    detectors: Sequence[DetectorSource],
    output: Path,
    options: WritingOptions,
    classes: ClassList,
    progress: Progress,
    *,
    select: bool = False,
) -> Exported:
    check_target(output, overwrite=options.overwrite)
    name = options.name or output.name.removesuffix(SUFFIX)
    paths = list(dict.fromkeys(source.path for source in detectors))
    files = ", ".join(path.name for path in paths)
    notes: list[str] = []

    def write(folder: Path) -> Manifest:
        asked = Request(tuple(detectors), folder, name, classes, options.licence, select)
        request = REQUEST.dump_python(asked, mode="json")
        memory = MEMORY + COPIES * sum(map(_size, paths))
        module = writing.__name__
        made = run_limited(module, writing.write_stages, request, memory, files, progress)
        notes.extend(made["notes"])
        return Manifest.model_validate_json(json.dumps(made["manifest"]))

    return Exported(write_bundle(output, write, overwrite=options.overwrite), tuple(notes))


def _size(path: Path) -> int:
    """Bytes of a detector's file, and of files beside it that may hold its weights."""
    with contextlib.suppress(
        OSError, ValueError
    ):  # a file that cannot be read is reported by who reads it
        beside = (file for file in path.parent.iterdir() if file.suffix in _WEIGHTS)
        return sum(file.stat().st_size for file in (path, *beside))
    return 0


SourceT = TypeVar("SourceT")
OptionsT = TypeVar("OptionsT", bound=WritingOptions)


@dataclass(frozen=True)
class OnnxFamily(Generic[SourceT, OptionsT]):
    """See :class:`dyninfer.exporters.family.Family`."""

    name: str
    export: Callable[[SourceT, Path, OptionsT, Progress], Exported]

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """Every way's detector; routers were trained later and have no source."""
        stages: dict[str, SourceStage] = {}
        ways = bundle.manifest.ways
        # one file at several sizes is the source of all ways
        files = [read_onnx(path) for path in sources] * (len(ways) // len(sources))
        for way, source in zip(ways, files, strict=True):
            with bundle.opening(way.body) as file:
                plan = read_plan(file)
            if plan is None:
                raise BundleError(
                    f"stage {way.body!r} of {bundle.path} does not say how its detector is "
                    "decoded; export it again"
                )
            stages[way.body] = OriginalStage(plan, _original(plan, source))
        return stages

    def fold(self, _stages: Mapping[str, SourceStage], _manifest: Manifest) -> None:
        """Nothing: a file is run as it comes."""


def _original(plan: DetectorPlan, file: OnnxFile) -> OriginalDetector:
    return OriginalDetector(file, plan.layout, plan.image.height * plan.image.width)


@dataclass
class OriginalStage:
    """The untouched file in ONNX Runtime, image by image, and its decode in NumPy."""

    plan: DetectorPlan
    original: OriginalDetector

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """Boxes (N, A, 4) and class scores (N, A, C) for images (N, 3, H, W)."""
        (images,) = inputs
        rows = [decode_one(self.plan, self.original.run(image[None])) for image in images]
        return [np.stack([row[which] for row in rows]) for which in (0, 1)]

    def in_double(self) -> AbstractContextManager[None] | None:
        """A file with float16 in it computes in float32; of others the arithmetic is their own."""
        return self._in_float32() if self.original.file.rounded else None

    @contextlib.contextmanager
    def _in_float32(self) -> Iterator[None]:
        own = self.original
        self.original = _original(self.plan, in_float32(own.file))
        try:
            yield
        finally:
            self.original = own


ONNX = OnnxFamily(ONE, export_onnx)
CASCADE = OnnxFamily(SEVERAL, export_cascade)
