"""The file that a measurement of the limits leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dyninfer.benchmarks.lab.limits.result import LimitResult
from dyninfer.benchmarks.lab.run_record import RunRecord
from dyninfer.benchmarks.machine import MachineLog
from dyninfer.bundle.validation import first_problem
from dyninfer.errors import InputError


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
