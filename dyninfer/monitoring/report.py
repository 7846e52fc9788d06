"""What a monitor is told, and what it tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from dyninfer.errors import InputError
from dyninfer.types import as_float, is_whole, shown

AlarmKind = Literal["psi", "ks", "hard_share", "nan", "disagreement"]


@dataclass(frozen=True)
class MonitorSettings:
    """See :meth:`dyninfer.monitoring.monitor.Monitor.start`.

    Raises:
        InputError: a value is outside its range.
    """

    window: int = 500
    audit_share: float = 0.02
    psi_alarm: float | None = 0.2
    ks_alarm: float | None = 0.01
    hard_share_alarm: float | None = 0.1
    disagreement_alarm: float | None = None
    min_images: int = 100
    audit_window: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("window", 10), ("min_images", 1), ("audit_window", 1), ("seed", 0)):
            value: Any = getattr(self, name)
            if not is_whole(value, least):
                raise InputError(
                    f"{name} is {shown(value)}, expected a whole number from {least} up"
                )
        if self.min_images > self.window:
            raise InputError(
                f"min_images is {self.min_images}, expected at most the window of {self.window}; "
                "give both"
            )
        shares = ("audit_share", "ks_alarm", "hard_share_alarm", "disagreement_alarm")
        for name in (*shares, "psi_alarm"):
            value = getattr(self, name)
            if value is None and name != "audit_share":
                continue
            most = 1.0 if name in shares else float("inf")
            if not 0 <= as_float(value) <= most:
                span = "from 0 to 1" if name in shares else "from 0 up"
                raise InputError(f"{name} is {shown(value)}, expected a number {span}")


@dataclass(frozen=True)
class Alarm:
    """Something that no longer is as the threshold's choice presumed.

    Attributes:
        kind: ``psi`` and ``ks``: the distribution of easiness; ``hard_share``: the share of images
            that reach the last exit; ``nan``: routers that return NaN; ``disagreement``: the risk
            that audits measure.
        message: what was found, what was expected, what to do, in one line.
        value: what was measured.
        limit: what it should not have crossed.
        images: how many images the monitor had seen by then.
    """

    kind: AlarmKind
    message: str
    value: float
    limit: float
    images: int


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """How far answers of earlier exits are from the last exit's; None for what is not known.

    Attributes:
        disagreement: mean loss, 1 - F1 against the last exit, in [0, 1], of images that left early.
        disagreement_interval: the expectation is in there with 95 % confidence.
        expected_disagreement: the calibration's, of images that leave early under the policy.
        risk, risk_interval: the same over all images; those that ran to the last exit count 0.
        risk_limit: what the risk should not exceed.
        done, failed, pending: how many audits, since the start.
        dropped: images drawn that found the queue full, or were still waiting at the stop.
    """

    disagreement: float | None = None
    disagreement_interval: tuple[float, float] | None = None
    expected_disagreement: float | None = None
    risk: float | None = None
    risk_interval: tuple[float, float] | None = None
    risk_limit: float | None = None
    done: int = 0
    dropped: int = 0
    failed: int = 0
    pending: int = 0


@dataclass(frozen=True, kw_only=True)
class MonitorReport:
    """What a monitor has seen; None where something is not known, or not yet.

    Attributes:
        running: whether it still observes.
        baseline: what is expected comes from there, in words.
        images: how many were seen since the start.
        window_images: how many of them the shares and the histogram are of, the latest.
        nan_images: how many had an easiness of NaN, since the start.
        hard_share, expected_hard_share: share that reached the last exit, and what the policy
            does on the baseline; images that were degraded do not count.
        bin_edges: (9,) inner edges of the bins of easiness.
        histogram, expected_histogram: (10,) share of the images in each bin.
        psi, psi_limit: population stability index of the two, and what it should not exceed.
        ks_statistic, ks_p_value: of the two-sample test of Kolmogorov and Smirnov.
        audits: what the last exit says of images that left earlier.
        failures: how many calls could not be observed; the first was logged.
        alarms_raised: how many, since the start.
        alarms: those that have not recovered.
    """

    running: bool
    baseline: str
    images: int
    window_images: int
    nan_images: int
    hard_share: float | None
    expected_hard_share: float | None
    bin_edges: tuple[float, ...] | None
    histogram: tuple[float, ...] | None = None
    expected_histogram: tuple[float, ...] | None
    psi: float | None = None
    psi_limit: float | None = None
    ks_statistic: float | None = None
    ks_p_value: float | None = None
    audits: AuditReport
    failures: int
    alarms_raised: int
    alarms: tuple[Alarm, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return asdict(self)
