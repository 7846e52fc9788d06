"""Two records of ``dyninfer bench`` against each other: what became slower for certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.benchmarks.latency.comparison import (
    BaselineChange,
    Change,
    RecordComparison,
    ScenarioChange,
    Verdict,
    differences_of,
    refuse_others,
)
from dyninfer.benchmarks.latency.doubts import unsteady_reasons
from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.latency.scenario_record import Estimate, ScenarioResult
from dyninfer.benchmarks.latency.statistics import (
    CONFIDENCE,
    Summary,
    holm,
    mean_of,
    median_of,
    p_beyond,
    ratio_of_rounds,
    smallest_p,
)
from dyninfer.errors import InputError

TOLERANCE = 0.03
MOST_ROUNDS = 50


def compare_records(
    old: BenchRecord,
    new: BenchRecord,
    tolerance: float = TOLERANCE,
    confidence: float = CONFIDENCE,
) -> RecordComparison:
    """Compare two runs on one machine.

    A figure became slower if a permutation test on the rounds says that it is beyond the
    tolerance, after Holm's correction for all figures of all scenarios. Times are judged as they
    were measured. The yardstick is judged alike: where it changed, the machine did, and the
    verdict says so.

    Args:
        old: what is compared with.
        new: what is judged.
        tolerance: changes up to this share are let pass.
        confidence: 1 - the chance of any false alarm.

    Raises:
        InputError: the records are of different machines or models, or share no scenario.
    """
    judge = _Judge(tolerance, confidence)
    refuse_others(old, new)
    pairs = _pairs(old, new)
    both = {result.scenario.name for result, _ in pairs}
    yardstick = _yardstick(old, new, judge)
    tested = sum(1 if result.scenario.rate_per_s is not None else 2 for result, _ in pairs)
    return RecordComparison(
        tolerance=tolerance,
        confidence=confidence,
        differences=differences_of(old, new),
        scenarios=_scenario_changes(pairs, judge, yardstick),
        only_old=tuple(r.scenario for r in old.scenarios if r.scenario.name not in both),
        only_new=tuple(r.scenario for r in new.scenarios if r.scenario.name not in both),
        yardstick=yardstick,
        peak_memory_mib=(old.peak_memory_mib, new.peak_memory_mib),
        baselines=_baseline_changes(old, new),
        too_few_rounds=not any(
            _in_reach(len(a.rounds_ms), len(b.rounds_ms), tested, confidence) for a, b in pairs
        ),
        rounds_needed=next(
            (n for n in range(2, MOST_ROUNDS) if _in_reach(n, n, tested, confidence)), None
        ),
        unsteady=unsteady_reasons(old, new),
    )


def _pairs(old: BenchRecord, new: BenchRecord) -> list[tuple[ScenarioResult, ScenarioResult]]:
    """The scenarios that both have, in the order of the old one."""
    before = {result.scenario.name: result for result in old.scenarios}
    after = {result.scenario.name: result for result in new.scenarios}
    pairs = [(result, after[name]) for name, result in before.items() if name in after]
    if not pairs:
        raise InputError(
            f"the records share no scenario: one has {'; '.join(before) or 'none'}, the other "
            f"{'; '.join(after) or 'none'}"
        )
    return pairs


@dataclass(frozen=True)
class _Figure:
    """A figure to be tested: its value in each round of both records."""

    old: Sequence[float]
    new: Sequence[float]
    summary: Summary
    inverse_of: float | None = None
    """Throughput: images that a mean millisecond of a call stands for, times 1000."""


@dataclass(frozen=True)
class _Judge:
    tolerance: float
    confidence: float

    def p(self, figure: _Figure) -> float:
        """The p-value of the change being within the tolerance, before any correction."""
        return p_beyond(figure.old, figure.new, self.tolerance, figure.summary)

    def change(self, figure: _Figure, p: float) -> Change:
        """A figure with its ratio and verdict; ``p`` is corrected already."""
        slowness = ratio_of_rounds(figure.old, figure.new, self.confidence, figure.summary)
        values = [
            float(figure.summary(np.asarray(v, np.float64))) for v in (figure.old, figure.new)
        ]
        same = list(figure.old) == list(figure.new)  # one record twice
        verdict = Verdict.SAME if same else self.verdict(slowness, p)
        if figure.inverse_of is None:
            return Change(values[0], values[1], slowness, p, verdict)
        ratio = Estimate(1 / slowness.value, 1 / slowness.high, 1 / slowness.low)
        old, new = (figure.inverse_of / value for value in values)
        return Change(old, new, ratio, p, verdict)

    def verdict(self, slowness: Estimate, p: float) -> Verdict:
        """The verdict on a ratio of times."""
        fastest, slowest = 1 / (1 + self.tolerance), 1 + self.tolerance
        significant = p <= 1 - self.confidence
        if significant and slowness.value > slowest:
            return Verdict.SLOWER
        if significant and slowness.value < fastest:
            return Verdict.FASTER
        within = fastest <= slowness.low and slowness.high <= slowest
        return Verdict.SAME if within else Verdict.UNCLEAR


def _scenario_changes(
    pairs: Sequence[tuple[ScenarioResult, ScenarioResult]],
    judge: _Judge,
    yardstick: Change | None,
) -> tuple[ScenarioChange, ...]:
    figures = [(_latency(*pair), _throughput(*pair)) for pair in pairs]
    tested = [figure for both in figures for figure in both if figure]
    corrected = iter(holm([judge.p(figure) for figure in tested]))
    changes = []
    for (old, _), (latency, throughput) in zip(pairs, figures, strict=True):
        change = judge.change(latency, next(corrected))
        changes.append(
            ScenarioChange(
                scenario=old.scenario,
                latency=change,
                throughput=judge.change(throughput, next(corrected)) if throughput else None,
                adjusted=change.ratio.value / yardstick.ratio.value if yardstick else None,
            )
        )
    return tuple(changes)


def _by_round(result: ScenarioResult, figure: Summary) -> list[float]:
    return [float(figure(np.asarray(calls))) for calls in result.rounds_ms]


def _latency(old: ScenarioResult, new: ScenarioResult) -> _Figure:
    return _Figure(_by_round(old, median_of), _by_round(new, median_of), median_of)


def _throughput(old: ScenarioResult, new: ScenarioResult) -> _Figure | None:
    """By the mean latency: in a closed loop, callers over latency is calls a second (Little 1961).

    The mean of the rounds' means, so that no round weighs more for having had more calls.
    """
    scenario = old.scenario
    if scenario.rate_per_s is not None:
        return None
    images = 1e3 * scenario.batch * scenario.concurrency
    return _Figure(_by_round(old, mean_of), _by_round(new, mean_of), mean_of, images)


def _yardstick(old: BenchRecord, new: BenchRecord, judge: _Judge) -> Change | None:
    """Judged on its own: it claims nothing about the code, and needs no correction."""
    if old.yardstick.what != new.yardstick.what:
        return None
    figure = _Figure(old.yardstick.rounds_ms, new.yardstick.rounds_ms, median_of)
    return judge.change(figure, judge.p(figure))


def _baseline_changes(old: BenchRecord, new: BenchRecord) -> tuple[BaselineChange, ...]:
    if old.baselines is None or new.baselines is None:
        return ()
    after = {(r.baseline, r.side): r.ratio.median for r in new.baselines.ratios}
    return tuple(
        BaselineChange(r.baseline, r.side, r.ratio.median, after[r.baseline, r.side])
        for r in old.baselines.ratios
        if (r.baseline, r.side) in after
    )


def _in_reach(old_rounds: int, new_rounds: int, tested: int, confidence: float) -> bool:
    """Whether Holm's first step can be taken with this number of rounds."""
    return smallest_p(old_rounds, new_rounds) * tested <= 1 - confidence
