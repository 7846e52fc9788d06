"""How the machine fared while something was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Range:
    """Smallest, median and largest of what was sampled."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class MachineLog:
    """Samples taken while a benchmark ran.

    Attributes:
        seconds: from the first to the last sample.
        samples: how many.
        readings: what was read, with its unit in the name (``cpu_mhz``, ``gpu_sm_mhz``,
            ``gpu_temperature_c``, ``gpu_watts``, ``other_load_cores``), -> its range.
        throttled: why the processor or GPU was slowed down, as the driver says; empty if it was
            not or if that cannot be told.
        missing: reading -> why it could not be taken.
    """

    seconds: float
    samples: int
    readings: Mapping[str, Range]
    throttled: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
