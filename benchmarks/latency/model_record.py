"""What a record holds of the latency model. All times are in milliseconds, shares in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from dyninfer.benchmarks.latency.scenario_record import Scenario

MOST_ERROR = 0.2
"""Mean error up to which the model may say more than what was measured."""


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

    A call that runs it for n rows costs ``fixed_ms + per_image_ms * n``, and nothing for none. A
    step that runs for several kinds of rows has several entries of one name. ``fixed_ms`` is
    negative where further rows cost more than the first, as when a batch outgrows a cache; the
    cost of a call never is.
    """

    name: str
    fixed_ms: float
    per_image_ms: float
    runs_for: RunsFor = RunsFor.ALL


@dataclass(frozen=True)
class ModelCheck:
    """Measured against predicted mean milliseconds per image; ``held_out`` was not fitted on."""

    scenario: Scenario
    measured_ms: float
    predicted_ms: float
    held_out: bool

    @property
    def error(self) -> float:
        """Relative error of the prediction, signed."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class LatencyModel:
    """Mean milliseconds per image as a function of hard fraction and batch.

    Attributes:
        steps: their costs, in the order of the spans.
        checks: every closed-loop scenario with one caller.
        mean_error: mean absolute relative error over the checks that were held out, or over all
            where none was.
        mean_noise: mean relative half-width of the measured intervals of the same checks: with an
            error below it, the model is as near to what was measured as can be told.
        break_even: hard fraction up to which the route beats the last way alone, by
            the baseline ``always-last-exit``; None where that was not measured.
        break_even_by_batch: an estimate of it for every batch size, by the steps: what the last
            way needs takes an all-hard call without the stages it does not read. Empty where
            there is one way.
    """

    steps: tuple[StepCost, ...]
    checks: tuple[ModelCheck, ...]
    mean_error: float
    break_even: float | None = None
    break_even_by_batch: Mapping[int, float] = field(default_factory=dict)
    mean_noise: float | None = None

    @property
    def is_tested(self) -> bool:
        """Whether it can be trusted beyond what it was fitted on: off by little where held out."""
        return any(check.held_out for check in self.checks) and self.mean_error <= MOST_ERROR
