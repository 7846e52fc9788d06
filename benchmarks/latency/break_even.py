"""The hard fraction up to which a route is faster than its last way alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dyninfer.benchmarks.baselines.names import LAST_EXIT
from dyninfer.benchmarks.latency.baseline_record import Baselines
from dyninfer.benchmarks.latency.model_record import RunsFor, StepCost
from dyninfer.benchmarks.latency.row_costs import hard_rows, mean_cost
from dyninfer.bundle.manifest import Manifest
from dyninfer.runtime.plan import alone, stages_of
from dyninfer.spans import PREPARE


def break_even_measured(baselines: Baselines, ways: Sequence[str]) -> float | None:
    """Break-even at batch 1, by the ratios to the baseline that were taken pair by pair.

    With r the ratio of dyninfer's time to the baseline's on the first and on the last way, a share
    h of hard images costs (1 - h) r_easy + h r_hard of the baseline; at the break-even this is 1.
    Where the last exit reads features of the first, r_hard is 1 but for the router; where it is
    a detector of its own, an all-hard image has paid for the first in vain.

    Returns:
        In [0, 1]; None where there is one way, or the baseline was not measured on both.
    """
    ratio = {r.side: r.ratio.median for r in baselines.ratios if r.baseline == LAST_EXIT}
    if len(ways) == 1 or not {ways[0], ways[-1]} <= set(ratio):
        return None
    easy, hard = ratio[ways[0]], ratio[ways[-1]]
    if easy >= 1 or hard <= 1:
        return 0.0 if easy >= 1 else 1.0
    return (1 - easy) / (hard - easy)


def break_even_of_steps(steps: Sequence[StepCost], manifest: Manifest, batch: int) -> float:
    """Break-even at any batch by the model's steps, hard images spread evenly over calls.

    The last way alone costs what an all-hard call costs without the stages that it does not
    need, and without preparing images that only those read. Between whole numbers of hard rows in
    a call the model is linear in the fraction, so the first crossing is exact.
    """
    needed = frozenset(stages_of(alone(manifest, len(manifest.ways) - 1)))
    own = [step for step in steps if _last_exit_runs(step, manifest, needed)]
    limit = _total(own, batch, 1.0)
    beyond = np.array([_total(steps, batch, k / batch) for k in range(batch + 1)]) - limit
    above = np.flatnonzero(beyond > 0)
    if not len(above):
        return 1.0
    high = int(above[0])
    if not high:
        return 0.0
    part = beyond[high - 1] / (beyond[high - 1] - beyond[high])
    return float((high - 1 + part) / batch)


def prepared_for(manifest: Manifest) -> tuple[RunsFor, ...]:
    """The kinds of rows for which images are prepared: some are read on one way alone."""
    first, last = (
        images_read(manifest, manifest.stages_to(way)) for way in (0, len(manifest.ways) - 1)
    )
    own = ((RunsFor.EASY, first - last), (RunsFor.HARD, last - first))
    return (RunsFor.ALL, *(rows for rows, read in own if read))


def images_read(manifest: Manifest, stages: Iterable[str]) -> set[str]:
    """Names of the image inputs that these stages read."""
    read = {spec.name for stage in stages for spec in manifest.stages[stage].inputs}
    return read & set(manifest.image_inputs)


def _total(steps: Sequence[StepCost], batch: int, hard_fraction: float) -> float:
    chances = hard_rows(batch, hard_fraction)
    return sum(mean_cost(step, chances) for step in steps)


def _last_exit_runs(step: StepCost, manifest: Manifest, needed: frozenset[str]) -> bool:
    if step.name in manifest.stages:
        return step.name in needed
    if step.name == PREPARE:
        first = images_read(manifest, manifest.stages_to(0))
        read = images_read(manifest, needed)
        return bool(read - first if step.runs_for is RunsFor.HARD else read & first)
    return True
