"""What differs between two records beside their times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.machine.cpu_state import CpuState
from dyninfer.benchmarks.machine.host import Host
from dyninfer.errors import InputError

_MEASURED = (
    ("bundle", "bundle"),
    ("family", "family"),
    ("backend", "backend"),
    ("backend_version", "backend version"),
    ("provider", "provider"),
    ("device", "device"),
    ("policy", "policy"),
)
_OF_GPU = (
    ("power_limit_w", "GPU power limit, W"),
    ("application_sm_mhz", "GPU application clock, MHz"),
    ("application_memory_mhz", "GPU memory's application clock, MHz"),
)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class RecordDifference:
    """Something that two records do not share, in words."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.what}: {self.old} -> {self.new}"


def refuse_other_machine(old: BenchRecord, new: BenchRecord) -> None:
    """Refuse to compare records of two machines: their times say nothing of the code.

    Raises:
        InputError: processor, number of cores or GPUs differ.
    """
    for what, before, after in (
        ("processor", old.machine.cpu, new.machine.cpu),
        ("usable cores", old.machine.usable_cores, new.machine.usable_cores),
        ("GPUs", _gpus(old), _gpus(new)),
    ):
        if before != after:
            raise InputError(
                f"the records are of different machines ({what}: {before} and {after}), so their "
                "times cannot be compared; measure both on one machine"
            )


def refuse_other_model(old: BenchRecord, new: BenchRecord) -> None:
    """Refuse to compare two models; a new export of one has another manifest and the same stages.

    Raises:
        InputError: the manifests differ, and so do family, stages or image sizes.
    """
    if old.measured.manifest_sha256 == new.measured.manifest_sha256:
        return
    for what, before, after in (
        ("family", old.measured.family, new.measured.family),
        ("stages", _stages(old), _stages(new)),
        ("image size", _image_sizes(old), _image_sizes(new)),
    ):
        if before != after:
            raise InputError(
                f"the records are of different models ({what}: {before} and {after}), so their "
                "times cannot be compared; measure two exports of one model"
            )


def _stages(record: BenchRecord) -> str:
    return ", ".join(stage.name for stage in record.measured.stages)


def _gpus(record: BenchRecord) -> str:
    return ", ".join(gpu.name or "unnamed" for gpu in record.machine.gpus) or "none"


def differences_of(old: BenchRecord, new: BenchRecord) -> tuple[RecordDifference, ...]:
    """Everything that may explain a change of time."""
    return tuple(
        RecordDifference(what, before, after)
        for what, before, after in _pairs(old, new)
        if before != after
    )


def _pairs(old: BenchRecord, new: BenchRecord) -> Iterator[tuple[str, str, str]]:
    for name, what in _MEASURED:
        yield what, getattr(old.measured, name), getattr(new.measured, name)
    yield "manifest", old.measured.manifest_sha256[:12], new.measured.manifest_sha256[:12]
    yield "precision", _precision(old), _precision(new)
    yield "image size", _image_sizes(old), _image_sizes(new)
    yield "pictures", old.pictures.in_words, new.pictures.in_words
    yield "clock", old.clock, new.clock
    yield "yardstick", old.yardstick.what, new.yardstick.what
    yield "system", old.machine.system, new.machine.system
    yield "Python", old.machine.python, new.machine.python
    libraries = old.machine.versions, new.machine.versions
    for name in sorted({name for versions in libraries for name in versions}):
        before, after = (versions.get(name, "absent") for versions in libraries)
        yield name, before, after
    yield "throttled", _throttled(old), _throttled(new)
    yield "largest batch", _largest_batch(old), _largest_batch(new)
    for (what, before), (_, after) in zip(_settings(old), _settings(new), strict=True):
        yield what, before, after


def _settings(record: BenchRecord) -> Iterator[tuple[str, str]]:
    """How the machine is set; ``unknown`` where it cannot be told. The GPUs' joined, in order."""
    machine = record.machine
    yield "NVIDIA driver", machine.nvidia_driver or UNKNOWN
    yield "CUDA of the driver", machine.cuda_driver or UNKNOWN
    state, host = machine.cpu_state or CpuState(), machine.host or Host()
    yield "governor", state.governor or UNKNOWN
    yield "clock limits", f"{_known(state.min_mhz)} to {_known(state.max_mhz)} MHz"
    yield "boost", UNKNOWN if state.boost is None else "on" if state.boost else "off"
    quota = host.cpu_quota_cores
    yield "processor quota", "none" if quota is None else f"{quota:g} cores"
    for name, what in _OF_GPU:
        yield what, ", ".join(_known(getattr(gpu, name)) for gpu in machine.gpus) or "no GPU"


def _known(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"


def _largest_batch(record: BenchRecord) -> str:
    """The engines are opened with room for it, whatever a scenario's batch is."""
    return str(max(result.scenario.batch for result in record.scenarios))


def _precision(record: BenchRecord) -> str:
    return ", ".join(f"{stage.name}={stage.precision}" for stage in record.measured.stages)


def _image_sizes(record: BenchRecord) -> str:
    return ", ".join(f"{name} {size}" for name, size in record.measured.image_inputs.items())


def _throttled(record: BenchRecord) -> str:
    return ", ".join(record.log.throttled) or "no"
