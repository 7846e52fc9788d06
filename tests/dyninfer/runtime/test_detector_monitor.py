from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import dyninfer
from dyninfer import InputError, PolicyError, Postprocess
from dyninfer.bundle.calibration import Calibration
from tests import support
from tests.dyninfer.monitoring import watching


def audit_threads() -> int:
    return sum(thread.name == "dyninfer-audit" for thread in threading.enumerate())


@pytest.fixture
def bundle(tmp_path):
    return watching.write_audited(tmp_path / "audited.dyn")


def test_a_detector_shows_its_monitor_what_it_answers(bundle) -> None:
    easiness = watching.quantised(np.random.default_rng(0).beta(2, 2, 300))
    with dyninfer.load(bundle, max_batch=7) as detector:
        assert not detector.monitor.running
        detector(watching.pictures(easiness[:9]))
        detector.monitor.start(audit_share=0)
        detector(watching.pictures(easiness[:20]))
        detector(watching.picture(0.9))
        assert len(list(detector.stream(watching.pictures(easiness[20:30])))) == 10
        detector.infer({"images": support.coded_images([(0.4, 0, 0)])})
        report = detector.monitor.report()
        assert report.images == 31
        assert report.hard_share == pytest.approx(np.mean([*(easiness[:30] < 0.5), False]))


def test_audits_use_the_options_of_the_call(bundle) -> None:
    with dyninfer.load(bundle) as detector:
        detector.monitor.start(audit_share=1.0)
        picture = watching.picture(0.9, disagrees=True)
        for options, loss in ((Postprocess(confidence=0.9), 0.0), (None, 0.5)):
            detector(picture, options=options)  # above 0.9 there is no box at either exit
            assert detector.monitor.finish_audits(60)
            assert detector.monitor.report().audits.disagreement == loss


def test_closing_ends_the_audits_first(bundle) -> None:
    with dyninfer.load(bundle) as detector:
        detector.monitor.start(audit_share=1.0)
        detector(watching.pictures([0.9] * 8))
        assert audit_threads() == 1
    assert audit_threads() == 0
    audits = detector.monitor.report().audits
    assert (audits.done + audits.dropped, audits.failed, audits.pending) == (8, 0, 0)
    with support.refuses(InputError, "closed"):
        detector.monitor.start()


def test_a_detector_that_is_dropped_is_freed_with_its_thread(bundle) -> None:
    detector = dyninfer.load(bundle)
    detector.monitor.start(audit_share=1.0)
    detector(watching.pictures([0.9] * 3))
    (thread,) = [t for t in threading.enumerate() if t.name == "dyninfer-audit"]
    gone = weakref.ref(detector)
    del detector
    gc.collect()
    assert gone() is None
    thread.join(60)
    assert not thread.is_alive()


def test_a_calibration_of_other_engines_is_refused_unless_it_is_given(bundle) -> None:
    calibration = watching.calibration_of(watching.quantised(np.linspace(0, 1, 50)))
    with dyninfer.load(bundle) as detector:
        detector.bundle.write_calibration(calibration)
        with support.refuses(PolicyError, "the monitor", "dyninfer calibrate"):
            detector.monitor.start()
        detector.monitor.start(baseline=detector.bundle.calibration())
        own = Calibration.model_validate(
            calibration.model_dump() | {"engine": detector.engine_record().model_dump()}
        )
        detector.bundle.write_calibration(own)
        detector.monitor.start()
        assert detector.monitor.report().baseline == "calibration on 50 images"
