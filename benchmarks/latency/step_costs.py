"""What a step of a call costs by the rows it runs for, and the mean over calls.

A call of B images has k hard rows. The first exit's body and router run for all B, its head for
B - k, the stages of later exits for k, so that a mean over calls needs the distribution of k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from dyninfer.bundle.manifest import Manifest
from dyninfer.runtime.plan import alone, stages_of
from dyninfer.spans import PREPARE
from dyninfer.types import Float64Array, Int64Array

Basis = tuple[Callable[[Int64Array], Float64Array], ...]
"""Functions of the number of rows; a step's cost is a non-negative combination of them."""

_DISTINCT = 1e-2
"""Columns of length 1 whose smallest singular value is below this share of the largest are taken
to be dependent: their coefficients would be noise."""


class RunsFor(str, Enum):
    """The rows of a call that a step runs for, where each image takes the first or the last way.

    ``EASY`` rows take the first and ``HARD`` rows the last; ``MIXED`` is all rows of a call that
    has both.
    """

    ALL = "all"
    EASY = "easy"
    HARD = "hard"
    MIXED = "mixed"


@dataclass(frozen=True)
class StepCost:
    """A step of the latency model.

    A call that runs it for n rows costs ``first_ms + further_ms * (n - 1)``, and nothing for none.
    A step that runs for several kinds of rows has several entries of one name. A further row may
    cost more than the first, as when a batch outgrows a cache; an intercept at no rows would then
    be negative.
    """

    name: str
    first_ms: Annotated[float, Field(ge=0)]
    further_ms: Annotated[float, Field(ge=0)]
    runs_for: RunsFor = RunsFor.ALL

    @model_validator(mode="before")
    @classmethod
    def _of_a_line(cls, given: Any) -> Any:
        """Records used to hold the intercept at no rows and the slope."""
        kwargs = given.get if isinstance(given, dict) else {}.get
        fixed, slope = kwargs("fixed_ms"), kwargs("per_image_ms")
        if not (isinstance(fixed, int | float) and isinstance(slope, int | float)):
            return given
        rest = {key: given[key] for key in given if key not in ("fixed_ms", "per_image_ms")}
        return {**rest, "first_ms": fixed + slope, "further_ms": slope}


class RowSpread(str, Enum):
    """How hard images fall on calls.

    ``EVEN``: each call has the mean number, rounded down or up, as forced fractions do.
    ``RANDOM``: each image is hard or not by itself: k is Binomial(B, h).
    """

    EVEN = "even"
    RANDOM = "random"


def hard_rows(batch: int, hard_fraction: float, spread: RowSpread = RowSpread.EVEN) -> Float64Array:
    """(B + 1,) probability that k of the ``batch`` rows of a call are hard, for k = 0 ... B."""
    if spread is RowSpread.RANDOM:
        chances = np.ones(1)
        for _ in range(batch):
            chances = np.convolve(chances, [1 - hard_fraction, hard_fraction])
        return chances
    mean = min(round(batch * hard_fraction, 9), batch)  # 0.1 * 30 is just above 3
    low = math.floor(mean)
    chances = np.zeros(batch + 1)
    chances[low] = 1 - (mean - low)
    if low < batch:
        chances[low + 1] = mean - low
    return chances


def rows_run(runs_for: RunsFor, batch: int) -> Int64Array:
    """(B + 1,) rows that a step runs for in a call with k = 0 ... B hard rows."""
    hard = np.arange(batch + 1)
    rows: Int64Array = {
        RunsFor.ALL: np.full(batch + 1, batch),
        RunsFor.EASY: batch - hard,
        RunsFor.HARD: hard,
        RunsFor.MIXED: np.where((hard > 0) & (hard < batch), batch, 0),
    }[runs_for]
    return rows


def mean_cost(step: StepCost, chances: Float64Array) -> float:
    """Milliseconds of a step per image, over calls whose hard rows are distributed so."""
    batch = len(chances) - 1
    rows = rows_run(step.runs_for, batch)
    of_call = np.where(rows > 0, step.first_ms + step.further_ms * (rows - 1), 0.0)
    return float(chances @ of_call) / batch


def predict_ms(
    steps: Sequence[StepCost],
    batch: int,
    hard_fraction: float,
    spread: RowSpread = RowSpread.EVEN,
) -> float:
    """Mean milliseconds per image of calls of ``batch`` images.

    Beyond the batch sizes that were measured this extrapolates; where only batch 1 was, it takes
    an image in a batch to cost what it costs alone.
    """
    chances = hard_rows(batch, hard_fraction, spread)
    return sum(mean_cost(step, chances) for step in steps)


LINE: Basis = (
    lambda rows: np.asarray(rows > 0, np.float64),
    lambda rows: np.asarray(np.maximum(rows - 1, 0), np.float64),
)
"""Cost of the first row and of each further one: both are non-negative also where a further row
costs more than the first did, as on a CPU whose cache a batch outgrows (a quarter more at 16 rows
of the embedded model at 320x320 than at one); an intercept would not be."""
RAY: Basis = (lambda rows: np.asarray(rows, np.float64),)
"""Every row costs the same: where only one number of rows was measured."""


def fit_span(
    name: str,
    parts: Sequence[RunsFor],
    chances: Sequence[Float64Array],
    ms_per_image: Float64Array,
    weights: Float64Array,
) -> list[StepCost]:
    """Costs of one span that explain its time in several scenarios.

    Each is a :data:`LINE` in the number of rows, or a :data:`RAY` where the scenarios do not
    determine the lines. Each of the ``parts``, the kinds of rows that the span runs for, gets its
    own cost; a millisecond counts by the ``weights`` (S,) of its scenario.
    """
    columns = _columns(LINE, parts, chances) * weights[:, None]
    line = _independent(columns)
    if not line:
        columns = _columns(RAY, parts, chances) * weights[:, None]
    found = nonnegative_least_squares(columns, ms_per_image * weights).reshape(len(parts), -1)
    return [
        StepCost(name, float(row[0]), float(row[-1]), part)
        for part, row in zip(parts, found, strict=True)
        if row.any()
    ]


def _columns(
    basis: Basis, parts: Sequence[RunsFor], chances: Sequence[Float64Array]
) -> Float64Array:
    """(S, parts * basis) mean of every term per image."""
    columns: Float64Array = np.array(
        [
            [
                mass @ term(rows_run(part, len(mass) - 1)) / (len(mass) - 1)
                for part in parts
                for term in basis
            ]
            for mass in chances
        ]
    )
    return columns


def _independent(columns: Float64Array) -> bool:
    lengths = np.linalg.norm(columns, axis=0)
    if not lengths.all():
        return False
    sizes = np.linalg.svd(columns / lengths, compute_uv=False)
    return len(sizes) == columns.shape[1] and bool(sizes[-1] > _DISTINCT * sizes[0])


def nonnegative_least_squares(columns: Float64Array, wanted: Float64Array) -> Float64Array:
    """The x >= 0 that makes ``columns @ x`` nearest to ``wanted``.

    At the optimum some unknowns are 0 and the others solve the unconstrained problem (Lawson and
    Hanson, Solving Least Squares Problems, 1974, chapter 23). With n unknowns there are 2^n choices
    of which; all are tried, which for the few unknowns of a step is quick and needs no tolerance.
    """
    unknowns = columns.shape[1]
    best, least = np.zeros(unknowns), float(wanted @ wanted)
    for count in range(1, unknowns + 1):
        for kept in map(list, combinations(range(unknowns), count)):
            found = np.linalg.lstsq(columns[:, kept], wanted, rcond=None)[0]
            if (found < 0).any():
                continue
            missed = wanted - columns[:, kept] @ found
            if float(missed @ missed) < least:
                best, least = np.zeros(unknowns), float(missed @ missed)
                best[kept] = found
    return best


def break_even_of_steps(
    steps: Sequence[StepCost], manifest: Manifest, batch: int, off: float = 0.0
) -> float:
    """Break-even at any batch by the model's steps, hard images spread evenly over calls.

    The last way alone costs what an all-hard call costs without the stages that it does not
    need, and without preparing images that only those read. Between whole numbers of hard rows in
    a call the model is linear in the fraction, so the first crossing is exact. ``off`` is the
    share by which the last way's time is taken to be longer than the model says.
    """
    needed = frozenset(stages_of(alone(manifest, manifest.ways_by_cost[-1])))
    own = [step for step in steps if _last_exit_runs(step, manifest, needed)]
    limit = predict_ms(own, batch, 1.0) * (1 + off)
    beyond = np.array([predict_ms(steps, batch, k / batch) for k in range(batch + 1)]) - limit
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
    order = manifest.ways_by_cost
    first, last = (images_read(manifest, manifest.stages_to(order[end])) for end in (0, -1))
    own = ((RunsFor.EASY, first - last), (RunsFor.HARD, last - first))
    return (RunsFor.ALL, *(rows for rows, read in own if read))


def images_read(manifest: Manifest, stages: Iterable[str]) -> set[str]:
    """Names of the image inputs that these stages read."""
    read = {spec.name for stage in stages for spec in manifest.stages[stage].inputs}
    return read & set(manifest.image_inputs)


def _last_exit_runs(step: StepCost, manifest: Manifest, needed: frozenset[str]) -> bool:
    if step.name in manifest.stages:
        return step.name in needed
    if step.name == PREPARE:
        first = images_read(manifest, manifest.stages_to(manifest.ways_by_cost[0]))
        read = images_read(manifest, needed)
        return bool(read - first if step.runs_for is RunsFor.HARD else read & first)
    return True
