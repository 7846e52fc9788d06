"""The conversions of ``dyninfer build``, and the pictures they are made with and measured on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress, TaskID

from dyninfer.builds.files import Converted
from dyninfer.builds.spec import FOR_OPENVINO, INPUT, IO, BuildSpec, Conversion, source_hashes
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.cli.build_options import BuildOptions
from dyninfer.cli.common import built_in_photos, expand_sources, warn
from dyninfer.engines import TENSORRT
from dyninfer.evaluation.dataset import Sample, Samples, load_samples
from dyninfer.exporters.extras import require_export_extra
from dyninfer.exporters.precision.settings import CALIBRATING, SEARCHING, Int8Settings, Int8Target
from dyninfer.plain_text import counted
from dyninfer.runtime.plan import steps_before

if TYPE_CHECKING:
    from dyninfer.exporters.precision.convert import ConvertedStage
    from dyninfer.exporters.precision.measure import PrecisionReport

COMPARING = "comparing with fp32"
Report = Callable[[str, float], None]
"""(step, share of it that is done)"""
# how often a stage is about run, in float32: for what its tensors hold of one picture, for the
# search for layers to keep, and for one picture's comparison
_WATCHED, _SEARCHED, _COMPARED = 2, 60, 3
_FEW_PICTURES = 50
_HELD_OUT_EVERY = 5
_ENOUGH_TO_HOLD_OUT = 10


def asked_samples(asked: BuildOptions, bundle: Bundle) -> Samples:
    """The pictures that were named, or the built-in ones."""
    paths = expand_sources(asked.images) if asked.images else built_in_photos()
    manifest = bundle.manifest
    return load_samples(paths, asked.annotations, manifest.class_names, manifest.task)


class Conversions:
    """Stages in other precisions: each is made once, and measured on pictures that are held out.

    Args:
        asked: pictures, labels, and how int8 is made.
        bundle: whose stages they are.
        wanted: the build that they are for.
        folder: where their files go.
        progress: shows what is done.
    """

    def __init__(
        self,
        asked: BuildOptions,
        bundle: Bundle,
        wanted: BuildSpec,
        folder: Path,
        progress: Progress,
    ) -> None:
        require_export_extra("converting to fp16 or int8")
        self.asked, self.bundle, self.progress = asked, bundle, progress
        self.samples = asked_samples(asked, bundle)
        self._calibration, self.measured = _split(self.samples)
        self.folder = folder
        self._settings = _settings(asked, wanted, progress, self._report)
        self._whole: _WholeBar | None = None
        self._made: dict[tuple[str, Precision], ConvertedStage] = {}

    def make(self, plan: Mapping[str, Precision]) -> dict[str, ConvertedStage]:
        """Every stage in the precision that is planned; errors as of ``convert_bundle_stages``."""
        from dyninfer.exporters.precision.convert import convert_bundle_stages

        lacking = {n: p for n, p in plan.items() if (n, p) not in self._made}
        folder = self.folder / str(len(self._made))
        folder.mkdir(exist_ok=True)
        paths = [sample.path for sample in self._calibration]
        made = convert_bundle_stages(self.bundle, lacking, paths, folder, self._settings)
        self._made |= {(name, lacking[name]): stage for name, stage in made.items()}
        return {name: self._made[name, precision] for name, precision in plan.items()}

    def show_whole(self, plan: Mapping[str, Precision]) -> None:
        """Show one bar for converting and comparing, which tells how long all of it takes."""
        work = _expected_work(self.bundle.manifest, plan, len(self._calibration))
        compared = sum(stage.macs for stage in self.bundle.manifest.stages.values())
        work[COMPARING] = len(self.measured) * _COMPARED * compared
        self._whole = _WholeBar(self.progress, work)

    def _report(self, what: str, share: float) -> None:
        if self._whole is not None:
            self._whole.update(what, share)

    def changed(self, made: Mapping[str, ConvertedStage]) -> dict[str, ConvertedStage]:
        """The stages in which there was something to convert."""
        own = source_hashes(self.bundle.manifest)
        return {name: stage for name, stage in made.items() if stage.sha256 != own[name]}

    def measure(
        self,
        made: Mapping[str, ConvertedStage],
        what: str,
        only: Collection[str] | None = None,
    ) -> PrecisionReport:
        """What conversions cost, all or some of them, under a bar that says ``what`` is done."""
        from dyninfer.exporters.precision.measure import labels_of, measure_precision

        paths = [sample.path for sample in self.measured]
        bar = _Bars(self.progress, self._report)
        done = count(1)
        return measure_precision(
            self.bundle,
            made,
            paths,
            labels_of(self.measured),
            lambda: bar.report(what, next(done), len(paths)),
            only,
        )

    def converted(
        self, made: Mapping[str, ConvertedStage], report: PrecisionReport | None
    ) -> Converted:
        """What a build is made of."""
        changed = self.changed(made)
        int8 = any(stage.precision is Precision.INT8 for stage in changed.values())
        conversion = Conversion(
            method=self.asked.method.value if int8 else None,
            images_sha256=self.samples.sha256(),
            image_count=len(self._calibration),
            kept_high={name: stage.kept_float for name, stage in made.items() if stage.kept_float},
        )
        return Converted(
            {name: stage.path for name, stage in changed.items()},
            {name: stage.sha256 for name, stage in changed.items()},
            conversion,
            None if report is None else report.to_dict(),
        )


def travelling(
    bundle: Bundle, travel: Mapping[str, str], converted: Converted, folder: Path
) -> Converted:
    """Stages whose tensors travel as is wanted (:data:`TRAVEL`), as files in ``folder``."""
    if not travel:
        return converted
    require_export_extra("other types of inputs and outputs")
    from dyninfer.exporters.precision.travel import rewrite_travel

    files, types = rewrite_travel(
        bundle, converted.files, folder, pixels=INPUT in travel, maps=travel.get(IO)
    )
    sha256 = {name: file_sha256(path) for name, path in files.items()}
    return replace(converted, files=files, sha256=sha256, tensors=types, options=travel)


def _split(samples: Samples) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Pictures that ranges are taken from, and every fifth to compare on, if there are enough."""
    for warning in samples.warnings:
        warn(warning)
    if len(samples.items) < _FEW_PICTURES:
        warn(
            f"{counted(len(samples.items), 'picture')}: too few for reliable ranges and "
            "comparisons; give some hundreds like those to be run later with --images"
        )
    if len(samples.items) < _ENOUGH_TO_HOLD_OUT:
        return samples.items, samples.items
    kept = [item for i, item in enumerate(samples.items) if i % _HELD_OUT_EVERY]
    return kept, samples.items[::_HELD_OUT_EVERY]


def _settings(
    asked: BuildOptions, wanted: BuildSpec, progress: Progress, report: Report
) -> Int8Settings:
    """How stages are quantised, with a bar for each step."""
    target = Int8Target.OPENVINO if FOR_OPENVINO in wanted.options else Int8Target.CPU
    if wanted.backend in TENSORRT:
        target = Int8Target.TENSORRT
    return Int8Settings(
        target=target,
        method=asked.method,
        half=target is Int8Target.TENSORRT and IO in wanted.options,
        progress=_Bars(progress, report).report,
    )


class _Bars:
    """A bar for each step; ``report`` is told how much of it is done."""

    def __init__(self, progress: Progress, report: Report) -> None:
        self._progress, self._report = progress, report
        self._bars: dict[str, TaskID] = {}

    def report(self, what: str, done: int, total: int) -> None:
        """So many steps of so many are done."""
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._bars[what], completed=done, total=total)
        self._report(what, done / total)


class _WholeBar:
    """One bar in percent for steps of different length, given in the order in which they come.

    A step that is left out, as the search where a stage is good enough, counts as done when a later
    one begins.
    """

    def __init__(self, progress: Progress, work: Mapping[str, float]) -> None:
        self._progress = progress
        self._work = {step: max(1.0, each) for step, each in work.items()}  # not every bundle tells
        self._task = progress.add_task("everything", total=100)

    def update(self, what: str, share: float) -> None:
        """A share of a step is done, and all steps before it."""
        if what in self._work:
            steps = [*self._work]
            before = sum(self._work[step] for step in steps[: steps.index(what)])
            done = (before + share * self._work[what]) / sum(self._work.values())
            self._progress.update(self._task, completed=100 * done)


def _expected_work(
    manifest: Manifest, plan: Mapping[str, Precision], pictures: int
) -> dict[str, float]:
    """The steps of converting stages to int8, and about how much is computed in each."""
    work: dict[str, float] = {}
    for name, stage in manifest.stages.items():
        if plan.get(name) is Precision.INT8 and stage.precision is not Precision.INT8:
            before = sum(manifest.stages[step.stage].macs for step in steps_before(manifest, name))
            work[CALIBRATING + name] = pictures * (before + _WATCHED * stage.macs)
            work[SEARCHING + name] = _SEARCHED * stage.macs
    return work
