"""Signals whose handlers raise, predict or close while a call is under way lose nothing."""

from __future__ import annotations

import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.engines.ort import backend
from tests import support

INTERRUPTIONS = 10_000
IMAGES = {"images": support.coded_images([(0.9, 0, 0), (0.1, 0, 1), (0.9, 0, 2)])}
EXITS = [0, 1, 0]


class OutOfTimeError(OSError):
    """An application's own: its time-outs are no business of dyninfer's."""


@contextmanager
def on_alarm(handler: Callable[[], None]) -> Iterator[None]:
    former = signal.signal(signal.SIGALRM, lambda *_: handler())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def dropped_by_python() -> Iterator[list[str]]:
    """What is raised within callbacks of Python's collector and within logging: both drop it.

    So does Python's import, which NumPy does at its first quantile.
    """
    np.quantile([0.0], 0.5)
    dropped: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda lost: dropped.append(str(lost.exc_value)))
        patch.setattr(logging.Handler, "handleError", lambda _, lost: dropped.append(str(lost)))
        yield dropped


def exits_of(outputs: list[dyninfer.RawOutput]) -> list[int]:
    corners = [round(float(output.outputs["boxes_xyxy"][0, 0])) for output in outputs]
    assert corners == [1000 * output.exit_index + row for row, output in enumerate(outputs)]
    return [output.exit_index for output in outputs]


def close_within(detector: dyninfer.Detector, seconds: float) -> bool:
    closer = threading.Thread(target=detector.close, daemon=True)
    closer.start()
    closer.join(seconds)
    return not closer.is_alive()


def test_ten_thousand_exceptions_at_random_moments_lose_nothing(two_exits) -> None:
    armed = False

    def interrupt() -> None:
        nonlocal armed
        if armed:
            armed = False
            raise OutOfTimeError("the application's own words")

    rng = random.Random(0)
    interrupted = 0
    with on_alarm(interrupt):
        for _ in range(INTERRUPTIONS):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 4e-4))
                answered = exits_of(two_exits.infer(IMAGES))
                armed = False
            except OutOfTimeError as error:
                assert str(error) == "the application's own words"  # noqa: PT017
                interrupted += 1
            else:
                assert answered == EXITS
    assert interrupted > INTERRUPTIONS / 10
    assert exits_of(two_exits.infer(IMAGES)) == EXITS
    assert close_within(two_exits, 10)


def test_lost_workspaces_are_freed(two_exits, workspaces) -> None:
    """An interruption may take buffers along, but not for good."""
    with two_exits.session.workspace():
        two_exits.infer(IMAGES)
    for workspace in list(workspaces):
        two_exits.session.workspace().__enter__()  # dropped at once: lost
        assert workspace is not None
    with two_exits.session.workspace():
        two_exits.infer(IMAGES)
    alive = [workspace for workspace in workspaces if workspace.allocated_bytes]
    assert len(alive) <= 2


@pytest.mark.parametrize("calls_again", [False, True])
def test_a_handler_may_close_the_detector_and_predict_during_a_call(two_exits, calls_again) -> None:
    """The call goes on after the handler, whatever the handler has done."""
    seen: list[object] = []

    def handler() -> None:
        if calls_again:
            seen.append(exits_of(two_exits.infer(IMAGES)))
        two_exits.close()
        seen.append("closed")

    class Slow(dyninfer.Threshold):
        def decide(self, easiness, point):
            signal.raise_signal(signal.SIGALRM)
            return super().decide(easiness, point)

    with on_alarm(handler):
        assert exits_of(two_exits.infer(IMAGES, policy=Slow(0.5))) == EXITS
    assert seen == ([EXITS] if calls_again else []) + ["closed"]
    assert not two_exits.engines
    with support.refuses(dyninfer.InputError, "closed"):
        two_exits.infer(IMAGES)
    two_exits.close()


def test_any_number_of_threads_may_close_at_once(tmp_path) -> None:
    for index in range(20):
        detector = dyninfer.load(support.write_two_exits(tmp_path / f"{index}.dyn"))
        detector.infer(IMAGES)
        failures: list[Exception] = []
        start = threading.Barrier(8)

        def close(detector=detector, start=start, failures=failures) -> None:
            start.wait()
            try:
                detector.close()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert not failures
        assert not detector.engines


def test_what_a_handler_raises_while_a_stage_runs_comes_out_as_it_is(
    two_exits, monkeypatch
) -> None:
    run_binding = backend.run_binding

    def interrupted(*arguments: object) -> None:
        run_binding(*arguments)
        signal.raise_signal(signal.SIGALRM)

    def handler() -> None:
        raise OutOfTimeError("now")

    monkeypatch.setattr(backend, "run_binding", interrupted)
    with on_alarm(handler), pytest.raises(OutOfTimeError, match="now"):
        two_exits(np.zeros((8, 8, 3), np.uint8))


def test_a_monitor_that_audits_swallows_no_exception_and_is_never_left_locked(two_exits) -> None:
    raised = 0

    def interrupt() -> None:
        nonlocal raised
        raised += 1
        raise OutOfTimeError("now")

    rng = random.Random(1)
    pictures = [np.full((8, 8, 3), level, np.uint8) for level in (20, 230)]
    two_exits.monitor.start(baseline=np.linspace(0, 1, 500), audit_share=1.0, min_images=1)
    caught = 0
    with dropped_by_python() as dropped, on_alarm(interrupt):
        for _ in range(1000):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-3))
                two_exits(pictures)
                time.sleep(0.01)  # the alarm comes in here, if it did not during the call
            except OutOfTimeError:
                caught += 1
    assert raised == 1000
    assert raised - 2 <= caught + len(dropped) <= raised  # OSError is dropped elsewhere, too
    assert len(dropped) < 50
    assert two_exits.monitor.report().failures == 0
    assert close_within(two_exits, 10)


def test_a_time_out_while_a_picture_is_read_is_no_damaged_picture(two_exits, tmp_path) -> None:
    path = str(tmp_path / "picture.png")
    cv2.imwrite(path, np.zeros((64, 64, 3), np.uint8))
    caught = 0

    def interrupt() -> None:
        raise OutOfTimeError("now")

    rng = random.Random(2)
    with dropped_by_python() as dropped, on_alarm(interrupt):
        for _ in range(1000):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 3e-4))
                two_exits(path)
                time.sleep(0.01)
            except OutOfTimeError:
                caught += 1
    assert 998 <= caught + len(dropped) <= 1000
    assert len(dropped) < 50
