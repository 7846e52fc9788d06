"""Numbers as text: as many digits as they deserve, with their units."""

from __future__ import annotations

import math

from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario, ScenarioResult
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


def with_interval(estimate: Estimate | None) -> str:
    """``value (low to high)``; the value alone where there is no interval."""
    if estimate is None:
        return ABSENT
    around = interval(estimate)
    return number(estimate.value) + (f" ({around})" if around else "")


def memory(mib: float) -> str:
    """Mebibytes, or gibibytes from one up."""
    return f"{number(mib / _MIB_PER_GIB)} GiB" if mib >= _MIB_PER_GIB else f"{number(mib)} MiB"


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def hard_words(hard_fraction: float | None, achieved: float | None = None) -> str:
    """What share of a scenario's images was sent to the last exit; ``achieved`` if another."""
    if hard_fraction is None:
        return "as routed"
    if achieved is not None:
        return f"{percent(achieved, 1)} hard, not {percent(hard_fraction)}"
    return f"{percent(hard_fraction)} hard"


def closed_words(scenario: Scenario, achieved: float | None = None) -> str:
    """A scenario in words, leaving out the rate: the same for both ways to arrive."""
    parts = [
        f"batch {scenario.batch}",
        scenario.way or hard_words(scenario.hard_fraction, achieved),
    ]
    if scenario.concurrency > 1:
        parts.append(f"{scenario.concurrency} callers")
    if scenario.decode:
        parts.append("with decoding")
    return ", ".join(parts)


def scenario_words(scenario: Scenario, achieved: float | None = None) -> str:
    """A scenario in words."""
    rate = "" if scenario.rate_per_s is None else f", {scenario.rate_per_s:g} calls/s"
    return closed_words(scenario, achieved) + rate


def result_words(result: ScenarioResult) -> str:
    """A scenario that was run, in words; with the share that it got where it is another."""
    return scenario_words(result.scenario, result.achieved_share)
