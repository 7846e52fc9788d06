"""The fastest mix of backends and precisions that stays within a gate on accuracy."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dyninfer.benchmarks.auto.joined import joined_files, joined_spec
from dyninfer.benchmarks.auto.stages import (
    Form,
    Times,
    find_forms,
    in_turns,
    measure_stage,
    opened_forms,
    recorded_inputs,
)
from dyninfer.builds.auto import (
    AutoRecord,
    Candidate,
    Mix,
    Place,
    wanted_files,
    written_by,
)
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.files import Making, build_lock
from dyninfer.builds.gate import GateRecord, Limits
from dyninfer.builds.search import find_build, made_for_others
from dyninfer.builds.spec import OpenBuild, own_precision, source_hashes
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.engines import host_versions
from dyninfer.evaluation.dataset import Samples
from dyninfer.evaluation.interleaved import Run, compare
from dyninfer.exporters.precision.gate import beyond, blamed, largest
from dyninfer.exporters.precision.measure import PrecisionReport, labels_of, measure_engines
from dyninfer.hardware import cpu_name
from dyninfer.routing.policy import Forced
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load

GAIN = 0.97
"""A place that takes more than this of ONNX Runtime's time is not worth another backend, nor a
batch that takes more than this of a smaller one's."""
Stages = dict[str, Place]
Steps = Callable[[str, int], Callable[[], None]]
"""(what is done, in how many steps) -> to be called after each."""


@dataclass(frozen=True)
class Asked:
    """What is measured, and with what.

    Attributes:
        bundle: whose stages.
        samples: pictures that stages are timed on and mixes compared on, labelled or not.
        limits: of the gate.
        batches: numbers of images in a call, 1 first.
        every: whether all of them are to have a mix, rather than 1 and the best.
        trusted_key: of builds that are there.
    """

    bundle: Bundle
    samples: Samples
    limits: Limits
    batches: tuple[int, ...]
    every: bool
    trusted_key: str | None = None

    @property
    def pictures(self) -> list[Path]:
        """Files."""
        return [sample.path for sample in self.samples.items]


@dataclass
class MixFinder:
    """Finds the mixes of one bundle; whatever it writes and does not keep, it removes."""

    asked: Asked
    steps: Steps
    on_fall: Callable[[str], None]
    _times: dict[tuple[str, int], Times] = field(default_factory=dict)
    _refused: dict[tuple[str, Place], str] = field(default_factory=dict)
    _passed: dict[frozenset[tuple[str, Place]], GateRecord] = field(default_factory=dict)
    _made: list[OpenBuild] = field(default_factory=list)
    _int8: dict[str, OpenBuild] = field(default_factory=dict)

    def find(self) -> AutoRecord:
        """Measure, choose and compare.

        Raises:
            EngineBuildError: the bundle cannot be written, or a stage cannot be opened.
        """
        record = None
        try:
            self._measure()
            record = self._choose()
        finally:
            kept = [] if record is None else [self._files(dict(m.stages)) for m in record.mixes]
            for build in self._made:
                if build.path not in [None if b is None else b.path for b in kept]:
                    shutil.rmtree(build.path)
        return record

    def _measure(self) -> None:
        """Times of every candidate of every stage, for every batch."""
        asked, bundle = self.asked, self.asked.bundle
        forms, most = find_forms(bundle), max(asked.batches)
        stages = list(bundle.manifest.roles)
        step = self.steps("measuring stages", len(stages))
        with (
            build_lock(bundle),
            opened_forms(bundle, forms, most, asked.trusted_key) as detectors,
        ):
            self._int8 = {d.backend: d.build for d in detectors if d.build is not None}
            reads = recorded_inputs(bundle, detectors[0], asked.pictures, most)
            for stage in stages:
                measured = measure_stage(detectors, stage, reads[stage], asked.batches)
                self._times |= {(stage, batch): times for batch, times in measured.items()}
                step()

    def _choose(self) -> AutoRecord:
        asked = self.asked
        stages = {batch: self._within_gate(batch) for batch in asked.batches}
        per_image = {batch: self._per_image(batch, stages[batch]) for batch in asked.batches}
        enough = min(per_image.values()) / GAIN
        best = next(batch for batch in asked.batches if per_image[batch] <= enough)
        batches = asked.batches if asked.every else tuple(sorted({1, best}))
        mixes = []
        for batch in batches:
            ratio, listed = self._whole(stages[batch], batch)
            if ratio > GAIN:  # stage by stage it was faster, and as a whole it is not
                stages[batch], ratio = self._exported(), 1.0
            if batch == best and listed > 1:
                best = 1
            mixes.append(self._mix(batch, stages[batch], ratio))
        mixes = mixes if asked.every else [mix for mix in mixes if mix.batch in (1, best)]
        passed = [self._passed.get(frozenset(mix.stages.items())) for mix in mixes]
        gates = [gate for gate in passed if gate is not None]
        return AutoRecord(
            written_by=written_by(),
            machine=cpu_name(),
            versions=host_versions(),
            stages_sha256=source_hashes(asked.bundle.manifest),
            best_batch=best,
            mixes=tuple(mixes),
            gate=max(gates, key=lambda gate: max(gate.found.values()), default=None),
            limits=asked.limits,
            images_sha256=asked.samples.sha256(),
            labels_sha256=asked.samples.labels_sha256,
        )

    def _exported(self) -> Stages:
        """ONNX Runtime with the files as they were exported."""
        own = own_precision(self.asked.bundle.manifest)
        return {
            stage: Place(backend="onnxruntime", precision=precision)
            for stage, precision in own.items()
        }

    def _ratios(self, stage: str, batch: int) -> dict[Place, float]:
        times = self._times[stage, batch]
        first = next(iter(times.values()))
        return {place: compare(ts, first).median for place, ts in times.items()}

    def _fastest(self, batch: int) -> Stages:
        """Of every stage, among the places that were not refused."""
        chosen = self._exported()
        for stage in chosen:
            ratios = self._ratios(stage, batch)
            open_ = {p: r for p, r in ratios.items() if (stage, p) not in self._refused}
            best = min(open_, key=lambda place: open_[place])
            if open_[best] <= GAIN:
                chosen[stage] = best
        return chosen

    def _within_gate(self, batch: int) -> Stages:
        """The fastest places; stages that take the whole beyond the gate are given the next one."""
        while True:
            stages = self._fastest(batch)
            same = stages == self._exported() or frozenset(stages.items()) in self._passed
            if same or self._passes(stages):
                return stages

    def _passes(self, stages: Stages) -> bool:
        """Whether a mix is within the gate; if not, one of its places is refused."""
        asked, manifest = self.asked, self.asked.bundle.manifest
        with self._opened(stages, 1) as detector:
            report = self._compare(detector, "comparing the mix")
            if not beyond(report, manifest, asked.limits):
                gate = self._gate_record(stages, report, detector)
                self._passed[frozenset(stages.items())] = gate
                return True
            own = self._exported()
            changed = {
                stage: f"on {place.backend} in {place.precision.value}"
                for stage, place in stages.items()
                if place != own[stage]
            }

            def alone(only: Sequence[str]) -> PrecisionReport:
                return self._compare(detector, f"comparing {only[0]} alone", only)

            stage, why = blamed(report, manifest, changed, asked.limits, alone)
        self._refused[stage, stages[stage]] = why
        self.on_fall(f"{stage} falls back to its next fastest candidate: {why}")
        return False

    def _compare(
        self, detector: Detector, what: str, only: Sequence[str] | None = None
    ) -> PrecisionReport:
        pictures = self.asked.pictures
        step = self.steps(what, len(pictures))
        return measure_engines(detector, pictures, labels_of(self.asked.samples.items), step, only)

    def _gate_record(
        self, stages: Stages, report: PrecisionReport, detector: Detector
    ) -> GateRecord:
        samples, record = self.asked.samples, detector.engine_record()
        return GateRecord(
            limits=self.asked.limits,
            found=largest(report, self.asked.bundle.manifest, self.asked.limits),
            asked={stage: place.precision for stage, place in stages.items()},
            pictures=report.pictures,
            images_sha256=samples.sha256(),
            labels_sha256=samples.labels_sha256,
            measured_on=f"{record.backend} {record.backend_version}, {record.device_name}",
        )

    def _opened(self, stages: Stages, batch: int) -> Detector:
        """A mix, opened as ``backend="auto"`` will."""
        mix = self._mix(batch, stages, 1.0)
        precision = mix.precision(self.asked.bundle.manifest)
        path = self.asked.bundle.path
        return load(path, backend=mix.backend, precision=precision, max_batch=batch, build=False)

    def _files(self, stages: Stages) -> OpenBuild | None:
        """The build of converted files that a mix opens, made of those that were measured."""
        bundle = self.asked.bundle
        wanted = wanted_files(bundle.manifest, stages)
        if wanted is None:
            return None
        own = own_precision(bundle.manifest)
        sources = {
            name: self._int8[stages[name].backend]  # no other form needs files of its own
            for name, precision in wanted.precision.items()
            if precision is not own[name]
        }
        spec = joined_spec(wanted, sources)
        found = find_build(bundle, spec)
        ours = {build.path for build in (*sources.values(), *self._made)}
        if found is None or found.path not in ours or made_for_others(found.build, spec):
            with scratch_folder() as folder:
                making = Making(converted=joined_files(bundle, sources, folder), replace=True)
                found = ConversionBuilder().make(bundle, spec, making)
            self._made.append(found)
        return found

    def _per_image(self, batch: int, stages: Stages) -> float:
        """Milliseconds of an image in a batch, the mean over ways."""
        manifest = self.asked.bundle.manifest
        ms = {s: float(np.median(self._times[s, batch][p])) / batch for s, p in stages.items()}
        ways = range(len(manifest.ways))
        return float(np.mean([sum(ms[s] for s in manifest.stages_to(way)) for way in ways]))

    def _whole(self, stages: Stages, batch: int) -> tuple[float, float]:
        """Ratios of the whole route, mean over ways: mix to export, and a list to a loop of it.

        Where the mix is clearly slower on one way, its ratio is that way's.
        """
        bundle = self.asked.bundle
        exported = Form("onnxruntime")
        with (
            opened_forms(bundle, [exported], batch, None) as (reference,),
            self._opened(stages, batch) as mixed,
        ):
            paths = (self.asked.pictures * batch)[:batch]
            images = reference.prepare(paths)
            runs: dict[str, Run] = {}
            for way in range(len(bundle.manifest.ways)):
                policy = Forced([way] * batch) if reference.points else None
                single = Forced([way]) if reference.points else None
                runs[f"exported {way}"] = partial(_timed, reference, [images], policy)
                runs[f"mix {way}"] = partial(_timed, mixed, [images], policy)
                if batch > 1:
                    rows = [
                        {n: a[row : row + 1] for n, a in images.items()} for row in range(batch)
                    ]
                    runs[f"loop {way}"] = partial(_timed, mixed, rows, single)
            times = in_turns(runs)
        ways = range(len(bundle.manifest.ways))
        ratios = [compare(times[f"mix {w}"], times[f"exported {w}"]).median for w in ways]
        ratio = np.mean(ratios) if max(ratios) <= 1 / GAIN else max(ratios)
        if batch == 1:
            return float(ratio), 1.0
        listed = [compare(times[f"mix {w}"], times[f"loop {w}"]).median for w in ways]
        return float(ratio), float(np.mean(listed))

    def _mix(self, batch: int, stages: Stages, ratio: float) -> Mix:
        build = self._files(stages)
        return Mix(
            batch=batch,
            stages=stages,
            candidates={stage: self._told(stage, batch, place) for stage, place in stages.items()},
            ms_per_image=self._per_image(batch, stages),
            ratio=ratio,
            files={} if build is None else build.build.onnx_sha256(),
        )

    def _told(self, stage: str, batch: int, chosen: Place) -> tuple[Candidate, ...]:
        """All candidates of a stage, and why each was chosen or not."""
        ratios = self._ratios(stage, batch)
        open_ = [ratio for place, ratio in ratios.items() if (stage, place) not in self._refused]

        def why(place: Place, ratio: float) -> str:
            if (stage, place) in self._refused:
                return self._refused[stage, place][:900]
            if place != chosen:
                return "as a whole no faster" if ratio == min(open_) and ratio <= GAIN else ""
            near = ratio > min(open_)
            return f"others are not {1 - GAIN:.0%} faster" if near else "fastest"

        return tuple(
            Candidate(
                place=place,
                ms=float(np.median(self._times[stage, batch][place])),
                ratio=ratio,
                chosen=place == chosen,
                why=why(place, ratio),
            )
            for place, ratio in ratios.items()
        )


def _timed(detector: Detector, calls: Sequence[Mapping[str, Any]], policy: Forced | None) -> float:
    """Milliseconds of some calls one after the other."""
    start = time.perf_counter()
    for images in calls:
        detector.infer(images, policy=policy)
    return 1e3 * (time.perf_counter() - start)
