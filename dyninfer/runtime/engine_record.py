"""What a calibration is tied to: the engines that are open."""

from __future__ import annotations

from dyninfer.builds.spec import OpenBuild, own_precision, source_hashes
from dyninfer.bundle.calibration import Calibration, EngineRecord, check_calibration
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.runtime.session import Session


def engine_record(manifest: Manifest, session: Session, build: OpenBuild | None) -> EngineRecord:
    """What is open, as far as easiness and times depend on it."""
    inputs, backend = manifest.image_inputs, session.backend
    return EngineRecord(
        stages_sha256=build.build.onnx_sha256() if build else source_hashes(manifest),
        precision=build.build.spec.precision if build else own_precision(manifest),
        image_inputs={name: f"{spec.height}x{spec.width}" for name, spec in inputs.items()},
        backend=backend.name,
        backend_version=backend.version,
        provider=backend.provider,
        device_name=backend.device_name,
    )


def own_calibration(
    bundle: Bundle, session: Session, build: OpenBuild | None
) -> Calibration | None:
    """The bundle's calibration, which must be of these engines, or None."""
    # no method: the monitor must not refer back to its detector
    calibration = bundle.calibration()
    if calibration is None:
        return None
    record = engine_record(bundle.manifest, session, build)
    return check_calibration(calibration, record, bundle.path, "the monitor", times=False)
