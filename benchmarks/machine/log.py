"""How the machine fared while something was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

_PARTS = 4
_FEWEST_FOR_DRIFT = 8


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
            ``sampler_cpu_ms`` is the processor time that taking a sample cost.
        throttled: why the processor or GPU was slowed down, as the driver says; empty if it was
            not or if that cannot be told.
        missing: reading -> why it could not be taken.
        drift: reading -> median of the last quarter of the samples minus that of the first; empty
            with fewer than eight.
    """

    seconds: float
    samples: int
    readings: Mapping[str, Range]
    throttled: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)


def ranges_of(samples: Sequence[Mapping[str, float]]) -> dict[str, Range]:
    """The range of every reading over the samples that have it."""
    return {
        name: Range(min(values), float(median(values)), max(values))
        for name, values in _columns(samples).items()
    }


def drift_of(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How far every reading moved from the first to the last quarter of its samples."""
    return {
        name: float(
            median(values[-(len(values) // _PARTS) :]) - median(values[: len(values) // _PARTS])
        )
        for name, values in _columns(samples).items()
        if len(values) >= _FEWEST_FOR_DRIFT
    }


def _columns(samples: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.items():
            columns.setdefault(name, []).append(value)
    return columns
