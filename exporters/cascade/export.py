"""One ONNX detector as a family, and several detectors that become the exits of a cascade."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
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
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import InputError
from dyninfer.exporters.candidate_rows import CANDIDATES
from dyninfer.exporters.cascade import write as writing
from dyninfer.exporters.cascade.checkpoints import is_checkpoint, read_checkpoint
from dyninfer.exporters.cascade.options import (
    ALONE,
    ONE,
    ORDINALS,
    SEVERAL,
    ClassList,
    DetectorSource,
)
from dyninfer.exporters.cascade.source import source_stages
from dyninfer.exporters.cascade.write import REQUEST, WRITTEN, Request, Settled, Written
from dyninfer.exporters.efficientdet.detector import PlannedEfficientDet
from dyninfer.exporters.efficientdet.export import EVALUATION as EVALUATION_OF_CHECKPOINTS
from dyninfer.exporters.efficientdet.export import USE
from dyninfer.exporters.efficientdet.stages import fold_stages, head_of
from dyninfer.exporters.family import Exported, Progress, SourceStage, TorchStage
from dyninfer.exporters.limited import run_limited
from dyninfer.results.postprocess import EVALUATION, Postprocess

MEMORY = 4 << 30
"""Bytes for reading and trying detectors, beside :data:`COPIES` of their files."""
COPIES = 10
MOST_SIZES = 8
_WEIGHTS = (".bin", ".data", ".pb", ".weights")  # how files of weights beside a model are called


@dataclass(frozen=True)
class WritingOptions:
    """The bundle that is written; ``licence`` is noted for every source.

    ``candidates`` are how many boxes of the largest scores a detector gives on, None for all.
    """

    name: str | None = None
    licence: str | None = None
    overwrite: bool = False
    candidates: int | None = CANDIDATES


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
    """Chain two to eight detectors, the cheapest first; routers are trained afterwards.

    They are ONNX files, or checkpoints of EfficientDets: one of these that is not the last becomes
    two stages, so that a router reads its BiFPN's maps, and an image that goes on skips its heads.

    ONNX files are read and tried in a child process, see :mod:`dyninfer.exporters.limited`.
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
    alone = select or len(detectors) == 1
    planned = [None] * len(detectors) if alone else _read_checkpoints(detectors, progress)
    settled = tuple(Settled(p.class_names, p.image) if p is not None else None for p in planned)
    notes = [f"{each.path.name}: {note}" for each in planned if each for note in each.notes]

    def write(folder: Path) -> Manifest:
        asked = Request(
            tuple(detectors), settled, folder, classes, options.candidates, select=select
        )
        written = _write_files(asked, progress)
        notes.extend(written.notes)
        stages: dict[str, Stage] = {}
        sources: list[Source] = []
        for place, (stage, each) in enumerate(zip(written.names, planned, strict=True)):
            if each is None:
                stages[stage] = written.stages[stage]
                file, sha256 = detectors[place].path.name, written.sha256[stage]
                sources.append(Source(file_name=file, sha256=sha256, licence=options.licence))
            else:
                progress(f"writing {stage}")
                stages |= _write_checkpoint(each, place, written, folder, options.candidates)
                sources.append(each.source(options.licence))
        own = planned[-1] is not None  # thresholds, like classes, are the last detector's
        use = (USE, EVALUATION_OF_CHECKPOINTS) if own else (Postprocess(), EVALUATION)
        name = options.name or output.name.removesuffix(SUFFIX)
        return _manifest(name, stages, sources[:1] if select else sources, written, use)

    return Exported(write_bundle(output, write, overwrite=options.overwrite), tuple(notes))


def _manifest(
    name: str,
    stages: Mapping[str, Stage],
    sources: Sequence[Source],
    written: Written,
    use: tuple[Postprocess, Postprocess],
) -> Manifest:
    exits = tuple(
        Exit(body=body, head=head_of(body) if head_of(body) in stages else None, image_input=image)
        for body, image in zip(written.names, written.inputs, strict=True)
    )
    route: Route = CascadeRoute(exits=exits) if len(exits) > 1 else StaticRoute(body=ALONE)
    if len(exits) > len(sources):  # one file at several sizes
        branches = tuple(Way(body=e.body, image_input=e.image_input) for e in exits)
        route = SelectRoute(branches=branches)
    return Manifest(
        name=name,
        family=SEVERAL if len(sources) > 1 else ONE,
        task=Task.DETECT,
        class_names=written.class_names,
        route=route,
        stages=stages,
        image_inputs=written.images,
        postprocess=use[0],
        evaluation=use[1],
        source=sources[0],
        further_sources=tuple(sources[1:]),
        written_by=f"dyninfer {__version__}",
    )


def _read_checkpoints(
    detectors: Sequence[DetectorSource], progress: Progress
) -> list[PlannedEfficientDet | None]:
    """What is to be exported of each detector of a cascade; None of an ONNX file."""
    planned: list[PlannedEfficientDet | None] = []
    for ordinal, source in zip(ORDINALS, detectors, strict=False):
        if is_checkpoint(source.path):
            progress(f"reading {ordinal}")
            planned.append(read_checkpoint(f"{ordinal}-", source))
        else:
            planned.append(None)
    return planned


def _write_files(asked: Request, progress: Progress) -> Written:
    """What all detectors share, and the stages of ONNX files, which are read in a child process."""
    request = REQUEST.dump_python(asked, mode="json")
    paths = zip(asked.detectors, asked.settled, strict=True)
    files = list(dict.fromkeys(source.path for source, settled in paths if settled is None))
    if files:
        memory = MEMORY + COPIES * sum(map(_size, files))
        names = ", ".join(file.name for file in files)
        module = writing.__name__
        made = run_limited(module, writing.write_stages, request, memory, names, progress)
    else:
        made = writing.write_stages(request, progress)
    return WRITTEN.validate_json(json.dumps(made))


def _write_checkpoint(
    detector: PlannedEfficientDet,
    place: int,
    written: Written,
    folder: Path,
    candidates: int | None,
) -> dict[str, Stage]:
    """The stages of an EfficientDet: one if it is the last detector, else body and head."""
    own = detector.columns
    columns = [-1 if column < 0 else own[column] for column in written.columns[place]]
    split = place < len(written.names) - 1
    name, image_input = written.names[place], written.inputs[place]
    return detector.write(folder, name, image_input, columns, candidates, split=split)


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
        return source_stages(bundle, sources)

    def fold(
        self, stages: Mapping[str, SourceStage], _manifest: Manifest
    ) -> Mapping[str, SourceStage] | None:
        """Checkpoints as their own family does; None with a file, which is run as it comes."""
        modules = stages and all(isinstance(stage, TorchStage) for stage in stages.values())
        return fold_stages(stages) if modules else None


ONNX = OnnxFamily(ONE, export_onnx)
CASCADE = OnnxFamily(SEVERAL, export_cascade)
