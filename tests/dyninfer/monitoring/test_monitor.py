from __future__ import annotations

import gc
import inspect
import json
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, InputError, PolicyError, Postprocess, Threshold
from dyninfer.bundle.calibration import Calibration
from dyninfer.monitoring.audit import AuditRecord
from dyninfer.monitoring.drift import mean_bounds
from dyninfer.monitoring.expected import Reference
from dyninfer.monitoring.monitor import Monitor
from dyninfer.monitoring.report import Alarm, MonitorSettings
from dyninfer.monitoring.watch import Watch
from dyninfer.routing.policy import Policy
from tests import support
from tests.dyninfer.monitoring import watching
from tests.dyninfer.monitoring.watching import audit_threads

LONG_S = 60.0  # a wait that ends earlier unless something is wrong
THRESHOLD = 0.4


@dataclass
class Deployed:
    """A detector with a monitor of its own, and the alarms it raised."""

    detector: dyninfer.Detector
    calibration: Calibration | None = None
    policy: Policy = Threshold(THRESHOLD)  # noqa: RUF009  # it is frozen
    options: Postprocess = Postprocess()  # noqa: RUF009  # so is this
    alarms: list[Alarm] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watched = watching.Gated(self.detector.session)
        self.monitor = Monitor(self.watched, lambda: self.calibration)

    def send(self, images: Sequence[np.ndarray]) -> list[dyninfer.Detections]:
        found = self.detector(images, policy=self.policy, options=self.options)
        self.monitor.observe(images, found, self.policy, self.options)
        return found

    def send_easiness(self, easiness, batch: int = 25, **others) -> None:
        images = watching.pictures(easiness, **others)
        for start in range(0, len(images), batch):
            self.send(images[start : start + batch])

    def start(self, **arguments) -> None:
        self.alarms.clear()
        self.monitor.start(
            **{"window": 200, "audit_share": 0, "on_alarm": self.alarms.append} | arguments
        )

    @property
    def kinds(self) -> list[str]:
        return [alarm.kind for alarm in self.alarms]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    path = watching.write_audited(tmp_path / "audited.dyn")
    easiness = usual(1000, seed=99)
    with dyninfer.load(path) as detector:
        made = Deployed(detector, watching.calibration_of(easiness))
        yield made
        made.monitor.stop()
    assert audit_threads() == []


def usual(count: int, seed: int = 0) -> np.ndarray:
    """Easiness as on the calibration's images: about 35 % below the threshold."""
    return watching.quantised(np.random.default_rng(seed).beta(2, 2, count))


def unusual(count: int, seed: int = 0) -> np.ndarray:
    """Easiness of harder images: about 65 % below the threshold."""
    return watching.quantised(np.random.default_rng(seed).beta(1.5, 3, count))


def test_a_monitor_that_is_off_sees_nothing_and_has_no_report(deployed) -> None:
    deployed.send_easiness([0.2, 0.8])
    assert not deployed.monitor.running
    assert deployed.monitor.finish_audits(0)
    deployed.monitor.stop()
    with support.refuses(InputError, "never started", "start()"):
        deployed.monitor.report()


def test_no_images_and_one_image(deployed) -> None:
    deployed.start()
    deployed.send([])
    empty = deployed.monitor.report()
    assert (empty.running, empty.images, empty.window_images) == (True, 0, 0)
    assert (empty.hard_share, empty.psi, empty.histogram, empty.alarms) == (None, None, None, ())
    assert empty.baseline == "calibration on 1,000 images"
    deployed.send_easiness([0.2])
    one = deployed.monitor.report()
    assert (one.images, one.hard_share) == (1, 1.0)
    assert sum(one.histogram) == 1
    assert one.expected_hard_share == pytest.approx(np.mean(usual(1000, seed=99) < THRESHOLD))
    assert deployed.alarms == []


def test_a_stream_like_the_calibration_raises_nothing(deployed) -> None:
    deployed.start()
    deployed.send_easiness(usual(1500))
    report = deployed.monitor.report()
    assert (report.images, report.window_images) == (1500, 200)
    assert report.psi < report.psi_limit == 0.2
    assert report.ks_p_value > 0.001
    assert report.hard_share == pytest.approx(report.expected_hard_share, abs=0.1)
    np.testing.assert_allclose(report.histogram, report.expected_histogram, atol=0.1)
    assert (report.alarms_raised, deployed.alarms) == (0, [])


def test_drift_is_raised_once_recovers_and_can_be_raised_again(deployed, caplog) -> None:
    deployed.start()
    deployed.send_easiness(usual(400, seed=1))
    assert deployed.kinds == []
    with caplog.at_level(logging.WARNING, "dyninfer.monitor"):
        deployed.send_easiness(unusual(600, seed=2))
    assert sorted(deployed.kinds) == ["hard_share", "ks", "psi"]
    assert [r.message for r in caplog.records] == [alarm.message for alarm in deployed.alarms]
    assert all(400 < alarm.images <= 700 for alarm in deployed.alarms)
    active = deployed.monitor.report().alarms
    assert sorted(alarm.kind for alarm in active) == ["hard_share", "ks", "psi"]
    deployed.send_easiness(usual(600, seed=3))
    assert deployed.monitor.report().alarms == ()
    assert len(deployed.alarms) == 3
    deployed.send_easiness(unusual(600, seed=4))
    assert sorted(deployed.kinds[3:]) == ["hard_share", "ks", "psi"]
    assert deployed.monitor.report().alarms_raised == 6


def test_an_alarm_says_what_was_found_what_was_expected_and_what_to_do(deployed) -> None:
    deployed.start()
    deployed.send_easiness([0.1] * 200)
    for alarm in deployed.alarms:
        assert "\n" not in alarm.message
        assert "calibrate" in alarm.message
    psi = next(alarm for alarm in deployed.alarms if alarm.kind == "psi")
    assert psi.limit < psi.value
    assert f"{psi.value:.3f}" in psi.message


def test_another_policy_is_another_expectation_and_no_drift(deployed) -> None:
    deployed.start()
    for policy in (Threshold(0.2), Threshold(0.8), AlwaysEasy(), AlwaysHard()):
        deployed.policy = policy
        deployed.send_easiness(usual(300, seed=7))
    report = deployed.monitor.report()
    assert (report.hard_share, report.expected_hard_share) == (1.0, 1.0)
    assert deployed.alarms == []
    deployed.start()
    for policy, count in ((Threshold(0.2), 25), (Threshold(0.8), 50)):  # easiness stays as it is
        deployed.policy = policy
        deployed.send_easiness(usual(25))
        assert deployed.monitor.report().window_images == count


def test_nan_is_counted_and_raised_at_once(deployed) -> None:
    deployed.start()
    easiness = usual(60)
    deployed.send_easiness(easiness[:20])
    image, nan = np.zeros((8, 8, 3), np.uint8), watching.answer(None, 1)
    for _ in easiness[20:]:
        deployed.monitor.observe([image], [nan], deployed.policy, Postprocess())
    assert deployed.kinds == ["nan"]
    report = deployed.monitor.report()
    assert (report.nan_images, report.failures) == (40, 0)
    assert sum(report.histogram) == pytest.approx(1)
    assert "NaN" in deployed.alarms[0].message


def test_a_degraded_route_is_not_the_routers_doing(deployed) -> None:
    deployed.start(audit_share=1.0)
    image = np.zeros((8, 8, 3), np.uint8)
    degraded = [
        watching.answer(0.1, 0, degraded=True),
        watching.answer(0.9, 0, degraded=True),
        watching.answer(None, 0, degraded=True),
    ]
    for _ in range(100):
        deployed.monitor.observe([image] * 3, degraded, deployed.policy, Postprocess())
    report = deployed.monitor.report()
    assert (report.images, report.window_images) == (300, 200)
    assert (report.hard_share, report.expected_hard_share, report.nan_images) == (None, None, 0)
    assert report.audits.done == report.audits.pending == report.audits.dropped == 0
    assert "hard_share" not in deployed.kinds
    assert "nan" not in deployed.kinds


def test_without_a_calibration_the_first_window_is_the_baseline(deployed, caplog) -> None:
    deployed.calibration = None
    with caplog.at_level(logging.INFO, "dyninfer.monitor"):
        deployed.start()
        deployed.send_easiness(usual(150))
        assert deployed.monitor.report().baseline == "none yet: 150 of the first 200 images"
        assert deployed.monitor.report().expected_hard_share is None
        deployed.send_easiness(usual(50, seed=1))
        report = deployed.monitor.report()
        assert "first 200 images" in report.baseline
        assert "first 200 images" in caplog.text
    assert (report.images, report.window_images) == (200, 0)
    deployed.send_easiness(usual(400, seed=2))
    assert deployed.kinds == []
    deployed.send_easiness(unusual(400, seed=3))
    assert sorted(deployed.kinds) == ["hard_share", "ks", "psi"]


def test_a_baseline_that_is_given_comes_before_the_bundles(deployed) -> None:
    deployed.start(baseline=unusual(500, seed=5))
    assert "500 images" in deployed.monitor.report().baseline
    deployed.send_easiness(unusual(400))
    assert deployed.kinds == []
    deployed.start(baseline=watching.calibration_of(unusual(300, seed=5)))
    assert deployed.monitor.report().baseline == "calibration on 300 images"
    deployed.send_easiness(usual(400))
    assert "psi" in deployed.kinds


def test_a_constant_easiness_is_no_drift_from_itself(deployed) -> None:
    deployed.calibration = watching.calibration_of(watching.quantised([0.5] * 100))
    deployed.start()
    deployed.send_easiness([0.5] * 400)
    assert deployed.kinds == []
    deployed.send_easiness([0.35] * 400)
    assert sorted(deployed.kinds) == ["hard_share", "ks", "psi"]


def test_a_cascade_of_three_exits_is_compared_with_what_its_routers_would_report(
    three_exits,
) -> None:
    generator = np.random.default_rng(0)
    easiness = watching.quantised(generator.random((2, 800)))
    deployed = Deployed(three_exits, watching.calibration_of(easiness))

    def send(values: np.ndarray) -> None:
        images = np.zeros((values.shape[1], 8, 8, 3), np.uint8)
        images[..., 2], images[..., 1] = (values * 255).round()[..., None, None]
        for start in range(0, len(images), 50):
            deployed.send(list(images[start : start + 50]))

    deployed.start()
    send(generator.random((2, 600)))
    report = deployed.monitor.report()
    assert deployed.kinds == []
    assert report.expected_hard_share == pytest.approx((easiness < THRESHOLD).all(axis=0).mean())
    deployed.policy = Threshold((0.8, 0.2))
    send(generator.random((2, 50)))
    assert deployed.monitor.report().window_images == 50
    send(generator.random((2, 600)))
    assert deployed.kinds == []
    send(generator.random((2, 600)) ** np.array([[1], [3]]))
    assert "psi" in deployed.kinds
    deployed.policy = Threshold((0.8, 0.2))  # another that is the same
    send(generator.random((2, 50)))
    assert deployed.monitor.report().window_images == 200
    deployed.start()
    degraded = [watching.answer(0.1, 0, degraded=True)]
    deployed.monitor.observe(watching.pictures([0.1]), degraded, deployed.policy, deployed.options)
    assert deployed.monitor.report().window_images == 0  # by which router, is not known
    bare = Deployed(three_exits)
    with support.refuses(PolicyError, "3 exits", "dyninfer calibrate"):
        bare.start()
    bare.start(baseline=easiness)
    with support.refuses(InputError, "1 router, expected 2"):
        deployed.start(baseline=watching.calibration_of([0.1, 0.2]))


def test_a_calibration_of_three_exits_is_not_of_two(deployed) -> None:
    with support.refuses(InputError, "is of 2 routers, expected 1 as audited has"):
        deployed.start(baseline=watching.calibration_of(np.full((2, 5), 0.5)))


@pytest.mark.parametrize(
    ("write", "remedy"),
    [
        (support.write_static, "several exits"),
        (support.write_select_detectors, "with routers, whose easiness is watched"),
        (None, "dyninfer fit-router"),
    ],
)
def test_what_has_no_router_cannot_be_watched(tmp_path, write, remedy) -> None:
    path = tmp_path / "plain.dyn"
    bundle = write(path) if write else support.write_two_exits(path, router=False)
    with dyninfer.load(bundle) as detector:
        with support.refuses(PolicyError, "plain", "router", remedy):
            Deployed(detector).start()
        assert audit_threads() == []


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("window", 9), ("window", 50.0), ("min_images", 0), ("min_images", 201),
        ("audit_share", -0.1), ("audit_share", 1.5), ("audit_share", None),
        ("audit_share", float("nan")), ("psi_alarm", -1), ("psi_alarm", "much"),
        ("ks_alarm", 2), ("hard_share_alarm", -0.1), ("disagreement_alarm", 1.1),
        ("audit_window", 0), ("seed", -1), ("seed", 0.5), ("baseline", [[0.1], [0.2]]),
    ],
)  # fmt: skip
def test_arguments_outside_their_range_are_refused(deployed, argument, value) -> None:
    with support.refuses(InputError, argument, "expected"):
        deployed.start(**{argument: value})
    assert not deployed.monitor.running


def test_a_report_becomes_json(deployed) -> None:
    deployed.start(audit_share=1.0)
    deployed.send_easiness([0.1] * 150 + [0.9] * 5, batch=1)
    assert deployed.monitor.finish_audits(LONG_S)
    payload = json.loads(json.dumps(deployed.monitor.report().to_dict()))
    assert payload["images"] == 155
    assert {alarm["kind"] for alarm in payload["alarms"]} == set(deployed.kinds)
    assert payload["audits"]["done"] + payload["audits"]["dropped"] == 5


# Audits


def audited_by(deployed: Deployed, seed: int, count: int = 400) -> list[bytes]:
    """Which of ``count`` pictures are audited, in order."""
    gate = deployed.watched.gate()
    gate.open.set()
    deployed.start(audit_share=0.3, seed=seed)
    for index in range(count):
        image = watching.picture(0.3 if index % 4 == 0 else 0.7)
        image[0, 0, 0], image[0, 1, 0] = divmod(index, 256)
        deployed.send([image])
        assert deployed.monitor.finish_audits(LONG_S)
    deployed.monitor.stop()
    return [image.tobytes() for image in gate.audited]


def test_audits_are_of_easy_images_by_chance_and_the_seed_decides(deployed) -> None:
    first, again = (audited_by(deployed, seed=3) for _ in range(2))
    assert first == again
    assert 60 <= len(first) <= 120  # 30 % of 300 easy ones
    assert all(np.frombuffer(raw, np.uint8).reshape(8, 8, 3)[4, 4, 2] > 100 for raw in first)
    assert audited_by(deployed, seed=4) != first


def test_answers_do_not_wait_for_audits_and_a_full_queue_drops(deployed) -> None:
    deployed.start()
    plain = deployed.send(watching.pictures([0.9] * 30))
    gate = deployed.watched.gate()
    deployed.start(audit_share=1.0)
    # these return although no audit can end
    found = [deployed.send([image])[0] for image in watching.pictures([0.9] * 30)]
    for one, other in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
        assert one.exit_index == other.exit_index == 0
    assert gate.entered.wait(LONG_S)
    report = deployed.monitor.report()
    assert report.images == 30
    assert report.audits.done == 0
    assert report.audits.dropped + report.audits.pending == 30
    assert 21 <= report.audits.dropped <= 22  # eight wait, and one may have begun
    assert not deployed.monitor.finish_audits(0)
    gate.open.set()
    assert deployed.monitor.finish_audits(LONG_S)
    assert deployed.monitor.report().audits.done == 30 - report.audits.dropped


def test_an_audited_picture_is_a_copy(deployed) -> None:
    gate = deployed.watched.gate()
    deployed.start(audit_share=1.0)
    frame = watching.picture(0.9)
    before = frame.copy()
    deployed.send([frame])
    frame[:] = 255
    gate.open.set()
    assert deployed.monitor.finish_audits(LONG_S)
    np.testing.assert_array_equal(gate.audited[0], before)
    assert deployed.monitor.report().audits.disagreement == 0


def send_audited(deployed: Deployed, count: int, disagreeing: float, seed: int = 0) -> None:
    """Images of which the given share would be answered otherwise at the last exit."""
    generator = np.random.default_rng(seed)
    easiness = usual(count, seed)
    disagrees = generator.random(count) < disagreeing
    for image in watching.pictures(easiness, disagrees):
        deployed.send([image])
        assert deployed.monitor.finish_audits(LONG_S)


def test_the_audits_measure_what_the_calibration_would_have(deployed) -> None:
    losses = (np.random.default_rng(1).random(1000) < 0.1).astype(float)
    deployed.calibration = watching.calibration_of(usual(1000, seed=99), losses)
    deployed.start(audit_share=1.0)
    send_audited(deployed, 300, 0.1)
    audits = deployed.monitor.report().audits
    easy = usual(1000, seed=99) >= THRESHOLD
    assert audits.done == sum(usual(300) >= THRESHOLD)
    assert (audits.dropped, audits.failed, audits.pending) == (0, 0, 0)
    assert audits.expected_disagreement == pytest.approx(losses[easy].mean())
    low, high = audits.disagreement_interval
    assert low < audits.disagreement < high
    assert low < 0.1 < high
    assert audits.risk == pytest.approx(audits.disagreement * easy.mean(), rel=0.15)
    assert audits.risk_interval[0] < audits.risk < audits.risk_limit
    assert deployed.kinds == []


def test_disagreement_is_raised_once_recovers_and_can_be_raised_again(deployed) -> None:
    deployed.start(audit_share=1.0, audit_window=60)
    send_audited(deployed, 100, 0.0)
    assert deployed.kinds == []
    send_audited(deployed, 150, 0.6)
    assert deployed.kinds == ["disagreement"]
    alarm = deployed.alarms[0]
    assert alarm.value > alarm.limit
    for part in ("risk", "audits", "threshold"):
        assert part in alarm.message
    send_audited(deployed, 150, 0.0)
    assert deployed.monitor.report().alarms == ()
    send_audited(deployed, 150, 0.6)
    assert deployed.kinds == ["disagreement"] * 2


def test_the_limit_is_the_certificates_or_the_one_given(deployed) -> None:
    easiness = usual(1000, seed=99)
    certified = watching.calibration_of(easiness, 0.0, watching.certificate(THRESHOLD, 0.9))
    deployed.calibration = certified
    deployed.start(audit_share=1.0)
    send_audited(deployed, 100, 1.0)
    assert deployed.monitor.report().audits.risk_limit == pytest.approx(0.9)
    assert deployed.kinds == []
    deployed.start(audit_share=1.0, disagreement_alarm=0.3)
    send_audited(deployed, 100, 1.0)
    assert deployed.kinds == ["disagreement"]
    assert deployed.alarms[0].limit == 0.3
    deployed.calibration = None
    deployed.start(audit_share=1.0)
    send_audited(deployed, 100, 1.0)
    assert deployed.kinds == []
    audits = deployed.monitor.report().audits
    assert (audits.risk_limit, audits.failed) == (None, 0)


def test_audits_at_the_limit_itself_raise_few_false_alarms(deployed) -> None:
    """Two windows each, at most 1 % of which may: 8 of 100 streams would be far off."""
    settings = MonitorSettings(audit_share=0, disagreement_alarm=0.1 * 0.65)
    raised: list[int] = []
    for seed in range(100):
        watch = Watch(deployed.watched, settings, None, lambda _, seed=seed: raised.append(seed))
        for loss in np.random.default_rng(seed).random(400) < 0.1:
            watch.take_audit(AuditRecord(float(loss), 0.65, None))
    assert len(set(raised)) < 8


@pytest.mark.parametrize(("window", "looks"), [(20, 6), (40, 3), (41, 2), (60, 2), (61, 1)])
def test_audits_are_looked_at_twenty_times_in_a_window_of_theirs(
    deployed, monkeypatch, window: int, looks: int
) -> None:
    settings = MonitorSettings(audit_share=0, audit_window=window, disagreement_alarm=0.5)
    watch = Watch(deployed.watched, settings, None, None)
    seen = []
    monkeypatch.setattr(watch._board, "update", lambda checks, _images: seen.append(checks) or [])
    for _ in range(6):
        watch.take_audit(AuditRecord(0.75, 0.5, None))
    assert len(seen) == looks
    watch._audits.clear()
    for _ in range(4):
        watch.take_audit(AuditRecord(0.75, 0.5, None))
    (check,) = watch._disagreement_checks()
    low = mean_bounds(0.75, 4, 0.01 / 20)[0] / 2
    assert (check.value, check.limit) == (pytest.approx(low), 0.5)
    assert (check.exceeded, check.recovered) == (False, True)
    assert f"is 0.375 by 4 audits, beyond chance above {low:.3f}, limit 0.500" in check.message
    audits = watch.report(running=True).audits
    assert audits.disagreement_interval == mean_bounds(0.75, 4, 0.025)


def test_a_risk_is_over_at_its_limit_and_an_alarm_only_when_surely_beyond_it(deployed) -> None:
    low = mean_bounds(0.75, 4, 0.01 / 20)[0] / 2
    for limit, exceeded, recovered in (
        (0.375, False, True),
        (0.3749, False, False),
        (low, False, False),
        (0.999 * low, True, False),
    ):
        settings = MonitorSettings(audit_share=0, audit_window=80, disagreement_alarm=limit)
        watch = Watch(deployed.watched, settings, None, deployed.alarms.append)
        deployed.alarms.clear()
        for _ in range(4):
            watch.take_audit(AuditRecord(0.75, 0.5, None))
        assert deployed.kinds == ["disagreement"] * exceeded
        (check,) = watch._disagreement_checks()
        assert (check.exceeded, check.recovered) == (exceeded, recovered)


@pytest.mark.parametrize(
    ("window", "first", "looks"), [(195, 0, [20, 40, 60]), (20, 20, [22, 24, 26])]
)
def test_images_are_looked_at_ten_times_in_a_window(
    deployed, monkeypatch, window: int, first: int, looks: list[int]
) -> None:
    """Where the first window is what later ones are compared with, from its end on."""
    settings = MonitorSettings(window=window, min_images=10, audit_share=0)
    reference = None if first else Reference.of_calibration(deployed.calibration)
    watch = Watch(deployed.watched, settings, reference, None)
    seen: list[int] = []
    monkeypatch.setattr(watch._board, "update", lambda _checks, images: seen.append(images) or [])
    image, found = np.zeros((8, 8, 3), np.uint8), watching.answer(0.5)
    for _ in range(60):
        watch.observe([image], [found], deployed.policy, Postprocess())
    assert seen[:3] == looks
    assert watch.report(running=True).window_images == min(60 - first, window)


def test_an_audit_that_fails_is_counted_and_answers_go_on(deployed) -> None:
    deployed.start(audit_share=1.0)
    deployed.watched.broken = True
    send_audited(deployed, 20, 0.0)
    audits = deployed.monitor.report().audits
    assert audits.failed == sum(usual(20) >= THRESHOLD) > 0
    assert (audits.done, audits.disagreement) == (0, None)


# Callbacks, threads, the end


def test_a_callback_that_raises_breaks_nothing(deployed, caplog) -> None:
    calls = []

    def callback(alarm: Alarm) -> None:
        calls.append(alarm.kind)
        raise RuntimeError("no pager")

    deployed.start(on_alarm=callback, audit_share=1.0, audit_window=20, disagreement_alarm=0.1)
    send_audited(deployed, 60, 1.0)
    deployed.send_easiness([0.1] * 300)
    assert sorted(calls) == ["disagreement", "hard_share", "ks", "psi"]
    assert deployed.monitor.report().audits.failed == 0
    assert deployed.monitor.report().failures == 0
    assert caplog.text.count("no pager") >= 4


@pytest.mark.parametrize("audit_share", [0.0, 1.0])
def test_a_callback_may_ask_for_a_report_and_stop_the_monitor(deployed, audit_share) -> None:
    reports = []

    def callback(_: Alarm) -> None:
        reports.append(deployed.monitor.report())
        deployed.monitor.stop()

    deployed.start(
        on_alarm=callback, audit_share=audit_share, audit_window=20, disagreement_alarm=0.01
    )
    if audit_share:
        send_audited(deployed, 60, 1.0)
    else:
        deployed.send_easiness([0.1] * 300)
    assert reports[0].alarms
    assert not deployed.monitor.running


def test_what_fails_in_the_monitor_is_counted_and_logged_once(deployed, caplog) -> None:
    deployed.start()
    for _ in range(3):
        deployed.monitor.observe([], [watching.answer(0.5)], deployed.policy, Postprocess())
    assert deployed.monitor.report().failures == 3
    assert len(caplog.records) == 1
    deployed.send_easiness([0.5])
    assert deployed.monitor.report().images == 1


def test_start_begins_anew_and_stop_keeps_the_report(deployed) -> None:
    deployed.start(audit_share=1.0)
    send_audited(deployed, 30, 0.0)
    deployed.start(audit_share=1.0)
    assert deployed.monitor.report().images == 0
    assert len(audit_threads()) == 1
    send_audited(deployed, 40, 0.0)
    before = deployed.monitor.report()
    deployed.monitor.stop()
    deployed.monitor.stop()
    assert audit_threads() == []
    after = deployed.monitor.report()
    assert (before.running, after.running) == (True, False)
    assert (after.images, after.audits) == (before.images, before.audits)
    deployed.send_easiness([0.5])
    assert deployed.monitor.report().images == 40


def test_stop_and_close_drop_what_waits(deployed) -> None:
    gate = deployed.watched.gate()
    deployed.start(audit_share=1.0)
    deployed.send(watching.pictures([0.9] * 5))
    assert gate.entered.wait(LONG_S)
    stopping = threading.Thread(target=deployed.monitor.stop)
    stopping.start()
    gate.open.set()
    stopping.join(LONG_S)
    assert not stopping.is_alive()
    audits = deployed.monitor.report().audits
    assert audits.done + audits.dropped == 5
    assert audits.pending == 0
    deployed.detector.close()
    with support.refuses(InputError, "closed"):
        deployed.start()


def test_several_threads_observe_at_once_and_nothing_is_lost(deployed) -> None:
    deployed.start(audit_share=0.5, window=100)
    streams = [usual(150, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda s: deployed.send_easiness(s, batch=3), streams))
    assert deployed.monitor.finish_audits(LONG_S)
    report = deployed.monitor.report()
    assert (report.images, report.window_images, report.failures) == (600, 100, 0)
    assert report.audits.failed == report.audits.pending == 0
    assert 100 < report.audits.done + report.audits.dropped < 400  # half of about 390 easy ones


def test_start_stop_and_observe_may_race(deployed) -> None:
    ended = threading.Event()

    def predict() -> None:
        while not ended.is_set():
            deployed.send(watching.pictures([0.9, 0.1]))

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        deployed.start(audit_share=1.0)
        deployed.monitor.stop()
    ended.set()
    for thread in threads:
        thread.join(LONG_S)
    assert audit_threads() == []
    assert deployed.monitor.report().failures == 0


def test_starts_at_once_leave_one_thread(deployed) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: deployed.start(audit_share=1.0, seed=seed), range(20)))
    assert len(audit_threads()) == 1
    send_audited(deployed, 10, 0.0)
    assert deployed.monitor.report().audits.done == sum(usual(10) >= THRESHOLD)


def test_a_monitor_that_is_dropped_takes_its_thread_along(deployed) -> None:
    monitor = Monitor(deployed.watched, lambda: deployed.calibration)
    monitor.start(audit_share=1.0)
    (thread,) = audit_threads()
    gone = weakref.ref(monitor)
    del monitor
    assert gone() is None  # nothing refers back to it
    thread.join(LONG_S)
    assert not thread.is_alive()
    gc.collect()


@pytest.mark.parametrize("audit_share", [0.0, 1.0])
def test_in_a_child_process_it_is_off_and_waits_for_no_thread(
    deployed, monkeypatch, audit_share
) -> None:
    deployed.start(audit_share=audit_share)
    auditor, finalizer = deployed.monitor._watch.auditor, deployed.monitor._finalizer
    forgotten: list[object] = []
    monkeypatch.setattr("atexit.unregister", forgotten.append)
    deployed.monitor.after_fork()
    assert not deployed.monitor.running
    with support.refuses(InputError, "never started"):
        deployed.monitor.report()
    assert forgotten == ([auditor.stop] if auditor else [])
    monkeypatch.undo()
    if auditor:
        assert not finalizer.alive
        auditor.stop(LONG_S)


def test_a_program_ends_after_the_audit_under_way(tmp_path) -> None:
    bundle = watching.write_audited(tmp_path / "audited.dyn")
    program = f"""
import atexit, dataclasses, threading, time
import dyninfer
from dyninfer.monitoring.monitor import Monitor
from dyninfer.results.postprocess import Postprocess
from dyninfer.runtime.watched import watched
from tests.dyninfer.monitoring import watching

entered, ending = threading.Event(), threading.Event()

def slowly(image, options):
    entered.set()
    ending.wait()
    time.sleep(0.2)
    print("audited", flush=True)
    return seen.last_answer(image, options)

detector = dyninfer.load({str(bundle)!r})
seen = watched(detector.session)
monitor = Monitor(dataclasses.replace(seen, last_answer=slowly), lambda: None)
monitor.start(audit_share=1.0)
images = watching.pictures([0.9] * 8)
monitor.observe(images, detector(images), detector.policy, Postprocess())
entered.wait()
print("seen", monitor.report().images, flush=True)
atexit.register(ending.set)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=120, check=False, cwd=support.ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "seen 8\naudited\n", "")


def test_what_is_watched_where_nothing_is_said() -> None:
    given = inspect.signature(Monitor.start).parameters.values()
    assert {one.name: one.default for one in given if one.name != "self"} == {
        "window": 500,
        "audit_share": 0.02,
        "psi_alarm": 0.2,
        "ks_alarm": 0.01,
        "hard_share_alarm": 0.1,
        "disagreement_alarm": None,
        "min_images": 100,
        "audit_window": 200,
        "on_alarm": None,
        "baseline": None,
        "seed": 0,
    }
