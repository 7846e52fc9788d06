"""What a comparison of two records says, and what differs between them beside their times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario
from dyninfer.benchmarks.machine import Machine
from dyninfer.benchmarks.machine.cpu_state import CpuState
from dyninfer.benchmarks.machine.host import Host
from dyninfer.errors import InputError

_MEASURED = ("bundle", "family", "backend", "backend_version", "provider", "device", "policy")
_OF_GPU = (
    ("power_limit_w", "GPU power limit, W"),
    ("application_sm_mhz", "GPU application clock, MHz"),
    ("application_memory_mhz", "GPU memory's application clock, MHz"),
)
UNKNOWN = "unknown"


class Verdict(str, Enum):
    """What can be said of a figure.

    ``SLOWER`` and ``FASTER``: significantly beyond the tolerance. ``SAME``: its interval
    lies within the tolerance. ``UNCLEAR``: neither; more rounds would tell.
    """

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Change:
    """One figure of one scenario in both records.

    Attributes:
        old: in the old record: milliseconds, or images a second.
        new: in the new one.
        ratio: new over old, with its interval.
        p: of the change being within the tolerance, corrected for all figures that were tested.
        verdict: on times as they were measured, whatever the yardstick says.
    """

    old: float
    new: float
    ratio: Estimate
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class ScenarioChange:
    """A scenario that both records have.

    Attributes:
        latency: median milliseconds of a call: of the rounds' medians, their median.
        throughput: images a second: above 1 is better. None at a fixed rate, which sets it.
        adjusted: ratio of the median latency over the yardstick's; None without a yardstick.
    """

    scenario: Scenario
    latency: Change
    throughput: Change | None
    adjusted: float | None

    @property
    def verdict(self) -> Verdict:
        """Slower if either figure is, else faster if either is; the same only where both are."""
        verdicts = [change.verdict for change in (self.latency, self.throughput) if change]
        for verdict in (Verdict.SLOWER, Verdict.FASTER, Verdict.UNCLEAR):
            if verdict in verdicts:
                return verdict
        return Verdict.SAME


@dataclass(frozen=True)
class BaselineChange:
    """dyninfer's time over a baseline's in both records: the machine's state drops out of it."""

    baseline: str
    side: str
    old: float
    new: float


@dataclass(frozen=True)
class RecordDifference:
    """Something that two records do not share, in words."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.what}: {self.old} -> {self.new}"


@dataclass(frozen=True)
class RecordComparison:
    """What became of the old record's figures in the new one.

    Attributes:
        tolerance: changes up to this share are let pass.
        confidence: of intervals, and against any false alarm at all.
        scenarios: that both have; ``only_old`` and ``only_new`` that one of them lacks.
        yardstick: the fixed computation's time; None where the records have different ones.
        baselines: ratios that both records have.
        too_few_rounds: whether no change however large could have been significant.
        rounds_needed: of both records, for a change to be significant at all; None where no number
            would do for this number of scenarios.
        unsteady: why times may be those of other work on the machine; empty where nothing says so.
    """

    tolerance: float
    confidence: float
    differences: tuple[RecordDifference, ...]
    scenarios: tuple[ScenarioChange, ...]
    only_old: tuple[Scenario, ...]
    only_new: tuple[Scenario, ...]
    yardstick: Change | None
    peak_memory_mib: tuple[float, float]
    baselines: tuple[BaselineChange, ...]
    too_few_rounds: bool
    rounds_needed: int | None
    unsteady: tuple[str, ...]

    @property
    def regressions(self) -> tuple[ScenarioChange, ...]:
        """Scenarios that became slower, as they were measured."""
        return tuple(s for s in self.scenarios if s.verdict is Verdict.SLOWER)

    @property
    def machine_changed(self) -> bool:
        """Whether the fixed computation itself became slower or faster."""
        found = self.yardstick
        return found is not None and found.verdict in (Verdict.SLOWER, Verdict.FASTER)


def refuse_others(old: BenchRecord, new: BenchRecord) -> None:
    """Refuse to compare records of two machines, or of two models.

    A new export of a model has another manifest and the same stages.

    Raises:
        InputError: processor, number of cores or GPUs differ; or the manifests, and so do family,
            stages or image sizes.
    """
    pairs: list[tuple[str, str, object, object]] = [
        ("machines", "processor", old.machine.cpu, new.machine.cpu),
        ("machines", "usable cores", old.machine.usable_cores, new.machine.usable_cores),
        ("machines", "GPUs", _gpus(old), _gpus(new)),
    ]
    if old.measured.manifest_sha256 != new.measured.manifest_sha256:
        pairs += [
            ("models", "family", old.measured.family, new.measured.family),
            ("models", "stages", _stages(old), _stages(new)),
            ("models", "image size", _image_sizes(old), _image_sizes(new)),
        ]
    for kind, what, before, after in pairs:
        if before != after:
            advice = {"machines": "both on one machine", "models": "two exports of one model"}
            raise InputError(
                f"the records are of different {kind} ({what}: {before} and {after}), so their "
                f"times cannot be compared; measure {advice[kind]}"
            )


def _stages(record: BenchRecord) -> str:
    return ", ".join(stage.name for stage in record.measured.stages)


def _gpus(record: BenchRecord) -> str:
    return ", ".join(gpu.name or "unnamed" for gpu in record.machine.gpus) or "none"


def differences_of(old: BenchRecord, new: BenchRecord) -> tuple[RecordDifference, ...]:
    """Everything that may explain a change of time."""
    libraries = sorted(old.machine.versions.keys() | new.machine.versions.keys())
    return tuple(
        RecordDifference(what, before, after)
        for (what, before), (_, after) in zip(
            _facts(old, libraries), _facts(new, libraries), strict=True
        )
        if before != after
    )


def _facts(record: BenchRecord, libraries: Sequence[str]) -> Iterator[tuple[str, str]]:
    measured, machine = record.measured, record.machine
    for name in _MEASURED:
        yield name.replace("_", " "), getattr(measured, name)
    yield "manifest", measured.manifest_sha256[:12]
    yield "precision", ", ".join(f"{stage.name}={stage.precision}" for stage in measured.stages)
    yield "image size", _image_sizes(record)
    yield "pictures", record.pictures.in_words
    yield "clock", record.clock
    yield "yardstick", record.yardstick.what
    yield "system", machine.system
    yield "Python", machine.python
    for name in libraries:
        yield name, machine.versions.get(name, "absent")
    yield "throttled", ", ".join(record.log.throttled) or "no"
    # the engines are opened with room for it, whatever a scenario's batch is
    yield "largest batch", str(max(result.scenario.batch for result in record.scenarios))
    yield from _settings(machine)


def _settings(machine: Machine) -> Iterator[tuple[str, str]]:
    """How the machine is set; ``unknown`` where it cannot be told. The GPUs' joined, in order."""
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


def _image_sizes(record: BenchRecord) -> str:
    return ", ".join(f"{name} {size}" for name, size in record.measured.image_inputs.items())
