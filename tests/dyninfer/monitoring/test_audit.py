from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import dyninfer
from dyninfer import Postprocess
from dyninfer.monitoring.audit import AuditJob, Auditor, AuditRecord, summarise
from dyninfer.monitoring.drift import mean_bounds
from dyninfer.monitoring.expected import Reference
from dyninfer.routing.policy import LeaveAt, Threshold
from tests.dyninfer.monitoring import watching

LONG_S = 60.0  # a wait that ends earlier unless something is wrong


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[watching.Gated]:
    with dyninfer.load(watching.write_audited(tmp_path / "audited.dyn")) as detector:
        yield watching.Gated(detector.session)


@pytest.fixture
def started(watched: watching.Gated) -> Iterator[Callable[..., Auditor]]:
    made: list[Auditor] = []

    def start(on_audited: Callable[[AuditRecord], None], **arguments) -> Auditor:
        made.append(Auditor(watched, on_audited, **arguments))
        made[-1].start()
        return made[-1]

    yield start
    for auditor in made:
        auditor.stop(LONG_S)
    assert not watching.audit_threads()


def job(*, disagrees: bool = False, found: dyninfer.Detections | None = None) -> AuditJob:
    image = watching.picture(0.9, disagrees=disagrees)
    found = watching.answer(0.9, 0, [0.0]) if found is None else found
    return AuditJob(image, found, Postprocess(), 0.5, None)


def test_no_audits_have_no_summary_and_an_idle_auditor_is_done(started) -> None:
    assert summarise([], 0.025) is None
    auditor = started(lambda _: None)
    assert auditor.finish(LONG_S)
    assert (auditor.done, auditor.dropped, auditor.failed, auditor.pending) == (0, 0, 0, 0)


def test_an_audit_is_the_loss_against_the_last_exit_whatever_the_easiness(started) -> None:
    records: list[AuditRecord] = []
    auditor = started(records.append)
    for disagrees in (False, True, False):
        assert auditor.offer(job(disagrees=disagrees))
        assert auditor.finish(LONG_S)
    auditor.offer(job(found=watching.answer(0.9)))  # nothing where the last exit finds one
    assert auditor.finish(LONG_S)
    assert [record.loss for record in records] == [0.0, 1.0, 0.0, 1.0]
    assert (auditor.done, auditor.failed) == (4, 0)


def test_of_two_audits_of_equal_pictures_each_is_its_own() -> None:
    """Their arrays could not say in one word whether they are equal."""
    one, other = job(), job()
    assert one != other
    assert len({one, other}) == 2


def test_an_auditor_that_was_not_started_can_be_stopped(watched) -> None:
    auditor = Auditor(watched, lambda _: None)
    auditor.offer(job())
    auditor.stop()
    assert (auditor.pending, auditor.dropped) == (0, 1)


def test_the_options_are_those_of_the_answer(started) -> None:
    records: list[AuditRecord] = []
    auditor = started(records.append)
    nothing = watching.answer(0.9)
    strict = Postprocess(confidence=0.9)  # the only box has 0.75
    auditor.offer(AuditJob(watching.picture(0.9), nothing, strict, 0.5, None))
    assert auditor.finish(LONG_S)
    assert [record.loss for record in records] == [0.0]


def test_an_offer_returns_while_an_audit_is_under_way_and_a_full_queue_drops(
    started, watched
) -> None:
    gate = watched.gate()
    auditor = started(lambda _: None, capacity=2)
    assert auditor.offer(job())
    assert gate.entered.wait(LONG_S)
    assert [auditor.offer(job()) for _ in range(5)] == [True, True, False, False, False]
    assert (auditor.pending, auditor.dropped) == (3, 3)
    assert not auditor.finish(0)
    gate.open.set()
    assert auditor.finish(LONG_S)
    assert (auditor.done, auditor.dropped, auditor.pending) == (3, 3, 0)


def test_eight_pictures_wait_while_one_is_audited(started, watched) -> None:
    gate = watched.gate()
    auditor = started(lambda _: None)
    auditor.offer(job())
    assert gate.entered.wait(LONG_S)
    assert [auditor.offer(job()) for _ in range(10)] == [True] * 8 + [False] * 2
    gate.open.set()


def test_stopping_drops_what_waits_and_refuses_later_offers(started, watched) -> None:
    gate = watched.gate()
    auditor = started(lambda _: None)
    for _ in range(3):
        auditor.offer(job())
    assert gate.entered.wait(LONG_S)
    auditor.signal_stop()
    assert (auditor.pending, auditor.dropped) == (1, 2)
    assert not auditor.offer(job())
    gate.open.set()
    auditor.stop(LONG_S)
    auditor.stop(LONG_S)
    assert (auditor.done, auditor.dropped, auditor.pending) == (1, 3, 0)


def test_audits_wait_for_a_moment_without_calls(started, watched) -> None:
    audited = threading.Event()
    auditor = started(lambda _: audited.set(), patience_s=LONG_S)
    with watched.session.workspace():
        assert not watched.wait_idle(0)
        auditor.offer(job())
        assert not audited.wait(0.3)
    assert audited.wait(LONG_S)
    assert watched.wait_idle(LONG_S)


def test_patience_ends_and_an_audit_runs_beside_calls(started, watched) -> None:
    audited = threading.Event()
    auditor = started(lambda _: audited.set(), patience_s=0.1)
    with watched.session.workspace():
        auditor.offer(job())
        assert audited.wait(LONG_S)


@pytest.mark.parametrize(("patience", "waits"), [({}, 20), ({"patience_s": 0.0}, 1)])
def test_a_moment_without_calls_is_waited_for_in_short_steps_up_to_two_seconds(
    patience: dict, waits: int
) -> None:
    waited: list[float] = []
    answer = watching.answer(0.9)
    always_busy = SimpleNamespace(
        wait_idle=waited.append,
        last_answer=lambda _image, _options: answer,
        task=SimpleNamespace(loss=lambda _found, _reference: 0.0),
    )
    auditor = Auditor(always_busy, lambda _: None, **patience)
    auditor.offer(job())
    auditor.start()
    try:
        assert auditor.finish(LONG_S)
        assert waited == [0.1] * waits
    finally:
        auditor.stop(LONG_S)


def test_a_program_waits_ten_seconds_for_an_audit_when_it_ends(watched, monkeypatch) -> None:
    registered: list[tuple] = []
    monkeypatch.setattr("atexit.register", lambda *given: registered.append(given))
    auditor = Auditor(watched, lambda _: None)
    auditor.start()
    auditor.stop(LONG_S)
    assert registered == [(auditor.stop, 10.0)]


def test_an_audit_that_waits_for_an_idle_moment_ends_when_stopped(started, watched) -> None:
    auditor = started(lambda _: None, patience_s=10 * LONG_S)
    with watched.session.workspace():
        auditor.offer(job())
        auditor.stop(LONG_S)
        assert not watching.audit_threads()
    assert auditor.done == 0


def test_an_audit_that_fails_is_counted_logged_once_and_the_next_runs(
    started, watched, caplog
) -> None:
    records: list[AuditRecord] = []
    auditor = started(records.append)
    watched.broken = True
    with caplog.at_level(logging.ERROR, "dyninfer.monitor"):
        for failed in (1, 2, 3):
            auditor.offer(job())
            assert auditor.finish(LONG_S)
            assert (auditor.failed, auditor.done) == (failed, 0)
            assert len(caplog.records) == 1
    assert "IndexError" in caplog.text
    watched.broken = False
    auditor.offer(job())
    assert auditor.finish(LONG_S)
    assert len(records) == auditor.done == 1


def test_a_closed_pipeline_fails_audits_and_nothing_else(started, watched) -> None:
    auditor = started(lambda _: None)
    watched.session.close()
    auditor.offer(job())
    assert auditor.finish(LONG_S)
    assert (auditor.failed, auditor.done) == (1, 0)


def test_the_audits_thread_may_stop_itself(started) -> None:
    box: list[Auditor] = []
    box.append(started(lambda _: box[0].stop()))
    box[0].offer(job())
    for thread in watching.audit_threads():
        thread.join(LONG_S)
    assert not watching.audit_threads()
    assert box[0].failed == 0


def test_a_stopped_auditor_is_freed(watched) -> None:
    auditor = Auditor(watched, lambda _: None)
    auditor.start()
    auditor.stop(LONG_S)
    gone = weakref.ref(auditor)
    del auditor
    gc.collect()
    assert gone() is None


def test_the_summary_weighs_losses_by_the_share_that_left_early() -> None:
    calibration = watching.calibration_of([0.1, 0.4, 0.6, 0.9], [1.0, 0.5, 0.5, 0.1])
    reference = Reference.of_calibration(calibration)
    outlooks = [reference.under(Threshold(0.5)), reference.under(LeaveAt(0))]
    records = [AuditRecord(0.2, 0.5, outlooks[0]), AuditRecord(0.6, 1.0, outlooks[1])]
    summary = summarise(records, 0.025)
    assert summary.disagreement == pytest.approx(0.4)
    assert summary.disagreement_interval == mean_bounds(summary.disagreement, 2, 0.025)
    # half left early of some images and all of others: two audits stand for 2 + 1 images
    assert summary.risk == pytest.approx(0.4 * 2 / 3)
    bounds = np.array(mean_bounds(summary.disagreement, 2, 0.025)) * 2 / 3
    assert summary.risk_interval == pytest.approx(tuple(bounds))
    assert summary.expected_disagreement == pytest.approx((0.3 + 2.1 / 4) / 2)
    limits = [outlook.risk_limit for outlook in outlooks]
    assert summary.risk_limit == pytest.approx(np.mean(limits))
    assert summarise(records, 0.025, limit=0.07).risk_limit == 0.07


def test_the_risk_is_unbiased_while_the_share_of_easy_images_moves() -> None:
    generator = np.random.default_rng(0)
    shares, losses = np.repeat([1.0, 0.2], 100_000), np.repeat([0.0, 0.5], 100_000)
    left_early = generator.random(len(shares)) < shares
    audited = left_early & (generator.random(len(shares)) < 0.05)
    records = [
        AuditRecord(float(loss), float(share), None)
        for loss, share in zip(losses[audited], shares[audited], strict=True)
    ]
    assert summarise(records, 0.025).risk == pytest.approx((losses * left_early).mean(), rel=0.1)


def test_what_is_unknown_of_one_audit_is_unknown_of_all() -> None:
    known = Reference.of_calibration(watching.calibration_of([0.1, 0.9], 0.5)).under(Threshold(0.5))
    bare = Reference.of_easiness([0.1, 0.9], 1).under(Threshold(0.5))
    for unknown in (None, bare):
        summary = summarise([AuditRecord(0.5, 1, known), AuditRecord(0.5, 1, unknown)], 0.025)
        assert (summary.expected_disagreement, summary.risk_limit) == (None, None)
        assert summary.disagreement == 0.5
