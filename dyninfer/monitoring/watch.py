"""What a monitor holds between its start and its stop."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dyninfer.monitoring.alarms import (
    LOOKS_PER_WINDOW,
    AlarmBoard,
    EasinessWindow,
    LimitCheck,
    deliver,
    drift_checks,
    read_drift,
)
from dyninfer.monitoring.audit import AuditJob, Auditor, AuditRecord, Watched, summarise
from dyninfer.monitoring.expected import Outlook, Reference
from dyninfer.monitoring.report import Alarm, AuditReport, MonitorReport, MonitorSettings
from dyninfer.plain_text import counted
from dyninfer.results.answers import Answer
from dyninfer.results.tasks import Options
from dyninfer.routing.policy import Policy, count_ways, hardest_way
from dyninfer.types import ImageArray

logger = logging.getLogger("dyninfer.monitor")

AUDIT_LOOKS_PER_WINDOW = 20
_AUDIT_LEVEL = 0.01 / AUDIT_LOOKS_PER_WINDOW
_INTERVAL_LEVEL = 0.025
"""Of each bound of a 95 % interval."""


class Watch:
    """Observes images, looks at statistics now and then, and raises alarms.

    Any number of threads may call it; alarms are delivered after the lock was let go, in the
    thread that observed or in that of the audits.
    """

    def __init__(
        self,
        watched: Watched,
        settings: MonitorSettings,
        reference: Reference | None,
        on_alarm: Callable[[Alarm], object] | None,
    ) -> None:
        self.settings = settings
        self.failures = 0
        self._exits, self._hardest = count_ways(watched.points), hardest_way(watched.points)
        self._reference = reference
        self._on_alarm = on_alarm
        self._lock = threading.RLock()  # a signal's handler may predict, too
        self._generator = np.random.default_rng(settings.seed)
        self._window = EasinessWindow(settings.window)
        self._audits: deque[AuditRecord] = deque(maxlen=settings.audit_window)
        self._board = AlarmBoard()
        self._policy: Policy | None = None
        self._outlook: Outlook | None = None
        self._images = self._nan_images = self._since_look = self._since_audit_look = 0
        self.auditor = Auditor(watched, self.take_audit) if settings.audit_share else None

    def observe(
        self,
        images: Sequence[ImageArray],
        found: Sequence[Answer],
        policy: Policy,
        options: Options,
    ) -> None:
        """Take in what was answered to a batch, in order; audited images are copied."""
        alarms: list[Alarm] = []
        jobs: list[AuditJob] = []
        with self._lock:
            self._expect(policy)
            for image, detections in zip(images, found, strict=True):
                self._add(detections)
                if self._chooses(detections):
                    share = 1 - (self._window.hard_share or 0.0)
                    jobs.append(AuditJob(image, detections, options, share, self._outlook))
                alarms += self._look()
        for job in jobs:
            if self.auditor:
                self.auditor.offer(job)
        deliver(alarms, self._on_alarm)

    def _expect(self, policy: Policy) -> None:
        """Know what the policy does on the reference.

        With two exits easiness does not depend on it. With more, the easiness that is reported is
        that of the last router that saw the image, so it is only comparable under one policy.
        """
        if policy is self._policy or policy == self._policy:
            return
        if self._policy is not None and self._exits > 2:
            self._window.clear()
        self._policy = policy
        self._outlook = self._reference.under(policy) if self._reference else None

    def _add(self, found: Answer) -> None:
        self._images += 1
        self._since_look += 1
        if found.degraded and (self._exits > 2 or found.easiness is None):
            return  # not the easiness that the policy's route would have reported
        self._nan_images += found.easiness is None
        expected = self._outlook.hard_share if self._outlook else None
        hard = None if found.degraded else found.exit_index == self._hardest
        self._window.add(found.easiness, hard, expected)

    def _chooses(self, found: Answer) -> bool:
        """Draw whether an image that left early is audited; not one whose route was degraded."""
        if not self.auditor or found.degraded or found.exit_index == self._hardest:
            return False
        return bool(self._generator.random() < self.settings.audit_share)

    def _look(self) -> list[Alarm]:
        if self._reference is None:
            if self._window.full:
                self._become_reference()
            return []
        if self._outlook is None or self._since_look * LOOKS_PER_WINDOW < self.settings.window:
            return []
        self._since_look = 0
        checks = drift_checks(self._window, self._outlook, self.settings)
        return self._board.update(checks, self._images)

    def _become_reference(self) -> None:
        """The first window is what later ones are compared with; for two exits only."""
        count = len(self._window)
        source = f"the first {count} images, for want of a calibration"
        self._reference = Reference(source, self._window.easiness[None])
        logger.info("easiness is compared with that of %s", source)
        self._window.clear()
        self._since_look = 0
        assert self._policy is not None
        self._outlook = self._reference.under(self._policy)

    def take_audit(self, record: AuditRecord) -> None:
        """Called by the audits' thread."""
        with self._lock:
            self._audits.append(record)
            self._since_audit_look += 1
            if self._since_audit_look * AUDIT_LOOKS_PER_WINDOW < self.settings.audit_window:
                return
            self._since_audit_look = 0
            alarms = self._board.update(self._disagreement_checks(), self._images)
        deliver(alarms, self._on_alarm)

    def _disagreement_checks(self) -> list[LimitCheck]:
        summary = summarise(self._audits, _AUDIT_LEVEL, self.settings.disagreement_alarm)
        if summary is None or summary.risk_limit is None:
            return []
        assert summary.risk is not None  # there are audits
        assert summary.risk_interval is not None
        risk, low, limit = summary.risk, summary.risk_interval[0], summary.risk_limit
        message = (
            f"answers of earlier exits disagree with the last exit's more than expected: the risk "
            f"is {risk:.3f} by {counted(len(self._audits), 'audit')}, beyond chance above "
            f"{low:.3f}, limit {limit:.3f}; raise the threshold or calibrate again"
        )
        return [LimitCheck("disagreement", message, low, limit, low > limit, risk <= limit)]

    def report(self, *, running: bool) -> MonitorReport:
        """What is known now."""
        with self._lock:
            outlook, window = self._outlook, self._window
            reading = read_drift(window, outlook, self.settings.psi_alarm)
            return MonitorReport(
                running=running,
                baseline=self._source(),
                images=self._images,
                window_images=len(window),
                nan_images=self._nan_images,
                hard_share=window.hard_share,
                expected_hard_share=window.expected_hard_share,
                bin_edges=tuple(outlook.edges.tolist()) if outlook else None,
                expected_histogram=outlook.histogram if outlook else None,
                **(vars(reading) if reading else {}),
                audits=self._audit_report(),
                failures=self.failures,
                alarms_raised=self._board.raised,
                alarms=self._board.active,
            )

    def _audit_report(self) -> AuditReport:
        limit, outlook = self.settings.disagreement_alarm, self._outlook
        report = summarise(self._audits, _INTERVAL_LEVEL, limit) or AuditReport(
            expected_disagreement=outlook.easy_loss if outlook else None, risk_limit=limit
        )
        names = ("done", "dropped", "failed", "pending")
        counts: dict[str, Any] = {name: getattr(self.auditor, name, 0) for name in names}
        return replace(report, **counts)

    def _source(self) -> str:
        if self._reference:
            return self._reference.source
        return f"none yet: {len(self._window)} of the first {self.settings.window} images"
