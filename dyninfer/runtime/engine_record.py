"""What a calibration is tied to: the engines that are open."""

from __future__ import annotations

from collections.abc import Mapping

from dyninfer.builds.spec import OpenBuild, describe_plan, own_precision, source_hashes
from dyninfer.bundle.calibration import (
    Calibration,
    EngineRecord,
    calibrate_command,
    check_calibration,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.engines import TENSORRT
from dyninfer.engines.threads import Threads
from dyninfer.plain_text import counted
from dyninfer.runtime.session import Session


def engine_record(manifest: Manifest, session: Session, build: OpenBuild | None) -> EngineRecord:
    """What is open, as far as easiness and times depend on it."""
    inputs, backend = manifest.image_inputs, session.backend
    return EngineRecord(
        stages_sha256=build.build.onnx_sha256() if build else source_hashes(manifest),
        precision=_precision(manifest, session, build),
        image_inputs={name: f"{spec.height}x{spec.width}" for name, spec in inputs.items()},
        backend=backend.name,
        backend_version=backend.version,
        provider=backend.provider,
        device_name=backend.device_name + _of_threads(backend.threads),
    )


def opening_options(manifest: Manifest, session: Session, build: OpenBuild | None) -> str:
    """What a command must be told to open these engines, each option after a space.

    Without it, the command that an error names would measure other engines.
    """
    backend, options = session.backend, []
    if backend.name != "onnxruntime":
        options.append(f"--backend {backend.name}")
    elif backend.provider == "tensorrt":
        options.append("--provider tensorrt")
    if backend.device != ("cuda:0" if backend.name in TENSORRT else "cpu"):
        options.append(f"--device {backend.device}")
    precision = _precision(manifest, session, build)
    if dict(precision) != own_precision(manifest):
        options.append(f"--precision {describe_plan(precision, manifest)}")
    if isinstance(backend.threads, int):
        options.append(f"--threads {backend.threads}")
    return "".join(f" {option}" for option in options)


def _of_threads(threads: Threads) -> str:
    """What of a processor was used; one pool for all sessions is as quick as one for each."""
    return f", {counted(threads, 'thread')}" if isinstance(threads, int) else ""


def _precision(
    manifest: Manifest, session: Session, build: OpenBuild | None
) -> Mapping[str, Precision]:
    """That of every stage: what it is computed in, or else what its file is in."""
    files = build.build.spec.precision if build else own_precision(manifest)
    return session.backend.precision or files


def own_calibration(
    bundle: Bundle, session: Session, build: OpenBuild | None
) -> Calibration | None:
    """The bundle's calibration of these engines, or None where it has none at all."""
    # no method: the monitor must not refer back to its detector
    calibrations = bundle.calibrations()
    if not calibrations:
        return None
    record = engine_record(bundle.manifest, session, build)
    command = calibrate_command(bundle.path, opening_options(bundle.manifest, session, build))
    return check_calibration(calibrations, record, "the monitor", command, times=False)
