"""What a record holds of each scenario: how it was run, its latencies, spans and exits.

All times are in milliseconds, all shares in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat, PositiveFloat, PositiveInt

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
FILLED = Field(min_length=1)
"""A sequence that is not empty."""
MOST_OFF = 0.1
"""A hard fraction that is off by no more than this share of what was asked for goes by its name."""


class SpanKind(str, Enum):
    """What is done in a span; a report gives each a colour."""

    DECODE = "decode"
    PREPARE = "prepare"
    COPY = "copy"
    GATHER = "gather"
    ENGINE = "engine"
    READ_BACK = "read-back"
    POSTPROCESS = "postprocess"
    OTHER = "other"


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bootstrap interval, drawn over rounds."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat

    @property
    def has_interval(self) -> bool:
        """False where all calls fell in one round, which tells nothing of others."""
        return self.low < self.high


def _above_zero(estimate: Estimate) -> Estimate:
    if not 0 < estimate.low <= estimate.value <= estimate.high:
        raise ValueError("an interval above 0 that holds its value is expected")
    return estimate


AboveZero = Annotated[Estimate, AfterValidator(_above_zero)]


@dataclass(frozen=True)
class Distribution:
    """Where times lie. A percentile that too few times support is None."""

    count: PositiveInt
    mean_ms: AboveZero
    min_ms: FiniteFloat
    max_ms: FiniteFloat
    p50_ms: AboveZero
    p90_ms: AboveZero | None
    p99_ms: AboveZero | None
    p999_ms: AboveZero | None
    p95_ms: AboveZero | None = None  # older records have none


@dataclass(frozen=True)
class Scenario:
    """One way to use a detector.

    Attributes:
        batch: images in a call.
        hard_fraction: share of the images that is sent the hardest way and not the easiest,
            whatever the router says; None where ``way`` is given, or the detector's own policy
            decides.
        concurrency: callers at once, each in a thread of its own.
        rate_per_s: calls a second that arrive on schedule, over all callers; None starts each
            call when the one before has ended.
        decode: whether pictures are decoded from their files within the call.
        way: name of the one that all images are sent. The first and the last of a cascade go by
            their hard fraction, 0 and 1.
    """

    batch: PositiveInt = 1
    hard_fraction: Share | None = None
    concurrency: PositiveInt = 1
    rate_per_s: PositiveFloat | None = None
    decode: bool = False
    way: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is one image at a time, without anything to wait for."""
        alone = self.batch == self.concurrency == 1
        return alone and self.rate_per_s is None and not self.decode

    @property
    def as_routed(self) -> bool:
        """Whether the detector's own policy decides."""
        return self.hard_fraction is None and self.way is None

    @property
    def one_way(self) -> bool:
        """Whether all images are sent the same way."""
        return self.way is not None or self.hard_fraction in (0.0, 1.0)

    @property
    def name(self) -> str:
        """The scenario in words; the same for the same scenario in every record."""
        return self.named()

    def named(self, achieved: float | None = None) -> str:
        """The name with the share of hard images that it got, where that is another."""
        hard = self.way or "as routed"
        if self.hard_fraction is not None:
            hard = f"{100 * self.hard_fraction:.6g} % hard"
        if achieved is not None:
            hard = f"{100 * achieved:.2g} % hard, not {hard.removesuffix(' hard')}"
        parts = [f"batch {self.batch}", hard]
        if self.concurrency > 1:
            parts.append(f"{self.concurrency} callers")
        if self.rate_per_s is not None:
            parts.append(f"{self.rate_per_s:g} calls/s")
        if self.decode:
            parts.append("with decoding")
        return ", ".join(parts)


@dataclass(frozen=True)
class WarmUp:
    """What was run before times counted; ``stable`` is False where the limit ended it."""

    calls: int
    seconds: float
    stable: bool


@dataclass(frozen=True)
class SpanTime:
    """One named step.

    Attributes:
        name: ``decode``, ``prepare``, a stage's name, ``gather``, ``read-back``, ...
        kind: what sort of work it is.
        ms_per_image: mean over all images of the scenario; those without the step count as 0, so
            that in a closed loop with one caller the spans add up to the time of a call for each
            of its images. Several callers overlap and wait for each other, and on a schedule there
            is time between calls: there the spans tell of the calls, and not of ``ms_per_image``.
        ms_when_run: mean over the images that went through it.
        share: of the images that went through it.
    """

    name: str
    kind: SpanKind
    ms_per_image: Estimate
    ms_when_run: float
    share: float


@dataclass(frozen=True)
class ExitTime:
    """Calls all of whose images took one way; ``share`` is that of all images that took it."""

    exit_index: int
    share: float
    latency: Distribution | None


@dataclass(frozen=True)
class ScenarioResult:
    """What was measured of one scenario.

    Attributes:
        hard_fraction: share of the images that did take the hardest way.
        latency: of a call, all its images together. At a fixed rate it counts from the moment
            the call was due, so that waiting for the call before is in it.
        ms_per_image: wall-clock time over images, all callers together.
        images_per_s: its inverse.
        late_share: at a fixed rate, share of the calls that could not start when they were due.
        joules_per_image: above idle, where an energy meter is at hand.
        rounds_ms: every call's latency, round by round.
    """

    scenario: Scenario
    hard_fraction: float
    warm_up: WarmUp
    latency: Distribution
    ms_per_image: AboveZero
    images_per_s: AboveZero
    spans: tuple[SpanTime, ...]
    exits: tuple[ExitTime, ...]
    rounds_ms: Annotated[tuple[Annotated[tuple[Positive, ...], FILLED], ...], FILLED]
    late_share: float | None = None
    joules_per_image: float | None = None

    @property
    def name(self) -> str:
        """The scenario in words, with the share of hard images that it did get."""
        return self.scenario.named(self.achieved_share)

    @property
    def achieved_share(self) -> float | None:
        """The share of hard images that it got, where that is not the one that was asked for.

        Off by more than a tenth of it, as where the calls are too few for a period; else None.
        """
        asked = self.scenario.hard_fraction
        if asked is None or abs(self.hard_fraction - asked) <= MOST_OFF * asked:
            return None
        return self.hard_fraction
