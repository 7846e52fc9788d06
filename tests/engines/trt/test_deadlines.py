"""Deadlines on a device that is slow or hangs, on the stand-in: no GPU was made to."""

from __future__ import annotations

import gc
import time

import pytest

import dyninfer
from tests import support
from tests.engines.trt.rig import assert_same, make_rig

IMAGES = {"images": support.coded_images([(0.9, 0, 0), (0.1, 0, 1), (0.9, 0, 2)])}


class Hanging:
    """Lets a run of a stage never end: the ``next`` one from now on, 1 for the very next."""

    def __init__(self) -> None:
        self.next = 0
        self._seen: set[int] = set()
        self._hung: set[int] = set()

    def __call__(self, operation) -> bool:
        if operation.name == "engine" and operation.number not in self._seen:
            self._seen.add(operation.number)
            self.next -= 1
            if not self.next:
                self._hung.add(operation.number)
        return operation.number in self._hung

    def end(self) -> None:
        self._hung.clear()


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("number", range(1, 5))
def test_a_device_that_hangs_is_given_up_and_used_again_when_it_goes_on(
    tmp_path, package, number
) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig(package=package)
    with dyninfer.load(path) as reference, rig.detector(path) as detector:
        expected = reference.infer(IMAGES)
        assert_same(detector.infer(IMAGES), expected)
        hanging = rig.machine.hangs = Hanging()
        for calls in (2, 3):  # what hangs stays as it is, and the next call has another stream
            hanging.next = number
            start = time.monotonic()
            with support.refuses(
                dyninfer.DeadlineError, "the wait for the GPU was given up", "50 ms"
            ):
                detector.infer(IMAGES, deadline_ms=50)
            assert time.monotonic() - start < 10
            assert detector.failure_counts.deadlines == 3 * (calls - 1)
        assert len({id(workspace) for workspace in rig.workspaces}) > 1
        assert not any(workspace.closed for workspace in rig.workspaces)
        hanging.end()
        assert_same(detector.infer(IMAGES), expected)
        assert_same(detector.infer(IMAGES, deadline_ms=60_000), expected)
        with rig.cuda.active():
            gc.collect()  # the errors' tracebacks hold events, which PyCUDA frees with them


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_a_stage_that_is_late_is_answered_for_by_the_exit_before(tmp_path, package) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig(package=package)
    with rig.detector(path, degrade=True) as detector:
        expected = detector.infer(IMAGES, policy=dyninfer.AlwaysEasy())
        hanging = Hanging()
        hanging.next = 4
        rig.machine.hangs = lambda operation: (  # until it was given up
            hanging(operation) and not any(w.gave_up for w in rig.workspaces)
        )
        found = detector.infer(IMAGES, deadline_ms=1000)
        assert [output.degraded for output in found] == [False, True, False]
        assert_same(found, expected)
        assert detector.failure_counts.deadlines == 1
        with rig.cuda.active():
            gc.collect()


def test_without_a_deadline_nothing_is_polled(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with rig.detector(path) as detector:
        detector.infer(IMAGES)
        assert not rig.machine.calls["cudaEventQuery"]
        detector.infer(IMAGES, deadline_ms=60_000)
        assert rig.machine.calls["cudaEventQuery"]
