"""``dyninfer build --gate``: no engine that loses more than it may, and what is built instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from dyninfer.builds.builder import Builder, builder_for
from dyninfer.builds.files import NOTHING_CONVERTED, KeptEngines, Making
from dyninfer.builds.gate import FallBack, GateRecord, Limits, parse_gate
from dyninfer.builds.search import differences, list_builds, open_build
from dyninfer.builds.spec import IO, BuildSpec, OpenBuild, describe_plan, travel_of
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.cli.build_conversions import Conversions, asked_samples, travelling
from dyninfer.cli.build_options import BackendChoice, BuildOptions
from dyninfer.cli.common import stderr
from dyninfer.engines import TENSORRT, open_backend
from dyninfer.errors import BackendUnavailable, InputError, VerificationError
from dyninfer.evaluation.dataset import Samples
from dyninfer.evaluation.scoring import SCORING
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.session import DEFAULT_BATCH, Session

if TYPE_CHECKING:
    from dyninfer.exporters.precision.measure import PrecisionReport


_Accepted = tuple[GateRecord, Mapping[str, Any]]
"""What goes into a build's record, and into its ``parity.json``."""


def asked_limits(asked: BuildOptions, bundle: Bundle) -> dict[str, float] | None:
    """The gate that was asked for, checked before any work; None without one."""
    if asked.gate is None:
        return None
    limits = parse_gate(asked.gate, bundle.manifest)
    if (least := asked.profile.minimum) > 1:
        raise typer.BadParameter(
            f"--gate runs single pictures, which engines for {least} and more cannot; give "
            "--batch from 1 up, such as 1:4:16"
        )
    return limits


def check_labels(limits: Limits, samples: Samples, manifest: Manifest) -> None:
    """Refuse a limit that needs labels where there are none.

    Raises:
        InputError: with how they are given.
    """
    for name in {"ap", "top-1"} & limits.keys():
        if not samples.labelled:
            raise InputError(
                f"the gate limits {name}, and nothing is known of the pictures; give --images with "
                "--annotations, or a gate of flips and differ alone"
            )
        SCORING[manifest.task].check(samples, manifest.class_names)


def find_passed(
    asked: BuildOptions, bundle: Bundle, wanted: BuildSpec, limits: Limits
) -> OpenBuild | None:
    """A build for this precision that was found within these limits already, on these pictures."""
    for path, build in list_builds(bundle)[0].items():
        gate = build.gate
        if gate is None or build.offered(wanted.precision) != wanted:
            continue
        if asked.backend is BackendChoice.OPENVINO and not gate.measured_on.startswith("openvino"):
            continue  # ONNX Runtime alone has run them
        within = all(gate.found.get(name, limit + 1) <= limit for name, limit in limits.items())
        if within and (not asked.images or _same_pictures(gate, asked_samples(asked, bundle))):
            return open_build(path, build)
    return None


def _same_pictures(gate: GateRecord, samples: Samples) -> bool:
    same = gate.images_sha256 == samples.sha256()
    return same and gate.labels_sha256 == samples.labels_sha256


class _Beyond(Exception):  # noqa: N818  # never leaves this module
    """Engines are beyond the gate; a stage is to be built in a higher precision."""

    def __init__(self, fall: FallBack) -> None:
        self.fall = fall


class GatedBuild:
    """Makes a build that stays within a gate, stage by stage in a higher precision if it must.

    What was converted is measured first, then the engines themselves, where they can run here.
    """

    def __init__(
        self,
        conversions: Conversions,
        builder: Builder,
        wanted: BuildSpec,
        limits: Limits,
        making: Making,
    ) -> None:
        self._conversions, self._bundle = conversions, conversions.bundle
        self._builder, self._wanted = builder, wanted
        self._limits, self._making = (
            limits,
            replace(making, engines=KeptEngines(conversions.folder)),
        )
        self._plan: dict[str, Precision] = dict(wanted.precision)
        self._falls: list[FallBack] = []
        check_labels(limits, conversions.samples, self._bundle.manifest)

    def make(self) -> OpenBuild:
        """The build.

        Raises:
            VerificationError: no precision that could be built stays within the gate.
            InputError: neither the engines nor conversions can be run here.
        """
        while True:
            try:
                return self._attempt()
            except _Beyond as beyond:
                self._fall(beyond.fall)

    def _fall(self, fall: FallBack) -> None:
        self._plan[fall.stage] = fall.after
        self._falls.append(fall)
        stderr.print(
            f"{fall.stage} falls back from {fall.before.value} to {fall.after.value}: {fall.why}"
        )

    def _attempt(self) -> OpenBuild:
        from dyninfer.exporters.precision.gate import beyond, fall_back

        conversions, manifest = self._conversions, self._bundle.manifest
        made = conversions.make(self._plan)
        changed = conversions.changed(made)
        report, converted = None, NOTHING_CONVERTED
        if not changed and self._wanted.backend == "onnxruntime":
            why = "; ".join(f"{fall.stage} {fall.why}" for fall in self._falls)
            raise VerificationError(
                f"nothing was built: no stage of {self._bundle.path} stays within the gate in less "
                f"than fp32, in which ONNX Runtime opens the bundle's own files ({why})"
                if why
                else f"nothing was built: {self._bundle.path} holds nothing that could be converted"
            )
        if changed:
            report = conversions.measure(made, f"comparing {describe_plan(self._plan, manifest)}")
            if beyond(report, manifest, self._limits):
                lowered = {name: self._plan[name] for name in changed}

                def alone(only: Sequence[str]) -> PrecisionReport:
                    return conversions.measure(made, f"comparing {only[0]} alone", only)

                raise _Beyond(fall_back(report, manifest, lowered, self._limits, alone))
            converted = conversions.converted(made, report)
        converted = travelling(self._bundle, travel_of(self._wanted), converted, conversions.folder)
        spec = self._wanted.model_copy(update={"precision": dict(self._plan)})
        making = replace(self._making, converted=converted, accept=partial(self._accept, report))
        return self._builder.make(self._bundle, spec, making)

    def _accept(self, report: PrecisionReport | None, opened: OpenBuild) -> _Accepted:
        """The record of a build that is within the gate, measured on its engines if they can run.

        ``report`` is that of the conversions, None where nothing was converted.
        """
        detector = self._opened(opened)
        if detector is not None:
            with detector:
                return self._accept_engines(detector)
        if report is None:
            raise InputError(
                "the gate compares engines that cannot run here with the bundle's own files: build "
                "on the device they are for, or leave out --gate; nothing was built"
            )
        return self._record(report, self._on_this_cpu(opened)), report.to_dict()

    def _accept_engines(self, detector: Detector) -> _Accepted:
        from dyninfer.exporters.precision.gate import beyond, fall_back
        from dyninfer.exporters.precision.measure import labels_of, measure_engines

        measured, progress = self._conversions.measured, self._conversions.progress

        def measure(what: str, only: Sequence[str] | None = None) -> PrecisionReport:
            task = progress.add_task(what, total=len(measured))
            return measure_engines(
                detector,
                [sample.path for sample in measured],
                labels_of(measured),
                lambda: progress.advance(task),
                only,
            )

        report, manifest = measure("comparing the engines"), self._bundle.manifest
        if beyond(report, manifest, self._limits):

            def alone(only: Sequence[str]) -> PrecisionReport:
                return measure(f"comparing {only[0]}'s engine alone", only)

            raise _Beyond(fall_back(report, manifest, self._plan, self._limits, alone))
        record = detector.engine_record()
        ran_on = f"{record.backend} {record.backend_version}, {record.device_name}"
        return self._record(report, ran_on), report.to_dict()

    def _opened(self, opened: OpenBuild) -> Detector | None:
        """The engines, where they are not what was measured, and can run here.

        TensorRT's must fit a GPU that is here.
        """
        spec, asked, manifest = opened.build.spec, self._conversions.asked, self._bundle.manifest
        on_openvino = asked.backend is BackendChoice.OPENVINO
        name = "openvino" if on_openvino else spec.backend
        if name == "onnxruntime" and spec.options.items() <= {(IO, "int8")}:
            return None  # it has run them already, with the same numbers
        largest = spec.batch.maximum if spec.batch else DEFAULT_BATCH
        try:
            backend = open_backend(name, asked.device if name in TENSORRT else None)
        except BackendUnavailable:
            return None
        here = builder_for(backend).wanted(manifest, spec.precision, largest)
        if here is None or any(d.field != "options" for d in differences(spec, here)):
            backend.close()
            return None
        backend.configure(manifest, spec.precision)
        session = Session(self._bundle, backend, opened, max_batch=largest)
        return Detector(self._bundle, session, largest, opened)

    def _on_this_cpu(self, opened: OpenBuild) -> str:
        """Where conversions were run, and what of that is not as the engines will."""
        spec = opened.build.spec
        with_half = Precision.FP16 in spec.precision.values() or spec.options.get(IO) == "fp16"
        backend = open_backend("onnxruntime", "cpu")
        place = f"onnxruntime {backend.version}, {backend.device_name}"
        backend.close()
        rounded = ", float16 rounded after every layer" if with_half else ""
        not_engines = self._conversions.asked.backend is not BackendChoice.ONNXRUNTIME
        return f"{place}{rounded}{', instead of the engines' if not_engines else ''}"

    def _record(self, report: PrecisionReport, measured_on: str) -> GateRecord:
        from dyninfer.exporters.precision.gate import largest

        samples = self._conversions.samples
        return GateRecord(
            limits=self._limits,
            found=largest(report, self._bundle.manifest, self._limits),
            asked=self._wanted.precision,
            fell_back=tuple(self._falls),
            pictures=report.pictures,
            images_sha256=samples.sha256(),
            labels_sha256=samples.labels_sha256,
            measured_on=measured_on,
        )
