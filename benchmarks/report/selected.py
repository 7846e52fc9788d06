"""Which scenarios of a record stand for the others where not all can be shown."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.latency.scenario_record import Scenario, ScenarioResult


def plain_result(record: BenchRecord, hard_fraction: float | None) -> ScenarioResult | None:
    """The scenario of one picture at a time, one caller, and this share of hard ones."""
    wanted = Scenario(hard_fraction=hard_fraction)
    decoded = Scenario(hard_fraction=hard_fraction, decode=True)
    found = {result.scenario: result for result in record.scenarios}
    return found.get(wanted) or found.get(decoded)


def closed_loop(record: BenchRecord) -> list[ScenarioResult]:
    """Scenarios whose calls follow each other."""
    return [result for result in record.scenarios if result.scenario.rate_per_s is None]


def forced_ends(results: Sequence[ScenarioResult]) -> list[ScenarioResult]:
    """The easiest and the hardest of the plain scenarios whose exits are forced."""
    plain = [r for r in results if r.scenario.is_plain and r.scenario.hard_fraction is not None]
    plain.sort(key=lambda result: result.hard_fraction)
    return plain if len(plain) < 2 else [plain[0], plain[-1]]


def mixture(results: Sequence[ScenarioResult]) -> ScenarioResult | None:
    """A plain scenario whose images left at several exits, best as routed."""
    mixed = [result for result in results if result.scenario.is_plain and leaves_at_several(result)]
    mixed.sort(key=lambda result: result.scenario.hard_fraction is not None)
    return mixed[0] if mixed else None


def leaves_at_several(result: ScenarioResult) -> bool:
    """Whether several exits have calls of their own."""
    return sum(exit_.latency is not None for exit_ in result.exits) > 1
