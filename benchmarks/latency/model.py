"""Mean milliseconds per image as a function of hard fraction and batch, fitted to a record.

Every step of a call has a cost by the rows that it runs for
(:mod:`dyninfer.benchmarks.latency.step_costs`); the model is the sum of their means over calls. It
is fitted span by span, each scenario weighted by the inverse of its time, so that relative errors
of the total count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dyninfer.benchmarks.baselines.setup import LAST_EXIT
from dyninfer.benchmarks.latency.record import Baselines, LatencyModel, ModelCheck
from dyninfer.benchmarks.latency.scenario_record import Estimate, ScenarioResult
from dyninfer.benchmarks.latency.step_costs import (
    RowSpread,
    RunsFor,
    StepCost,
    break_even_of_steps,
    fit_span,
    hard_rows,
    predict_ms,
    prepared_for,
    rows_run,
)
from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import InputError
from dyninfer.spans import GATHER, POSTPROCESS, PREPARE

MIN_VARIED = 2


class TooFewScenarios(InputError):  # noqa: N818  # says what is missing, like MissingExtra
    """What was measured does not determine the model."""


def fit(
    manifest: Manifest,
    results: Sequence[ScenarioResult],
    baselines: Baselines | None = None,
) -> LatencyModel:
    """Fit the model and check it on scenarios that were left out.

    Closed loops of one caller without decoding count. Where there are several ways, those with a
    forced hard fraction are fitted on: their images take the first or the last way, and how many of
    each call do is known. What the router or chooser decides itself is only compared with the
    prediction, which takes each image to be hard by chance; with more than two ways not even
    that, since the model says nothing of the ways in between.

    A scenario is predicted from a fit without it, unless it is at an end: where the others do not
    reach its numbers of rows, that would test extrapolation.

    Raises:
        TooFewScenarios: there are not two hard fractions, or with one way two batch sizes.
    """
    plain = [r for r in results if replace(r.scenario, batch=1).is_plain]
    names = [manifest.way_names[way] for way in manifest.ways_by_cost]
    routed = [r for r in plain if r.scenario.as_routed]
    fitter = _Fitter(manifest, tuple(r for r in plain if _of_the_ends(r, names)))
    fitter.check_enough()
    steps = fitter.steps()
    checks = [fitter.check(result, steps) for result in fitter.results]
    if len(names) == 2:
        checks += [_compare(r, steps, RowSpread.RANDOM, held_out=True) for r in routed]
    judged = [check for check in checks if check.held_out] or checks
    means = {r.scenario: r.ms_per_image for r in plain}
    noise = {s: (mean.high - mean.low) / 2 / mean.value for s, mean in means.items()}
    batches = sorted({r.scenario.batch for r in fitter.results}) if len(names) > 1 else []
    error = float(np.mean([abs(check.error) for check in judged]))
    measured = None if baselines is None else break_even_measured(baselines, names)
    low, middle, high = (
        {b: break_even_of_steps(steps, manifest, b, off) for b in batches}
        for off in (-error, 0.0, error)
    )
    return LatencyModel(
        steps=steps,
        checks=tuple(checks),
        mean_error=error,
        break_even=None if measured is None else measured.value,
        break_even_interval=None if measured is None else (measured.low, measured.high),
        mean_noise=float(np.mean([noise[check.scenario] for check in judged])),
        break_even_by_batch=middle,
        break_even_intervals_by_batch={b: (low[b], high[b]) for b in batches},
    )


@dataclass(frozen=True)
class _Fitter:
    """Fits the steps of a bundle to scenarios whose hard images are spread evenly."""

    manifest: Manifest
    results: tuple[ScenarioResult, ...]

    def check_enough(self) -> None:
        """Refuse results that do not tell what hard images cost, or batches."""
        varied = self._varied(self.results)
        if varied < MIN_VARIED:
            static = len(self.manifest.ways) == 1
            what = "batch size" if static else "forced hard fraction"
            were = " was" if varied == 1 else "s were"
            raise TooFewScenarios(
                f"{varied} {what}{were} measured with one caller, in a closed loop and without "
                f"decoding, expected at least {MIN_VARIED} to fit a latency model to"
            )

    def _varied(self, results: Sequence[ScenarioResult]) -> int:
        """How many different ones there are of what a fit needs two of."""
        if len(self.manifest.ways) == 1:
            return len({r.scenario.batch for r in results})
        return len({r.hard_fraction for r in results})

    def steps(self) -> tuple[StepCost, ...]:
        """Costs of all steps, in the order of the spans."""
        chances = [hard_rows(*_key(r)) for r in self.results]
        weights = np.array([1 / r.ms_per_image.value for r in self.results])
        fullest_first = sorted(self.results, key=lambda r: -len(r.spans))  # has them all in order
        names = dict.fromkeys(span.name for r in fullest_first for span in r.spans)
        found: list[StepCost] = []
        spent = [{s.name: s.ms_per_image.value for s in r.spans} for r in self.results]
        for name in names:
            ms = np.array([by_name.get(name, 0.0) for by_name in spent])
            found += fit_span(name, self._parts(name), chances, ms, weights)
        return tuple(found)

    def _parts(self, name: str) -> tuple[RunsFor, ...]:
        """The kinds of rows whose numbers a span's time depends on."""
        if len(self.manifest.ways) == 1:
            return (RunsFor.ALL,)
        if name in self.manifest.stages:
            return (_told_by_share(name, self.results),)
        if name == GATHER:
            return (RunsFor.MIXED,)
        if name == POSTPROCESS:  # each way has its own number of results
            return RunsFor.EASY, RunsFor.HARD
        if name == PREPARE:
            return prepared_for(self.manifest)
        return RunsFor.ALL, RunsFor.HARD

    def check(self, result: ScenarioResult, steps: Sequence[StepCost]) -> ModelCheck:
        """The scenario as predicted without it, or as fitted where the others do not suffice.

        Others of its batch and fraction are left out with it: they are the same to the model.
        """
        others = tuple(r for r in self.results if _key(r) != _key(result))
        if self._varied(others) < MIN_VARIED or not _reach(others, result):
            return _compare(result, steps, RowSpread.EVEN, held_out=False)
        without = _Fitter(self.manifest, others).steps()
        return _compare(result, without, RowSpread.EVEN, held_out=True)


def _of_the_ends(result: ScenarioResult, ways: Sequence[str]) -> bool:
    """Whether it is known that its images took the easiest or the hardest way, and how many.

    ``ways`` are by cost, the cheapest first.
    """
    scenario = result.scenario
    return scenario.hard_fraction is not None or scenario.way in (ways[0], ways[-1])


def _key(result: ScenarioResult) -> tuple[int, float]:
    return result.scenario.batch, result.hard_fraction


def _told_by_share(stage: str, results: Sequence[ScenarioResult]) -> RunsFor:
    """Which images went through a stage; a head that starts before the decision is run for all."""
    hard = np.array([r.hard_fraction for r in results])
    share = [sum(span.share for span in r.spans if span.name == stage) for r in results]
    expected = {RunsFor.ALL: np.ones_like(hard), RunsFor.EASY: 1 - hard, RunsFor.HARD: hard}
    return min(expected, key=lambda rows: float(np.abs(expected[rows] - share).sum()))


def _reach(others: Sequence[ScenarioResult], result: ScenarioResult) -> bool:
    """Whether every number of rows of a scenario lies within those of the others."""
    for part in (RunsFor.ALL, RunsFor.EASY, RunsFor.HARD):
        here = _row_counts(part, result)
        there = set().union(*(_row_counts(part, r) for r in others))
        if here and not (there and min(there) <= min(here) and max(here) <= max(there)):
            return False
    return True


def _row_counts(part: RunsFor, result: ScenarioResult) -> set[int]:
    """Numbers of rows above 0 that occur in the calls of a scenario."""
    chances = hard_rows(*_key(result))
    rows = rows_run(part, len(chances) - 1)
    return set(rows[(chances > 0) & (rows > 0)].tolist())


def _compare(
    result: ScenarioResult, steps: Sequence[StepCost], spread: RowSpread, *, held_out: bool
) -> ModelCheck:
    batch, hard = _key(result)
    predicted_ms = predict_ms(steps, batch, hard, spread)
    return ModelCheck(result.scenario, result.ms_per_image.value, predicted_ms, held_out)


def break_even_measured(baselines: Baselines, ways: Sequence[str]) -> Estimate | None:
    """Break-even at batch 1, by the ratios to the baseline that were taken pair by pair.

    With r the ratio of dyninfer's time to the baseline's on the first and on the last of ``ways``,
    which are by cost, a share
    h of hard images costs (1 - h) r_easy + h r_hard of the baseline; at the break-even this is 1.
    Where the last exit reads features of the first, r_hard is 1 but for the router; where it is
    a detector of its own, an all-hard image has paid for the first in vain. h falls as either ratio
    rises, so its interval comes from the ends of theirs, both high or both low at once: at least
    as wide as one of 95 %.

    Returns:
        In [0, 1]; None where there is one way, or the baseline was not measured on both.
    """
    ratio = {r.side: r.ratio for r in baselines.ratios if r.baseline == LAST_EXIT}
    if len(ways) == 1 or not {ways[0], ways[-1]} <= set(ratio):
        return None
    easy, hard = ratio[ways[0]], ratio[ways[-1]]
    return Estimate(
        break_even_at(easy.median, hard.median),
        break_even_at(easy.high, hard.high),
        break_even_at(easy.low, hard.low),
    )


def break_even_at(easy: float, hard: float) -> float:
    """Break-even in [0, 1] where all easy and all hard take these shares of the last way's time."""
    if easy >= 1 or hard <= 1:
        return 0.0 if easy >= 1 else 1.0
    return (1 - easy) / (hard - easy)
