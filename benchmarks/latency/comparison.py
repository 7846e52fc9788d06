"""What a comparison of two records says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dyninfer.benchmarks.latency.differences import RecordDifference
from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario


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
class Tail:
    """The 99th percentile in both records; told, not judged: few rounds hold few such calls."""

    old_ms: float
    new_ms: float
    ratio: Estimate


@dataclass(frozen=True)
class ScenarioChange:
    """A scenario that both records have.

    Attributes:
        scenario: which.
        latency: median milliseconds of a call: of the rounds' medians, their median.
        throughput: images a second: above 1 is better. None at a fixed rate, which sets it.
        tail: where both records have calls enough for it.
        adjusted: ratio of the median latency over the yardstick's; None without a yardstick.
    """

    scenario: Scenario
    latency: Change
    throughput: Change | None
    tail: Tail | None
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
class RecordComparison:
    """What became of the old record's figures in the new one.

    Attributes:
        tolerance: changes up to this share are let pass.
        confidence: of intervals, and against any false alarm at all.
        differences: between the records beside their times.
        scenarios: that both have.
        only_old: scenarios that the new record lacks.
        only_new: scenarios that the old record lacks.
        yardstick: the fixed computation's time; None where the records have different ones.
        peak_memory_mib: old and new.
        baselines: ratios that both records have.
        too_few_rounds: whether no change however large could have been significant.
        rounds_needed: of both records, for a change to be significant at all; None where no number
            would do for so many scenarios.
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
