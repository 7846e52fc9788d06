"""Guards a deployed threshold: whether images are still like those it was chosen on."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from dyninfer.bundle.calibration import Calibration
from dyninfer.bundle.manifest import EASINESS
from dyninfer.errors import InputError, PolicyError
from dyninfer.foreign_errors import let_through
from dyninfer.monitoring.audit import Watched
from dyninfer.monitoring.expected import Reference
from dyninfer.monitoring.report import Alarm, MonitorReport, MonitorSettings
from dyninfer.monitoring.watch import Watch
from dyninfer.plain_text import counted
from dyninfer.results.answers import Answer
from dyninfer.results.tasks import Options
from dyninfer.routing.policy import Policy
from dyninfer.types import ImageArray

logger = logging.getLogger("dyninfer.monitor")


class Monitor:
    """Watches what a detector answers; reached as ``detector.monitor``, off until started.

    It compares the easiness of present images with the calibration's, and has the last exit
    audit a small random share of the images that left before it. Prediction never waits for an
    audit: where audits cannot keep up, they are dropped. They do share the processor with it, so
    they first wait up to two seconds for a moment when no call is under way.

    Calls of the detector are observed, calls of ``infer`` are not. The statistics presume images
    that are drawn independently: neighbouring frames of a video are not, so let ``window`` span
    many scenes, or feed the alarm levels with that in mind.
    """

    def __init__(self, watched: Watched, calibration: Callable[[], Calibration | None]) -> None:
        self._watched = watched
        self._calibration = calibration
        self._lock = threading.RLock()  # a signal's handler may predict, too
        self._watch: Watch | None = None
        self._latest: Watch | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    @property
    def running(self) -> bool:
        """Whether calls of the detector are observed."""
        return self._watch is not None

    def start(
        self,
        *,
        window: int = 500,
        audit_share: float = 0.02,
        psi_alarm: float | None = 0.2,
        ks_alarm: float | None = 0.01,
        hard_share_alarm: float | None = 0.1,
        disagreement_alarm: float | None = None,
        min_images: int = 100,
        audit_window: int = 200,
        on_alarm: Callable[[Alarm], object] | None = None,
        baseline: Calibration | npt.ArrayLike | None = None,
        seed: int = 0,
    ) -> None:
        """Begin to observe; when it observes already, begin anew.

        Args:
            window: number of latest images that statistics are of, taken ten times in a window.
            audit_share: chance that an image that left before the last exit is audited; each
                waits as a copy of the picture, eight at most. 0 for no audits and no thread.
            psi_alarm: population stability index that is an alarm; raised where chance alone would
                reach it. None for no such alarm, as for the next two.
            ks_alarm: chance of a false alarm of the test of Kolmogorov and Smirnov in a window.
                It finds small shifts, which need not matter, where the calibration is large.
            hard_share_alarm: how far the share of images that reach the last exit may be from
                what the policy does on the baseline.
            disagreement_alarm: expected loss of all images against the last exit above which is
                an alarm, in [0, 1]; it is raised when audits show it beyond chance. None for the
                risk that the calibration certifies, if the policy sends on what the certified
                threshold would, else 0.01 above the upper 95 % bound of what it measured. These
                hold for the postprocessing that the calibration used.
            min_images: fewest images in the window for an alarm of a distribution or share.
            audit_window: number of latest audits that disagreement is of.
            on_alarm: called with every :class:`dyninfer.Alarm`, in the thread of the call that was
                observed or of the audits; it is logged to ``dyninfer.monitor`` as well.
                While audits are on, what it refers to is kept until :meth:`stop`.
            baseline: a calibration, or easiness (N,) of images like those the threshold was
                chosen on, (routers, N) for more than two exits. None for the bundle's; where it
                has none, the first ``window`` images are what later ones are compared with.
            seed: of the draw of audits.

        Raises:
            PolicyError: the bundle has no router, is no detector, or has more than two exits and
                neither a calibration nor a baseline.
            InputError: an argument is outside its range, or the detector was closed.
        """
        self._watched.check_open()
        settings = MonitorSettings(
            window=window,
            audit_share=audit_share,
            psi_alarm=psi_alarm,
            ks_alarm=ks_alarm,
            hard_share_alarm=hard_share_alarm,
            disagreement_alarm=disagreement_alarm,
            min_images=min_images,
            audit_window=audit_window,
            seed=seed,
        )
        self._replace(Watch(self._watched, settings, self._choose_reference(baseline), on_alarm))

    def _choose_reference(self, given: Calibration | npt.ArrayLike | None) -> Reference | None:
        points = self._watched.points
        routers = len(points)
        if {point.signal for point in points} != {EASINESS}:
            remedy = "train one with dyninfer fit-router" if routers else "load such a bundle"
            raise PolicyError(
                f"{self._watched.name} cannot be monitored: expected a bundle of several exits "
                f"with routers, whose easiness is watched; {remedy}"
            )
        if given is not None and not isinstance(given, Calibration):
            return Reference.of_easiness(given, routers)
        calibration = self._calibration() if given is None else given
        if calibration is not None:
            if len(calibration.easiness) != routers:
                raise InputError(
                    f"the calibration is of {counted(len(calibration.easiness), 'router')}, "
                    f"expected {routers} as {self._watched.name} has; run dyninfer calibrate on "
                    "this bundle"
                )
            return Reference.of_calibration(calibration)
        if routers > 1:
            raise PolicyError(
                f"{self._watched.name} has {counted(routers + 1, 'exit')} and no calibration, so "
                "not every router's easiness is known; run dyninfer calibrate or pass a baseline"
            )
        return None

    def stop(self) -> None:
        """End observing, after the audit under way; audits that wait are dropped."""
        self._replace(None)

    def after_fork(self) -> None:
        """In a child process: off until it is started there, since its thread is the parent's."""
        watch, finalizer = self._watch, self._finalizer
        self._lock = threading.RLock()
        self._watch = self._latest = self._finalizer = None
        if finalizer:
            finalizer.detach()
        if watch and watch.auditor:
            watch.auditor.forget()

    def _replace(self, new: Watch | None) -> None:
        """Observe with another watch, or none, and end the one before."""
        finalizer = None
        if new and new.auditor:
            new.auditor.start()
            # a detector that is dropped without being closed takes its thread along
            finalizer = weakref.finalize(self, new.auditor.signal_stop)
        with self._lock:
            old, self._watch = self._watch, new
            old_finalizer, self._finalizer = self._finalizer, finalizer
            if new:
                self._latest = new
        if old_finalizer:
            old_finalizer.detach()
        if old and old.auditor:
            old.auditor.stop()  # without the lock: on_alarm may be in here, too

    def observe(
        self,
        images: Sequence[ImageArray],
        found: Sequence[Answer],
        policy: Policy,
        options: Options,
    ) -> None:
        """Take in what was answered to a batch; the detector calls this.

        Whatever fails in here is logged once and counted, never raised: a watch must not bring
        down what it watches.
        """
        watch = self._watch
        if watch is None:
            return
        try:
            watch.observe(images, found, policy, options)
        except Exception as error:
            let_through(error)
            with self._lock:
                watch.failures += 1
                first = watch.failures == 1
            if first:
                logger.exception("the monitor failed; prediction goes on, more are only counted")

    def finish_audits(self, timeout_s: float | None = None) -> bool:
        """Wait until no audit is pending; False where that took longer than ``timeout_s``."""
        watch = self._watch
        return watch is None or watch.auditor is None or watch.auditor.finish(timeout_s)

    def report(self) -> MonitorReport:
        """What was seen since the start; after a stop, up to that.

        Raises:
            InputError: the monitor was never started.
        """
        watch = self._latest
        if watch is None:
            raise InputError("the monitor was never started; call detector.monitor.start() first")
        return watch.report(running=watch is self._watch)
