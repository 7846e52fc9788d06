"""``dyninfer verify --precision``: the engines that will run beside the bundle's own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.builds.files import write_build_parity
from dyninfer.builds.gate import describe_gate, parse_gate
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Task
from dyninfer.cli.build import print_cost
from dyninfer.cli.build_gate import check_labels
from dyninfer.cli.common import print_json, progress_bar, stdout, warn
from dyninfer.errors import BundleError, VerificationError
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.plain_text import counted
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.engine_choice import EngineChoice
from dyninfer.runtime.opening import load

if TYPE_CHECKING:
    from dyninfer.exporters.precision.measure import PrecisionReport


def verify_engines(
    path: Path,
    photos: Sequence[Path],
    annotations: Path | None,
    gate: str | None,
    engines: EngineChoice,
    *,
    json_output: bool,
) -> None:
    """Compare engines with the bundle's own files on ONNX Runtime's CPU, show and keep it.

    Without a gate, that of the build holds, if it had to pass one.

    Raises:
        VerificationError: a figure is beyond the gate, or an output is not finite.
        InputError: the gate cannot be read, or it needs labels and there are none.
    """
    from dyninfer.exporters.precision.gate import beyond, refusal

    manifest = Bundle.read(path).manifest
    limits = None if gate is None else parse_gate(gate, manifest)
    samples = load_samples(photos, annotations, manifest.class_names, manifest.task)
    for warning in samples.warnings:
        warn(warning)
    check_labels(limits or {}, samples, manifest)
    with load(path, build=False, **asdict(engines)) as detector:
        if limits is None and detector.build is not None and detector.build.build.gate is not None:
            limits = dict(detector.build.build.gate.limits)
            if not samples.labelled:
                limits = {n: limit for n, limit in limits.items() if n in ("flips", "differ")}
        report = _measure(detector, samples)
        excess = beyond(report, manifest, limits or {})
        document = _document(detector, report, limits) | {"passed": not excess}
        _keep(detector, document)
    if json_output:
        print_json(document)
    else:
        _show(document, manifest.task, passed=not excess)
    if excess:
        raise VerificationError(f"the engines of {path} are {refusal(excess, limits or {})}")


def _measure(detector: Detector, samples: Samples) -> PrecisionReport:
    """Compare all pictures, under a bar with the time that is left."""
    from dyninfer.exporters.precision.measure import labels_of, measure_engines

    with progress_bar(remaining=True) as progress:
        task = progress.add_task("comparing the engines", total=len(samples.items))
        return measure_engines(
            detector,
            [sample.path for sample in samples.items],
            labels_of(samples.items),
            lambda: progress.advance(task),
        )


def _document(
    detector: Detector, report: PrecisionReport, limits: dict[str, float] | None
) -> dict[str, Any]:
    record = detector.engine_record()
    return {
        **report.to_dict(),
        "backend": record.backend,
        "backend_version": record.backend_version,
        "provider": record.provider,
        "device": record.device_name,
        "gate": limits,
    }


def _keep(detector: Detector, document: dict[str, Any]) -> None:
    """Put what was measured beside the build, if there is one that can be written."""
    if detector.build is None:
        return
    try:
        write_build_parity(detector.build, document)
    except BundleError as error:
        warn(f"{error}; what was measured is shown, but not kept")


def _show(document: dict[str, Any], task: Task, *, passed: bool) -> None:
    errors = document["tensors"]
    precision = document["precision"]
    table = make_table(
        "Largest difference from the bundle's own files, stage by stage",
        column("stage", (error["stage"] for error in errors), words=True),
        column("", (precision[error["stage"]] for error in errors), words=True),
        column("tensor", (error["tensor"] for error in errors), words=True),
        column("absolute", (f"{error['max_abs']:.1e}" for error in errors)),
        column("relative", (f"{error['max_rel']:.1e}" for error in errors)),
        column("mean", (f"{error['mean_rel']:.1e}" for error in errors)),
    )
    print_table(table, stdout)
    print_cost(document, task)
    where = f"{document['backend']} {document['backend_version']} ({document['provider']})"
    gate = document["gate"]
    stdout.print(
        styled(
            "verification ",
            ("passed", "green") if passed else ("failed", "red"),
            f": {counted(document['pictures'], 'picture')} on {where}, {document['device']}; ",
            f"gate {describe_gate(gate)}"
            if gate
            else "no --gate was given, all outputs are finite",
        )
    )
    if document["provider"] == "cpu" and "fp16" in precision.values():
        stdout.print(
            "on a CPU ONNX Runtime computes most float16 layers in float32; on a GPU this command "
            "(--device cuda:0) shows what they lose there, and dyninfer build --gate foretells it",
            soft_wrap=False,
        )
