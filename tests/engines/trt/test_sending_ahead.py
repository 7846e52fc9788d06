"""Frames of a stream that travel to the GPU while it works on those before them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, Threshold
from dyninfer.errors import EngineRunError, InputError
from tests import support
from tests.dyninfer.runtime.test_streaming import Made
from tests.engines.trt.rig import Rig, make_rig

SENT = "cudaMemcpyHostToDevice"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return support.write_two_exits(tmp_path / "two.dyn")


def frames(folder: Path, count: int) -> str:
    folder.mkdir()
    for number in range(count):
        picture = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number:03}.png"), picture)
    return str(folder)


class WhileItRuns:
    """Decides on a frame, in the middle of its run, once so many images were sent."""

    def __init__(self, rig: Rig, count: int) -> None:
        self.machine, self.count, self.decided = rig.machine, count, 0

    def decide(self, signal, _point) -> np.ndarray:
        self.decided += 1
        wanted, end = min(self.decided + 1, self.count), time.monotonic() + 20
        while self.machine.calls[SENT] < wanted:
            assert time.monotonic() < end, f"{wanted} images should be on their way by now"
            time.sleep(0.001)
        return np.zeros(len(signal), np.int64)


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_a_frame_is_on_its_way_before_the_run_of_the_one_before_it_ends(
    tmp_path, bundle, package
) -> None:
    rig = make_rig(package=package)
    with rig.detector(bundle) as detector:
        policy = WhileItRuns(rig, 5)
        found = list(detector.stream(frames(tmp_path / "frames", 5), policy=policy))
    assert len(found) == policy.decided == 5
    assert rig.machine.calls[SENT] == 5  # each once


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_what_is_found_is_what_calls_find(tmp_path, bundle, package, late) -> None:
    """The stand-in reports whatever is read before it is there, or written while it is read."""
    rig, source = make_rig(package=package, late=late), frames(tmp_path / "frames", 12)
    with rig.detector(bundle) as detector, dyninfer.load(bundle) as reference:
        for policy in (AlwaysEasy(), AlwaysHard(), Threshold(0.5)):
            for found in detector.stream(source, policy=policy):
                expected = reference(found.frame.image, policy=policy)
                assert found.detections.exit_index == expected.exit_index
                boxes = found.detections.boxes_xyxy
                np.testing.assert_allclose(boxes, expected.boxes_xyxy, atol=1e-3)
        stream = detector.stream(source)
        next(stream)
        stream.close()  # with frames under way


@pytest.mark.parametrize("policy", [AlwaysEasy(), AlwaysHard(), Threshold(0.0), Threshold(1.1)])
def test_a_frame_takes_at_most_20_calls(tmp_path, bundle, policy) -> None:
    rig = make_rig()
    short, long = frames(tmp_path / "short", 20), frames(tmp_path / "long", 60)
    with rig.detector(bundle) as detector:
        counts = []
        for source in (long, short, long):
            rig.machine.calls.clear()
            assert len(list(detector.stream(source, policy=policy))) == len(
                list(Path(source).iterdir())
            )
            calls = rig.machine.calls
            counts.append(Counter({n: c for n, c in calls.items() if "To" not in n}))
    each = counts[2] - counts[1]
    del each["enqueue"]
    assert each["cudaMemcpyAsync"] in range(4 * 38, 4 * 42)  # here, there, and two reads
    # a thread more or less opens what it sends with
    assert each.total() <= 40 * 20 + 16, each


def test_the_thread_of_a_foreign_source_has_no_gpu_of_ours(bundle) -> None:
    """It may use CUDA itself; its frames go with the calls that run them."""
    rig = make_rig()
    seen: list[int] = []

    class Foreign(Made):
        def __next__(self) -> dyninfer.Frame:
            seen.append(rig.machine.current)
            return super().__next__()

    with rig.detector(bundle) as detector:
        assert len(list(detector.stream(Foreign(6)))) == 6
    assert set(seen) == {0}


def test_a_detector_may_be_closed_before_its_stream(tmp_path, bundle) -> None:
    rig, source = make_rig(), frames(tmp_path / "frames", 12)
    with rig.detector(bundle) as detector:
        stream = detector.stream(source)
        next(stream)
        detector.close()
        with pytest.raises(InputError, match="was closed"):
            for _ in stream:
                pass
        stream.close()


@pytest.mark.parametrize("call", ["cudaStreamCreateWithFlags", "cudaHostAlloc", "cudaMemcpyAsync"])
def test_what_cuda_refuses_ends_the_stream_with_its_reason(tmp_path, bundle, call) -> None:
    rig, source = make_rig(), frames(tmp_path / "frames", 12)
    with rig.detector(bundle) as detector:
        rig.machine.failures[call] = "cudaErrorMemoryAllocation"
        with pytest.raises(EngineRunError, match="cudaErrorMemoryAllocation"):
            list(detector.stream(source))
        rig.machine.failures.clear()
        assert len(list(detector.stream(source))) == 12
