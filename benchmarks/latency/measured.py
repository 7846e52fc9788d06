"""What was opened, for the record."""

from __future__ import annotations

from dyninfer.benchmarks.latency.record import MeasuredBundle, StageInfo
from dyninfer.bundle.folder import MANIFEST_FILE, file_sha256
from dyninfer.runtime.detector import Detector

HOST_CLOCK = "perf_counter_ns"
DEVICE_CLOCK = "CUDA events"


def describe_detector(detector: Detector) -> MeasuredBundle:
    """Bundle, stages, engines and policy."""
    manifest, record = detector.manifest, detector.engine_record()
    roles = manifest.roles
    return MeasuredBundle(
        bundle=detector.bundle.path.resolve().name,
        family=manifest.family,
        manifest_sha256=file_sha256(detector.bundle.path / MANIFEST_FILE),
        exits=len(manifest.ways),
        image_inputs=dict(record.image_inputs),
        stages=tuple(
            StageInfo(name, roles[name], record.precision[name].value, s.parameters, s.macs)
            for name, s in manifest.stages.items()
        ),
        backend=record.backend,
        backend_version=record.backend_version,
        provider=record.provider,
        device=record.device_name,
        policy=str(detector.policy),
        ways=manifest.way_names,
    )


def engine_clock(detector: Detector) -> str:
    """What the stages' milliseconds are measured with.

    TensorRT's engines are timed by events on their stream, which tell what the GPU did and not
    how long the host waited; this was not run on a GPU here. All else is the host's clock.
    """
    return DEVICE_CLOCK if detector.backend.startswith("tensorrt") else HOST_CLOCK
