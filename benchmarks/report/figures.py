"""Numbers as text: as many digits as they deserve, with their units."""

from __future__ import annotations

import math

from dyninfer.benchmarks.latency.scenario_record import Estimate
from dyninfer.evaluation.interleaved import RatioEstimate

ABSENT = "\N{EN DASH}"
_MIB_PER_GIB = 1024


def decimals_of(value: float, digits: int = 3) -> int:
    """Decimals with which ``value`` has ``digits`` significant ones; none from 10^digits up."""
    if value == 0 or not math.isfinite(value):
        return 0
    exponent = int(f"{abs(value):.{digits - 1}e}".split("e")[1])
    return max(0, digits - 1 - exponent)


def number(value: float | None, digits: int = 3) -> str:
    """For example ``12.3``, ``0.0123``, ``1,235``; a dash for None."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:,.{decimals_of(value, digits)}f}"


def ms(value: float | None) -> str:
    """Milliseconds with their unit."""
    return ABSENT if value is None else f"{number(value)} ms"


def percent(share: float | None, decimals: int = 0) -> str:
    """A share in [0, 1] in percent; what is not quite none or all never reads as such."""
    if share is None:
        return ABSENT
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    text, least = f"{100 * share:.{decimals}f}", 10**-decimals
    if float(text) == 0:
        return f"<{least:.{decimals}f} %"
    if float(text) == 100:
        return f">{100 - least:.{decimals}f} %"
    return f"{text} %"


def interval(estimate: Estimate | RatioEstimate | None) -> str:
    """``low to high``, with the decimals that its middle deserves; empty where there is none."""
    if estimate is None:
        return ABSENT
    if isinstance(estimate, Estimate) and not estimate.has_interval:
        return ""
    middle = estimate.value if isinstance(estimate, Estimate) else estimate.median
    decimals = decimals_of(middle)
    return f"{estimate.low:,.{decimals}f} to {estimate.high:,.{decimals}f}"


def memory(mib: float) -> str:
    """Mebibytes, or gibibytes from one up."""
    return f"{number(mib / _MIB_PER_GIB)} GiB" if mib >= _MIB_PER_GIB else f"{number(mib)} MiB"


def points(precision: float | None) -> str:
    """An average precision in [0, 1] as it is told: 57.9; a dash for None."""
    return ABSENT if precision is None else f"{100 * precision:.1f}"


def readable(count: float) -> str:
    """A large number with a unit prefix: 16672736 -> 16.7 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{f'{count / limit:#.3g}'.rstrip('.')} {unit}"
    return f"{count:.0f}"
