"""What was measured of the speed limits, and the file that it is left in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dyninfer.benchmarks.lab.run_record import RunRecord
from dyninfer.benchmarks.machine import MachineLog
from dyninfer.bundle.documents import first_problem
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import RatioEstimate


@dataclass(frozen=True)
class LimitResult:
    """A figure that the project wants to stay below.

    Attributes:
        key: short name of the row, for example ``preprocessing``.
        what: what is compared with what, in words.
        limit: the figure is to be at most this.
        measured: median over rounds with its 95 % interval.
        times_ms: every time by contender, in the order of the rounds.
        note: how it was measured; where the limit is missed, why.
        unit: of ``limit`` and ``measured``: ``ratio`` or ``microseconds``.
    """

    key: str
    what: str
    limit: float
    measured: RatioEstimate
    times_ms: Mapping[str, Sequence[float]]
    note: str = ""
    unit: str = "ratio"

    @property
    def holds(self) -> bool:
        """Whether the median is within the limit."""
        return self.measured.median <= self.limit


@dataclass(frozen=True)
class LimitsRecord(RunRecord):
    """What was measured of which limits.

    Attributes:
        log: how the machine fared meanwhile.
        model: of the limits that need a full-size one.
        results: one for every row.
        failures: group that could not be measured -> why.
    """

    log: MachineLog
    model: str
    results: tuple[LimitResult, ...]
    failures: Mapping[str, str] = field(default_factory=dict)


def read_limits(path: Path) -> LimitsRecord:
    """Read a record.

    Raises:
        InputError: the file is missing, or is not such a record.
    """
    try:
        return TypeAdapter(LimitsRecord).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(
            f"{path} is not a record of the limits: {first_problem(error)}; expected what "
            "python -m dyninfer.benchmarks.lab.limits --output wrote"
        ) from None
